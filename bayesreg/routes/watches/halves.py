"""A pull that the weights' half precision cannot hold: measured in the first steps, for every family and optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import ASGD, SGD, Optimizer

from bayesreg._support.sharding import local
from bayesreg.conversion import LossScale
from bayesreg.errors import RoundingWarning, UnsupportedError
from bayesreg.optimizers import steady_gain
from bayesreg.priors import Prior
from bayesreg.routes.planning.plan import GroupPlan, Planned

__all__ = ["HalfWatch"]

_LOOKS = 4
_LOST = 0.5


class HalfWatch:
    """Measures, on one parameter of each family and group, how much of the pull is rounded away.

    What counts is Σ|pull| over the elements whose gradient the pull leaves as it is, or, under SGD, whose weight the
    step leaves as it is; it is said where that is most of it.

    Args:
        optimizer: The optimizer.
        plans: Its routes.
        loss_scale: s.
    """

    def __init__(self, optimizer: Optimizer, plans: Iterable[GroupPlan], loss_scale: LossScale) -> None:
        self._s = loss_scale.value
        self._steady = isinstance(optimizer, SGD | ASGD)
        chosen: dict[tuple[int, str], Planned] = {}
        #: Of all in float16, whether the pull fits is looked at once.
        self._narrow: list[Planned] = []
        for index, plan in enumerate(plans):
            for member in plan.on("native", "gradient", "proximal"):
                dtype = member.parameter.dtype
                if not dtype.is_floating_point or torch.finfo(dtype).bits >= 32 or not isinstance(member.prior, Prior):
                    continue
                if not member.parameter.numel() or member.parameter.is_meta or member.parameter.device.type == "mps":
                    continue
                if dtype is torch.float16 and member.route == "gradient":
                    self._narrow.append(member)
                if self._steady and member.parabola is not None and member.parabola.uniform:
                    continue  # one relative pull for all weights, of which RoundingWatch knows
                known = chosen.get((index, member.prior.family))
                if known is None or known.parameter.numel() < member.parameter.numel():
                    chosen[index, member.prior.family] = member
        self._watched = [(index, member) for (index, _), member in chosen.items()]
        self._met: dict[str, list[float]] = {}
        self._rates: dict[int, float] = {}

    def __bool__(self) -> bool:
        return bool(self._watched or self._narrow)

    @torch.no_grad()
    def look(self, groups: list[dict[str, Any]]) -> None:
        """Look right before the prior's gradient is added; nothing is said while a learning rate still rises.

        Raises:
            UnsupportedError: If the pull is larger than the dtype can hold.
        """
        for member in self._narrow:
            self._check_range(member)
        self._narrow = []
        rising = {index for index, group in enumerate(groups) if self._rises(index, group)}
        for item in list(self._watched):
            index, member = item
            if index in rising or member.parameter.grad is None or member.parameter.grad.is_sparse:
                continue
            total, lost = self._measured(groups[index], member)
            met = self._met.setdefault(member.entry.name, [0.0, 0.0, 0.0])
            met[0], met[1], met[2] = met[0] + total, met[1] + lost, met[2] + 1
            if met[2] < _LOOKS:
                continue
            self._watched.remove(item)
            if met[1] > _LOST * met[0]:
                dtype = str(member.parameter.dtype).removeprefix("torch.")
                warnings.warn(
                    f"{member.entry.name}: {met[1] / met[0]:.0%} of the prior's pull ({member.prior.family}) is lost "
                    f"to rounding, as it is smaller than {dtype} can resolve beside the gradients or weights; keep the "
                    f"weights in float32 (mixed precision by autocast does), or br.attach(..., float32_master=True).",
                    RoundingWarning,
                    stacklevel=7,
                )

    def _check_range(self, member: Planned) -> None:
        weights = local(member.parameter.detach())
        pull = torch.zeros_like(weights, dtype=torch.float32)
        member.alone.add_grad_([pull], [weights], self._s)
        largest, most = float(pull.abs().max()), torch.finfo(weights.dtype).max
        if not largest < most:
            raise UnsupportedError(
                f"{member.entry.name}: the prior's gradient is {largest:.3g} at its largest, more than float16 can "
                f"hold ({most:.3g}), which would make NaN of the weights; keep them in float32, widen the prior, or "
                f"br.attach(..., float32_master=True)."
            )

    def _measured(self, group: Mapping[str, Any], member: Planned) -> tuple[float, float]:
        """Return the sum of |pull| over the elements, and that over those where it is lost."""
        weights = local(member.parameter.detach())
        grad = local(member.parameter.grad)  # type: ignore[arg-type]
        pull = torch.zeros_like(weights, dtype=torch.float32)
        member.alone.add_grad_([pull], [weights], self._s)
        dtype = weights.dtype
        lost = torch.zeros_like(pull, dtype=torch.bool)
        if member.route != "proximal":
            lost |= (grad.float() + pull).to(dtype) == grad
        if self._steady:
            rate = float(group["lr"]) * steady_gain(group)
            lost |= (weights.float() - rate * pull).to(dtype) == weights
        size = pull.abs()
        sums: list[float] = torch.stack([
            size.sum(dtype=torch.float64),
            (size * lost).sum(dtype=torch.float64),
        ]).tolist()
        return sums[0], sums[1]

    def _rises(self, index: int, group: Mapping[str, Any]) -> bool:
        rate = group.get("lr", 1.0)
        if isinstance(rate, Tensor) and rate.device.type != "cpu":
            return False
        before, now = self._rates.get(index, 0.0), float(rate)
        self._rates[index] = max(before, now)
        return now > before or not now
