"""Which route each parameter takes, and every reason to refuse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn
from torch.optim import Optimizer, SparseAdam

from bayesreg.errors import CoverageError, InvalidArgumentError, UnsupportedError
from bayesreg.model_prior import Entry, ModelPrior
from bayesreg.optimizers import decay_rule, hand_set_decay
from bayesreg.priors import Flat, Gaussian, Prior
from bayesreg.routes.metric import check_metric
from bayesreg.scale import LossScale

__all__ = ["GroupPlan", "Planned", "RouteName", "make_plan"]

RouteName: TypeAlias = Literal["none", "native", "native + centre", "gradient", "proximal"]


@dataclass(frozen=True)
class Planned:
    """One parameter, its prior and its route."""

    entry: Entry
    prior: Prior
    route: RouteName
    # Looked up once: the optimizer's state is keyed by this very object.
    parameter: nn.Parameter


@dataclass(frozen=True)
class GroupPlan:
    """One param group of the optimizer: its own decay, and what is added around the step."""

    #: The group's native weight_decay; 0 where the route is another.
    decay: float
    members: list[Planned] = field(default_factory=list)

    def on(self, *routes: RouteName) -> list[Planned]:
        """Return the members on one of these routes."""
        return [member for member in self.members if member.route in routes]


def make_plan(
    optimizer: Optimizer,
    prior: ModelPrior,
    loss_scale: LossScale,
    *,
    before_clip: bool,
    without_prior: Iterable[Tensor] = (),
) -> list[GroupPlan]:
    """Give every covered parameter its route, or raise with what to do instead."""
    _refuse_optimizer(optimizer)
    _refuse_decay(optimizer)
    # Frozen ones too: they may be unfrozen later.
    covered = {id(entry.parameter): (entry, entry.prior) for entry in prior if entry.prior is not None}
    free = {id(parameter) for parameter in without_prior}
    _check_membership(optimizer, covered, free)
    native = loss_scale if decay_rule(optimizer).kind == "coupled" and not before_clip else None
    return [_plan_group(optimizer, group, covered, native) for group in optimizer.param_groups]


def _plan_group(
    optimizer: Optimizer,
    group: dict[str, Any],
    covered: dict[int, tuple[Entry, Prior]],
    native: LossScale | None,
) -> GroupPlan:
    found = [(parameter, *covered[id(parameter)]) for parameter in group["params"] if id(parameter) in covered]
    # A parameter of the group that the prior leaves alone would be decayed too.
    alone = all(id(p) in covered for p in group["params"])
    decay = _shared_decay([p for _, _, p in found], native) if native is not None and alone else 0.0
    plan = GroupPlan(decay)
    for parameter, entry, prior in found:
        plan.members.append(Planned(entry, prior, _route(optimizer, entry, prior, decay > 0), parameter))
    return plan


def _shared_decay(priors: Sequence[Prior], loss_scale: LossScale) -> float:
    """Return the weight decay of isotropic Gaussians of one fixed std, 0 for anything else."""
    decays = set()
    for prior in priors:
        if not isinstance(prior, Gaussian) or prior.scale.ndim or prior.scale.requires_grad:
            return 0.0
        decays.add(prior.weight_decay(loss_scale, about_loc=True))
    shared = decays.pop() if len(decays) == 1 else 0.0
    assert isinstance(shared, float)
    return shared


def _route(optimizer: Optimizer, entry: Entry, prior: Prior, native: bool) -> RouteName:
    if any(parameter.requires_grad for parameter in prior.parameters()):
        raise UnsupportedError(
            f"{entry.name}: the prior has a learned hyper-parameter, which no optimizer route moves; and maximising "
            f"the joint density over weights and their scale collapses. Fix the scale."
        )
    if isinstance(prior, Flat):
        return "none"
    if native and isinstance(prior, Gaussian):
        return "native + centre" if bool((prior.loc != 0).any()) else "native"
    if prior.traits.smooth:
        return "gradient"
    if prior.traits.has_prox:
        check_metric(optimizer)
        return "proximal"
    raise UnsupportedError(
        f"{entry.name}: {prior.family} has neither a gradient everywhere nor a proximal operator, so no route reaches "
        f"its MAP; use another prior, or move to an unbounded parameter."
    )


def _refuse_optimizer(optimizer: Optimizer) -> None:
    if isinstance(optimizer, SparseAdam):
        raise UnsupportedError("SparseAdam takes sparse gradients, a prior's gradient is dense; use Adam.")


def _refuse_decay(optimizer: Optimizer) -> None:
    name = type(optimizer).__name__
    for index, group in enumerate(optimizer.param_groups):
        if group.get("weight_decay"):
            raise InvalidArgumentError(
                f"{name} param group {index} already has weight_decay={group['weight_decay']:g}, which would count on "
                f"top of the prior; pass weight_decay=0 and let the prior decide (to resume a run, attach first, then "
                f"load the state)."
            )
        if group.get("lambd"):
            raise InvalidArgumentError(
                f"{name} param group {index} has lambd={group['lambd']:g}, a hidden weight decay on top of the prior; "
                f"pass lambd=0."
            )
    if given := hand_set_decay(optimizer):
        raise InvalidArgumentError(
            f"{name} was given weight_decay={given:g} besides a prior; leave it out and let the prior decide."
        )


def _check_membership(optimizer: Optimizer, covered: dict[int, tuple[Entry, Prior]], free: set[int]) -> None:
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    ids = {id(parameter) for parameter in held}
    missing = [e.name for key, (e, _) in covered.items() if key not in ids and e.parameter.requires_grad]
    if missing:
        raise CoverageError(
            f"the optimizer does not hold {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}, which the "
            f"prior covers; build it from prior.param_groups() or model.parameters()."
        )
    strangers = [p for p in held if p.requires_grad and id(p) not in covered and id(p) not in free]
    if strangers:
        raise CoverageError(
            f"the optimizer holds {len(strangers)} trainable parameters that the prior does not cover (the first of "
            f"shape {tuple(strangers[0].shape)}); build the prior from the model that is trained."
        )
