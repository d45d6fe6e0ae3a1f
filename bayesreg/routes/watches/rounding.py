"""A pull too small for the weights' own precision is lost: say so once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import ASGD, SGD, Optimizer

from bayesreg.conversion import LossScale
from bayesreg.errors import RoundingWarning
from bayesreg.optimizers import steady_gain
from bayesreg.routes.planning.plan import GroupPlan

__all__ = ["RoundingWatch", "lost_to_rounding"]


def lost_to_rounding(pull: float, dtype: torch.dtype) -> bool:
    """Return whether shrinking a weight by this share of itself leaves it as it is.

    Args:
        pull: Relative change per step, lr · λ.
        dtype: Of the weights.

    Returns:
        True if pull is below a quarter of the dtype's epsilon: half the finest spacing, relative to a weight.

    Example:
        >>> lost_to_rounding(5e-6, torch.bfloat16), lost_to_rounding(5e-6, torch.float32)
        (True, False)
    """
    return 0.0 < pull < torch.finfo(dtype).eps / 4.0


class RoundingWatch:
    """Watches lr · λ of one optimizer, and warns once when it is lost at the learning rate's peak.

    Args:
        optimizer: The optimizer.
        plans: Its routes.
        loss_scale: s.
    """

    def __init__(self, optimizer: Optimizer, plans: Iterable[GroupPlan], loss_scale: LossScale) -> None:
        # Adaptive optimizers rescale the pull with the gradient, so lr · λ says nothing about it there.
        steady = isinstance(optimizer, SGD | ASGD)
        self._watched: list[tuple[int, str, torch.dtype, float]] = []
        for index, plan in enumerate(plans):
            weakest: dict[torch.dtype, tuple[float, str]] = {}
            for member in plan.on("native", "native + centre", "gradient", "decoupled"):
                parabola, dtype = member.parabola, member.parameter.dtype
                alone = member.route == "decoupled"
                if not dtype.is_floating_point:
                    continue
                half = torch.finfo(dtype).bits < 32
                strength = parabola.strength(loss_scale) if parabola is not None else 0.0
                if not isinstance(strength, float) or not strength or not (alone or (steady and half)):
                    continue
                if dtype not in weakest or strength < weakest[dtype][0]:
                    weakest[dtype] = (strength, member.entry.name)
            self._watched += [(index, name, dtype, strength) for dtype, (strength, name) in weakest.items()]
        self._peak: dict[int, float] = {}

    def check(self, groups: list[dict[str, Any]]) -> None:
        """Look at the learning rates of this step; nothing is said while one still rises from a warm-up."""
        still_rising = {index for index in {item[0] for item in self._watched} if self._rises(index, groups[index])}
        for item in list(self._watched):
            index, name, dtype, strength = item
            pull = self._peak[index] * strength
            if index in still_rising or not pull:
                continue
            self._watched.remove(item)
            if lost_to_rounding(pull, dtype):
                warnings.warn(
                    f"{name}: the prior moves a weight by lr·λ = {pull:.2g} of itself per step, less than {dtype} can "
                    f"hold ({torch.finfo(dtype).eps / 2:.2g}), so by itself it never moves one; keep the weights in "
                    f"float32 (mixed precision by autocast does) or raise the learning rate.",
                    RoundingWarning,
                    stacklevel=5,
                )

    def _rises(self, index: int, group: Mapping[str, Any]) -> bool:
        rate = _rate(group)
        before = self._peak.setdefault(index, 0.0)
        if rate is not None:
            self._peak[index] = max(rate, before)
        return rate is None or rate > before


def _rate(group: Mapping[str, Any]) -> float | None:
    rate = group["lr"]
    if isinstance(rate, Tensor) and rate.device.type != "cpu":
        return None
    return float(rate) * steady_gain(group)
