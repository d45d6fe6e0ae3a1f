"""Weights that a proximal step has put exactly on a kink, and something moves off it before the next step."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from bayesreg._support.sharding import local
from bayesreg.errors import ZerosLostWarning
from bayesreg.routes.planning.plan import GroupPlan, Planned

__all__ = ["ZerosWatch"]

_LOOKS, _HITS = 16, 2
# What moves zeros moves them in all parameters: a small one tells as well, and costs less.
_ENOUGH = 256


class ZerosWatch:
    """Watches one parameter on the proximal route, and warns once.

    Args:
        plans: The routes.
    """

    def __init__(self, plans: Iterable[GroupPlan]) -> None:
        members = [m for plan in plans for m in plan.on("proximal") if m.parameter.numel() and not m.parameter.is_meta]
        enough = [member for member in members if member.parameter.numel() >= _ENOUGH]
        largest = max(members, key=lambda m: m.parameter.numel(), default=None)
        self._member: Planned | None = min(enough, key=lambda m: m.parameter.numel(), default=largest)
        self._before: Tensor | None = None
        self._looks, self._hits = 0, 0

    def __bool__(self) -> bool:
        return self._member is not None

    def note(self) -> None:
        """Remember, after the proximal step, which weights are on the kink."""
        if self._member is not None:
            value = local(self._member.parameter.detach())
            # An accelerator would have to be waited for.
            self._before = self._member.alone.at_kink(value) if value.device.type == "cpu" else None

    def check(self) -> None:
        """Look, before the next step, whether they still are."""
        if self._member is None or self._before is None or not bool(self._before.any()):
            return
        now = self._member.alone.at_kink(local(self._member.parameter.detach()))
        self._looks += 1
        if now.shape == self._before.shape and bool(torch.any(self._before & ~now)):
            self._hits += 1
        if self._hits >= _HITS:
            warnings.warn(
                f"zeros-lost: {self._member.entry.name} has weights that the proximal step put exactly on "
                f"{'0' if not bool(self._member.prior.centre().any()) else 'their centre'}, and something moves them "
                f"off it between steps: an optimizer that averages (Lookahead, schedule-free) or the loop. The exact "
                f"zeros of the MAP are lost; attach the prior to an optimizer without averaging, or set them by hand.",
                ZerosLostWarning,
                stacklevel=5,
            )
        if self._hits >= _HITS or self._looks >= _LOOKS:
            self._member = None
