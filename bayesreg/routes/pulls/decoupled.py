"""The decoupled pull θ ← θ − lr·λ·(θ − loc), by name only, and what it amounts to as a prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from bayesreg._support.sharding import local
from bayesreg.conversion import LossScale
from bayesreg.optimizers.step_size import has_metric, steady_step
from bayesreg.routes.planning.plan import GroupPlan, Planned

__all__ = ["Pulls", "implied_precision"]


class Pulls:
    """What one param group's members on the decoupled route do before the step: θ ← θ − lr·λ·(θ − loc).

    Args:
        plan: The group's routes; nothing is left to do where the optimizer's own decay does it.
        loss_scale: s.
    """

    def __init__(self, plan: GroupPlan, loss_scale: LossScale) -> None:
        self._members: list[tuple[Planned, Tensor | None, float | Tensor]] = []
        for member in [] if plan.decay else plan.on("decoupled"):
            parabola = member.prior.quadratic()
            assert parabola is not None
            loc = None if parabola.centre is None else member.prior.centre()
            self._members.append((member, loc, parabola.strength(loss_scale)))

    def __bool__(self) -> bool:
        return bool(self._members)

    def pull_(self, rate: float) -> None:
        """Shrink the weights that have a gradient."""
        for member, loc, strength in self._members:
            if member.parameter.grad is None:
                continue
            value = local(member.parameter.detach())
            if loc is not None and loc.ndim and loc.device != value.device:
                loc = loc.to(value.device)
            if loc is None and isinstance(strength, float):
                value.mul_(1.0 - rate * strength)
            elif (
                isinstance(strength, float) and loc is not None and (loc.shape, loc.dtype) == (value.shape, value.dtype)
            ):
                value.lerp_(loc, rate * strength)
            else:
                away = value if loc is None else value - loc
                value.sub_(away * (rate * (strength.to(value.device) if isinstance(strength, Tensor) else strength)))


def implied_precision(
    cls: type[Optimizer] | None,
    state: Mapping[str, Any],
    group: Mapping[str, Any],
    weight_decay: float,
    loss_scale: LossScale,
) -> float | Tensor | None:
    """Return the precision of the Gaussian that a decoupled decay stands for at this moment.

    At rest the pull lr·λ·θ balances the step t·g along the gradient g, so the weights are the MAP of a Gaussian of
    precision (λ/s)·lr/t: for the Adam family (λ/s)(√v̂ + ε), for SGD (λ/s)(1 − momentum)/(1 − dampening).

    Args:
        cls: The optimizer's class.
        state: Its state of one parameter.
        group: The parameter's group.
        weight_decay: λ.
        loss_scale: s.

    Returns:
        A float, or one value per coordinate of the local shard; None where the optimizer's step is not known or it has
        not stepped yet.
    """
    rate = float(group["lr"])
    if cls is None or not has_metric(cls, group) or rate == 0.0:
        return None
    try:
        step = steady_step(cls, state, group)
    except KeyError:
        return None
    return weight_decay / loss_scale.value * rate / step
