"""The minimax concave penalty: L1 near zero, nothing far out, the least concave way between."""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter
from bayesreg.priors.folded.base import Folded, Piece
from bayesreg.priors.located.located import Loc

__all__ = ["MCP"]


@register_family
@final
class MCP(Folded):
    r"""Minimax concave penalty, ``−log p = Σ strength·a − a²/(2·gamma)`` to a = strength·gamma, then constant.

    The constant is ½·gamma·strength²; a is the distance from loc. It has exact zeros like L1, without shrinking large
    weights, which are not penalised further. gamma → ∞ is L1, gamma → 0 with strength²·gamma fixed is L0. Improper: no
    density has it.

    Its prox is exact for any step: firm thresholding for steps below gamma; beyond, where the sum is no longer convex,
    the better of 0 and the point itself (hard thresholding at strength·√(gamma·step)).

    Args:
        strength: Slope > 0 at the centre, in 1/units of the weights: a number or a tensor.
        gamma: > 0, in squared units of the weights: how slowly it levels off. A number or a tensor.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `strength` or `gamma` is not > 0 or `loc` not finite.

    Example:
        >>> MCP(strength=1.0, gamma=2.0).prox(torch.tensor([0.5, 1.5, 3.0]), step=1.0)
        tensor([0., 1., 3.])

    References:
        Zhang (2010), Nearly Unbiased Variable Selection under Minimax Concave Penalty, equation 2.1.
    """

    strength: Tensor
    gamma: Tensor

    def __init__(self, strength: Hyperparameter, gamma: Hyperparameter, *, loc: Loc = 0.0) -> None:
        strength, gamma = checks.positive("strength", strength), checks.positive("gamma", gamma)
        super().__init__(loc=loc, strength=strength, gamma=gamma)

    def pieces(self) -> list[Piece]:
        """Return the quadratic to strength·gamma and the constant beyond."""
        knee, zero = self.strength * self.gamma, torch.zeros_like(self.strength * self.gamma)
        return [(zero, self.strength + zero, zero - self.gamma.reciprocal()), (knee, zero, zero)]

    def times(self, factor: float) -> Self:
        """Return the penalty of factor·strength and gamma/factor; see `Prior.times`."""
        return self.with_powers(factor, strength=1.0, gamma=-1.0)

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return f"minimax concave penalty (improper), {self._in_words(strength='strength', gamma='gamma')}"
