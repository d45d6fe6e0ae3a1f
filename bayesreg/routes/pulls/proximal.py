"""Proximal steps after the optimizer's own, in its metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from bayesreg._support.sharding import local
from bayesreg.optimizers.step_size import effective_step
from bayesreg.priors.contract.prior import proximal_step_
from bayesreg.routes.planning.plan import GroupPlan

__all__ = ["prox_"]

# Proximal steps of adaptive optimizers are at most this many learning rates long.
_LONGEST = 10.0


def prox_(optimizer: Optimizer, plan: GroupPlan, group: Mapping[str, Any], factor: float) -> None:
    """Take the proximal steps of one group.

    Args:
        optimizer: The optimizer, which has just stepped.
        plan: The group's routes.
        group: The param group.
        factor: The loss scale times the factor by which gradients were clipped.
    """
    if _is_zero(group["lr"]):
        return
    for member in plan.on("proximal"):
        if member.parameter.grad is None:
            continue
        step = effective_step(optimizer, member.parameter, group)
        value = local(member.parameter.detach())
        if isinstance(step, Tensor):
            # Where an adaptive optimizer has met no gradient yet its step size is lr/eps, and one proximal step would
            # throw a pretrained weight to zero. The cap leaves the fixed point alone: at a nonzero weight the gradient
            # equals the prior's slope, so the move is one learning rate; at a zero the optimizer's own move is about
            # one at most.
            longest = _LONGEST * group["lr"] / (1.0 - float(group.get("momentum", 0.0)))
            proximal_step_(member.alone, value, step.mul_(factor), longest)
        else:
            proximal_step_(member.alone, value, factor * step)


def _is_zero(rate: float | Tensor) -> bool:
    """Return whether nothing moves; a rate on an accelerator is not read, as that would wait for it."""
    return (not isinstance(rate, Tensor) or rate.device.type == "cpu") and float(rate) == 0.0
