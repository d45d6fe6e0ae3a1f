"""The smoothly clipped absolute deviation: L1 to a knee, then less and less, then nothing."""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter
from bayesreg.priors.folded.base import Folded, Piece
from bayesreg.priors.located.located import Loc

__all__ = ["SCAD"]


@register_family
@final
class SCAD(Folded):
    r"""Smoothly clipped absolute deviation, of slope ``strength`` to ``knee``, falling to 0 at ``gamma·knee``.

    With a the distance from loc, −log p = Σ strength·a for a <= knee, then strength·(2·gamma·knee·a − a² −
    knee²)/(2·(gamma − 1)·knee), and ½·strength·knee·(gamma + 1) from gamma·knee on. The published form has knee =
    strength, in weights of unit size. Improper: it is no density. Its prox is exact for any step.

    Args:
        strength: Slope > 0 at the centre, in 1/units of the weights: a number or a tensor.
        gamma: > 1, without units; 3.7 (default) is the published choice.
        knee: > 0, in units of the weights. Default: the number `strength`, as published.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `strength` or `knee` is not > 0, `gamma` not > 1 or `loc` not finite.

    Example:
        >>> SCAD(strength=1.0).prox(torch.tensor([0.5, 1.5, 5.0]), step=1.0)
        tensor([0.0000, 0.5000, 5.0000])

    References:
        Fan and Li (2001), Variable Selection via Nonconcave Penalized Likelihood, equation 2.7.
    """

    strength: Tensor
    gamma: Tensor
    knee: Tensor

    def __init__(
        self,
        strength: Hyperparameter,
        gamma: Hyperparameter = 3.7,
        knee: Hyperparameter | None = None,
        *,
        loc: Loc = 0.0,
    ) -> None:
        checked = checks.positive("gamma", gamma)
        if not bool((torch.as_tensor(checked) > 1.0).all()):
            raise InvalidArgumentError(f"gamma: expected a value > 1, got {gamma!r}.")
        super().__init__(
            loc=loc,
            strength=checks.positive("strength", strength),
            gamma=checked,
            knee=checks.positive("knee", strength if knee is None else knee),
        )

    def pieces(self) -> list[Piece]:
        """Return the line to the knee, the bend from there to gamma·knee and the constant beyond."""
        zero = torch.zeros_like(self.strength * self.gamma * self.knee)
        bend = -self.strength / ((self.gamma - 1.0) * self.knee)
        slope = self.strength + zero
        return [
            (zero, slope, zero),
            (self.knee + zero, slope, bend + zero),
            (self.gamma * self.knee + zero, zero, zero),
        ]

    def times(self, factor: float) -> Self:
        """Return the penalty of factor·strength; see `Prior.times`."""
        return self.with_powers(factor, strength=1.0)

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        words = self._in_words(strength="strength", knee="knee", gamma="gamma")
        return f"smoothly clipped absolute deviation (improper), {words}"
