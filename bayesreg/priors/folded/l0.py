"""The L0 penalty: so many nats for every weight that is not zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Self, final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, promoted
from bayesreg.priors.folded.base import Folded, Piece
from bayesreg.priors.located.located import Loc

__all__ = ["L0"]


@register_family
@final
class L0(Folded):
    r"""``−log p = strength·#{w ≠ loc}``: each weight off the centre costs the same, however large it is.

    The limit of spike-and-slab priors whose spike is a point and whose slab is wide. Improper: it is no density. It has
    no gradient to follow; proximal steps threshold hard, at √(2·strength·step). Local modes abound.

    Args:
        strength: > 0, in nats per weight: a number or a tensor.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `strength` is not > 0 or `loc` not finite.

    Example:
        >>> L0(strength=0.5).prox(torch.tensor([0.9, 1.1]), step=1.0)
        tensor([0.0000, 1.1000])

    References:
        Blumensath and Davies (2008), Iterative Thresholding for Sparse Approximations, section 2.
    """

    traits = replace(Folded.traits, has_slope=False)
    strength: Tensor

    def __init__(self, strength: Hyperparameter, *, loc: Loc = 0.0) -> None:
        super().__init__(loc=loc, strength=checks.positive("strength", strength))

    def pieces(self) -> list[Piece]:
        """Return one flat piece; the step at the centre is in `offset_penalty` and `offset_prox`."""
        zero = torch.zeros_like(self.strength)
        return [(zero, zero, zero)]

    def offset_penalty(self, offset: Tensor) -> Tensor:
        # The second term keeps the autograd graph, with a gradient of 0.
        return torch.where(offset != 0, self.strength.to(offset), 0.0) + 0.0 * offset

    def offset_prox(self, offset: Tensor, step: Tensor) -> Tensor:
        threshold = (2.0 * self.strength.to(torch.float64) * step.to(torch.float64)).to(offset.device)
        return torch.where(offset.to(torch.float64).square() > threshold, offset, 0.0)

    def subdiff_distance(self, value: Tensor, grad: Tensor, coefficient: float = 1.0) -> Tensor:
        # No slope moves a weight off the centre: every point with zeros there is stationary.
        return torch.where(self._shifted(value.detach()) == 0, 0.0, promoted(grad).abs())

    def _kept_on_side(self, before: Tensor, after: Tensor) -> Tensor:
        return after

    def times(self, factor: float) -> Self:
        """Return the penalty of factor·strength; see `Prior.times`."""
        return self.with_powers(factor, strength=1.0)

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return f"L0 penalty (improper), {self._in_words(strength='strength')}"
