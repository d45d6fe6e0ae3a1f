"""Routes asked for by name: why one of them is not exact here."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch.optim import LBFGS, Optimizer

from bayesreg.errors import UnsupportedError
from bayesreg.model_prior.entry import Entry
from bayesreg.optimizers.step_size import check_metric
from bayesreg.priors import Belief

__all__ = ["RouteChoice", "refuse_differentiable", "refuse_route"]

RouteChoice: TypeAlias = Literal["auto", "native", "gradient", "proximal", "loss", "decoupled"]


def refuse_route(
    asked: RouteChoice, optimizer: Optimizer, entry: Entry, prior: Belief, kind: str, before_clip: bool, *, native: bool
) -> None:
    """Raise if the route that was asked for does not do what its name says.

    Args:
        asked: The route.
        optimizer: The optimizer.
        entry: The parameter.
        prior: Its prior.
        kind: What the optimizer does with decay.
        before_clip: Whether the loop clips gradients.
        native: Whether the optimizer's own decay can do it.

    Raises:
        UnsupportedError: With the reason.
    """
    why = None
    if asked == "native" and not native:
        why = _not_native(optimizer, prior, kind, before_clip)
    elif asked == "gradient":
        refuse_differentiable(optimizer)
        if not prior.traits.smooth:
            why = f"{prior.family} has a kink or a boundary, where a subgradient never comes to rest"
    elif asked == "proximal":
        if prior.traits.has_prox:
            check_metric(optimizer)
        else:
            why = f"{prior.family} has no proximal operator"
    elif asked == "loss" and not prior.traits.smooth:
        why = f"{prior.family} has a kink or a boundary, which autograd steps over"
    elif asked == "decoupled":
        if prior.quadratic() is None:
            why = f"it is θ ← θ − lr·λ·(θ − loc), for Gaussians only, and this is {prior.family}"
        elif any("lr" not in group for group in optimizer.param_groups):
            why = f"the groups of {type(optimizer).__name__} have no 'lr' that it could be multiplied by"
        elif isinstance(optimizer, LBFGS):
            why = "LBFGS searches along lines, and a pull beside the search would undo what it finds"
    if why is not None:
        raise UnsupportedError(
            f"{entry.name}: route {asked!r} was asked for, but {why}; leave it out and bayesreg chooses an exact one."
        )


def _not_native(optimizer: Optimizer, prior: Belief, kind: str, before_clip: bool) -> str:
    parabola = prior.quadratic()
    if parabola is None or not parabola.uniform:
        return f"{prior.describe()} is no isotropic Gaussian"
    if before_clip:
        return "with before_clip=True decay would act after the clip"
    if kind == "unknown":
        return f"what {type(optimizer).__name__} does with weight_decay is known from a trial on a toy only"
    if kind != "coupled":
        return f"{type(optimizer).__name__}'s weight_decay is not the gradient of a Gaussian"
    return "its param group holds other priors too (build the groups by prior.param_groups())"


def refuse_differentiable(optimizer: Optimizer) -> None:
    """Raise for an optimizer whose steps are differentiated: a gradient changed in place is lost to that graph.

    Args:
        optimizer: The optimizer.

    Raises:
        UnsupportedError: If it is one.
    """
    if any(group.get("differentiable") for group in optimizer.param_groups):
        raise UnsupportedError(
            f"{type(optimizer).__name__}(differentiable=True): a gradient changed in place is lost to the graph of the "
            f"step; use br.attach(..., route='loss') and add handle.penalty() to the loss."
        )
