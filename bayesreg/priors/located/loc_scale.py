"""The families that are given by a centre and a width."""

from __future__ import annotations

from abc import ABC

from torch import Tensor

from bayesreg.priors.contract.tensors import Hyperparameter
from bayesreg.priors.located.located import Loc, LocatedPrior

__all__ = ["LocScalePrior"]


class LocScalePrior(LocatedPrior, ABC):
    """A prior on independent elements with a centre `loc` and a width `scale`.

    Args:
        scale: Width > 0, in units of the weights: a number, a tensor that broadcasts to the parameter, or an
            `nn.Parameter` when it is learned. Where a tensor is ∞ the elements are flat: no pull, not counted.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors, which `ModelPrior`
            binds to each parameter. Default 0.

    Raises:
        InvalidArgumentError: If `scale` is not > 0 or `loc` not finite.
    """

    scale: Tensor
    _flat_where_infinite = True

    def __init__(self, scale: Hyperparameter, *, loc: Loc = 0.0) -> None:
        super().__init__(loc=loc, scale=scale)
