"""The flat prior: no opinion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from bayesreg.optimizers import OptimizerLike
from bayesreg.priors.base import Prior, Traits, require_proper
from bayesreg.priors.tensors import Hyperparameter, promoted
from bayesreg.scale import LossScale

__all__ = ["Flat"]


@final
class Flat(Prior):
    """The improper prior p(w) ∝ 1: no penalty, what biases and normalisation parameters get by default.

    Example:
        >>> Flat().log_prob(torch.ones(3)).item(), Flat().weight_decay(1000)
        (0.0, 0.0)
    """

    traits = Traits(proper=False, convex=True, smooth=True, elementwise=True, has_prox=True)

    def __init__(self) -> None:
        super().__init__()

    def penalty(self, value: Tensor) -> Tensor:
        # Keeps the autograd graph, so that a loss made only of flat priors can be back-propagated.
        return promoted(value).sum() * 0.0

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        return

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        return value.clone()

    def curvature(self, value: Tensor) -> Tensor:
        return torch.zeros_like(promoted(value.detach()))

    def sample(
        self,
        shape: Sequence[int] = (),
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Raise: an improper prior cannot be drawn from."""
        require_proper(self, "drawing from it")
        raise AssertionError("unreachable")

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        return None

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return {}

    def weight_decay(self, loss_scale: LossScale | int, optimizer: OptimizerLike | None = None) -> float:
        """Return 0.0: a flat prior is no decay, on any optimizer."""
        return 0.0

    def exact_pull(self, loss_scale: LossScale) -> Hyperparameter:
        return self.weight_decay(loss_scale)

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return "flat (no penalty)"
