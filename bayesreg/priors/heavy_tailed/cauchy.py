"""The Cauchy prior: Student-t with one degree of freedom, the heaviest tails in common use."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter
from bayesreg.priors.heavy_tailed.base import HeavyTailed
from bayesreg.priors.located.located import Loc

__all__ = ["Cauchy"]


@register_family
@final
class Cauchy(HeavyTailed):
    r"""Independent Cauchy elements, ``log p(w) = −Σ log(1 + ((w − loc)/scale)²) − Σ log(π·scale)``.

    Half of the mass lies within `scale` of the centre; there is neither mean nor variance. It is not convex: a MAP
    may be one of several.

    Args:
        scale: Width > 0, in units of the weights: a number, a tensor that broadcasts to the parameter, or an
            `nn.Parameter` when it is learned.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `scale` is not > 0 or `loc` not finite.

    Example:
        >>> import torch
        >>> prior = Cauchy(scale=0.5)
        >>> round(prior.log_prob(torch.tensor([0.5])).item(), 4)  # 1/(π · 0.5 · 2)
        -1.1447
        >>> prior.variance() is None
        True

    References:
        Gelman, Jakulin, Pittau and Su (2008), A Weakly Informative Default Prior Distribution for Logistic and
        Other Regression Models, section 2.
    """

    scale: Tensor
    _flat_where_infinite = True

    def __init__(self, scale: Hyperparameter, *, loc: Loc = 0.0) -> None:
        super().__init__(loc=loc, scale=scale)

    def _df_and_square(self) -> tuple[Tensor, Tensor]:
        return torch.ones((), dtype=torch.float64), self.scale.square()

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return f"Cauchy, {self._in_words(scale='scale')}"
