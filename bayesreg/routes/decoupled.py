"""The decoupled pull θ ← θ − lr·λ·(θ − loc), by name only, and what it amounts to as a prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from bayesreg._sharding import local
from bayesreg.priors import Gaussian
from bayesreg.routes.metric import has_metric, steady_step
from bayesreg.routes.plan import GroupPlan
from bayesreg.scale import LossScale

__all__ = ["implied_precision", "pull_"]


def pull_(plan: GroupPlan, group: Mapping[str, Any], loss_scale: LossScale) -> None:
    """Shrink the members on the decoupled route, unless the optimizer's own decay does it."""
    if plan.decay:
        return
    for member in plan.on("decoupled"):
        if member.parameter.grad is None:
            continue
        prior = member.prior
        assert isinstance(prior, Gaussian)
        value = local(member.parameter.detach())
        strength = prior.weight_decay(loss_scale, about_loc=True)
        loc = prior.loc.to(value.device) if prior.loc.ndim else prior.loc
        if isinstance(strength, float) and loc.ndim == 0 and float(loc) == 0.0:
            value.mul_(1.0 - float(group["lr"]) * strength)
        elif isinstance(strength, float) and loc.shape == value.shape and loc.dtype == value.dtype:
            value.lerp_(loc, float(group["lr"]) * strength)
        else:
            if isinstance(strength, Tensor):
                strength = strength.to(value.device)
            value.sub_((value - loc) * (float(group["lr"]) * strength))


def implied_precision(
    cls: type[Optimizer], state: Mapping[str, Any], group: Mapping[str, Any], weight_decay: float, loss_scale: LossScale
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
    if not has_metric(cls, group) or rate == 0.0:
        return None
    try:
        step = steady_step(cls, state, group)
    except KeyError:
        return None
    return weight_decay / loss_scale.value * rate / step
