"""The flat prior: no opinion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self, final

import torch
from torch import Tensor

from bayesreg.priors.contract.prior import Prior
from bayesreg.priors.contract.quadratic import Quadratic
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, promoted, summed
from bayesreg.priors.contract.traits import Traits

__all__ = ["Flat"]


@register_family
@final
class Flat(Prior):
    """The improper prior p(w) ∝ 1: no penalty, what biases and normalisation parameters get by default.

    Example:
        >>> Flat().log_prob(torch.ones(3)).item(), Flat().weight_decay(1000)
        (0.0, 0.0)
    """

    traits = Traits(proper=False, convex=True, smooth=True, elementwise=True, has_prox=True)

    _takes_complex = True

    def __init__(self) -> None:
        super().__init__()

    def penalty(self, value: Tensor) -> Tensor:
        # Keeps the autograd graph, so that a loss made only of flat priors can be back-propagated.
        return summed(promoted(value.real if value.is_complex() else value)) * 0.0

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        return

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        return value.clone()

    def curvature(self, value: Tensor) -> Tensor:
        return torch.zeros_like(promoted(value.detach()))

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        return None

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return {}

    def quadratic(self) -> Quadratic:
        """Return the parabola of infinite variance: no decay, on any optimizer; see `Prior.quadratic`."""
        return Quadratic(math.inf)

    def times(self, factor: float) -> Self:
        """Return the prior itself; see `Prior.times`."""
        return self

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return "flat (no penalty)"
