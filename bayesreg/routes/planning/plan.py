"""Which route each parameter takes, and why another one cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import nn
from torch.optim import SGD, Optimizer, SparseAdam

from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError, PatternError, UnsupportedError, nearest
from bayesreg.model_prior.entry import Entry
from bayesreg.optimizers import decay_rules
from bayesreg.optimizers.decay import DECOUPLED
from bayesreg.optimizers.step_size import check_metric
from bayesreg.priors import Belief, Prior, Quadratic
from bayesreg.priors.contract.asking import is_flat, learns, local_part, require_map
from bayesreg.routes.planning.by_name import RouteChoice, refuse_differentiable, refuse_route
from bayesreg.routes.planning.refusals import refuse_decay
from bayesreg.selection import SelectorLike, as_selector

__all__ = ["GroupPlan", "Planned", "RouteLike", "RouteName", "Routing", "make_plan"]

RouteName: TypeAlias = Literal["none", "native", "native + centre", "gradient", "proximal", "loss", "decoupled"]
RouteLike: TypeAlias = RouteChoice | Mapping[SelectorLike, RouteChoice]

_WIDE = (torch.float32, torch.float64)

Covered: TypeAlias = Mapping[int, tuple[Entry, Belief]]


@dataclass(frozen=True)
class Planned:
    """One parameter, its prior and its route."""

    entry: Entry
    #: The prior of the local shard, which is the whole prior where nothing is sharded.
    prior: Belief
    route: RouteName
    #: Looked up once: the optimizer's state is keyed by this very object.
    parameter: nn.Parameter
    #: The parabola that the prior of the whole parameter is, None where it is none.
    parabola: Quadratic | None = None

    @property
    def whole(self) -> Belief:
        """The prior of the whole parameter."""
        return self.entry.prior or self.prior

    @property
    def toward_zero(self) -> bool:
        """Whether it pulls, and toward 0."""
        centred = self.prior.reference is not None or bool(self.prior.centre().any())
        return not centred and not is_flat(self.prior)

    @property
    def alone(self) -> Prior:
        """The prior, where it is one of this parameter alone."""
        assert isinstance(self.prior, Prior)
        return self.prior


@dataclass(frozen=True)
class GroupPlan:
    """One param group of the optimizer: its own decay, and what is added around the step."""

    #: The group's own weight_decay; 0 where the route is another.
    decay: float
    #: What the group's `decoupled_weight_decay` must be for that; None where it has no such flag, or no decay.
    flag: bool | None = None
    members: list[Planned] = field(default_factory=list)
    #: An isotropic Gaussian of this group would be free if the group held nothing else.
    could_be_native: bool = False

    def on(self, *routes: RouteName) -> list[Planned]:
        """Return the members on one of these routes."""
        return [member for member in self.members if member.route in routes]


class Routing:
    """The routes that a caller asks for by name; the first matching rule decides, "auto" where none does.

    Args:
        route: One name for all, or a mapping from rules (as in `ModelPrior`) to names.
        entries: The parameters of the prior.

    Raises:
        InvalidArgumentError: If a name is not one of the routes.
        PatternError: If a glob matches no parameter.
    """

    def __init__(self, route: RouteLike, entries: Sequence[Entry]) -> None:
        rules = route if isinstance(route, Mapping) else {"*": route}
        for name in rules.values():
            if name not in get_args(RouteChoice):
                known = ", ".join(get_args(RouteChoice))
                raise InvalidArgumentError(
                    f"route: expected one of {known}, got {name!r}{nearest(str(name), get_args(RouteChoice))}."
                )
        self._rules = [(as_selector(key), name) for key, name in rules.items()]
        for key, (selector, _) in zip(rules, self._rules, strict=True):
            if isinstance(key, str) and not any(selector(entry.info) for entry in entries):
                names = [name for entry in entries for name in entry.info.names]
                raise PatternError(f"route {key!r}: expected a glob that matches a parameter{nearest(key, names)}")

    def __call__(self, entry: Entry) -> RouteChoice:
        """Return the route asked for."""
        return next((name for selector, name in self._rules if selector(entry.info)), "auto")


def make_plan(
    optimizer: Optimizer, covered: Covered, loss_scale: LossScale, routing: Routing, *, before_clip: bool
) -> list[GroupPlan]:
    """Give every covered parameter of one optimizer its route, or raise with what to do instead."""
    rules = decay_rules(optimizer)
    refuse_decay(optimizer, rules)
    # A probed optimizer is known on a toy only: it may treat biases, or another group, in another way.
    kinds = ["unknown" if any(rule.probed for rule in rules) else rule.kind for rule in rules]
    # Many parameters have one prior.
    parabolas: dict[int, Quadratic | None] = {}
    plans = []
    for group, kind in zip(optimizer.param_groups, kinds, strict=True):
        found = []
        for parameter in group["params"]:
            if id(parameter) in covered:
                entry, prior = covered[id(parameter)]
                if id(prior) not in parabolas:
                    parabolas[id(prior)] = prior.quadratic()
                found.append(_Found(parameter, entry, prior, parabolas[id(prior)], routing(entry)))
        plans.append(_plan_group(optimizer, group, found, kind, loss_scale, before_clip))
    return plans


@dataclass(frozen=True)
class _Found:
    """One parameter, its prior, the parabola that this is, and the route that was asked for."""

    parameter: nn.Parameter
    entry: Entry
    prior: Belief
    parabola: Quadratic | None
    asked: RouteChoice

    @property
    def about_zero(self) -> bool:
        """Whether it pulls toward 0, if it is a parabola."""
        return self.parabola is None or self.parabola.centre is None

    def strength(self, loss_scale: LossScale) -> float:
        """Return the weight decay of a parabola of one fixed strength, 0 for anything else."""
        parabola = self.parabola
        strength = parabola.strength(loss_scale) if parabola is not None and parabola.uniform else 0.0
        assert isinstance(strength, float)
        return strength


def _plan_group(
    optimizer: Optimizer,
    group: Mapping[str, Any],
    found: Sequence[_Found],
    kind: str,
    loss_scale: LossScale,
    before_clip: bool,
) -> GroupPlan:
    # A parameter of the group that the prior leaves alone would be decayed too.
    alone = len(found) == len(group["params"])
    names = {one.asked for one in found}
    beside = kind == "decoupled" and names == {"decoupled"}
    # AdamW is Adam but for a flag.
    flagged = DECOUPLED in group and kind in ("coupled", "decoupled")
    kind = "coupled" if flagged and not beside else kind
    native = kind == "coupled" and not before_clip and names <= {"auto", "native"}
    own = native or beside
    # λθ and λ·loc, added apart, leave a rounding error on the centre. In half precision little else is left; and an
    # optimizer with a metric makes a whole step of it. A plain SGD moves by one unit in the last place at most.
    apart = type(optimizer) is SGD and all(one.parameter.dtype in _WIDE for one in found)
    centred = native and apart
    decay = _shared_decay(found, loss_scale, centred=centred) if own and alone else 0.0
    could = native and not decay and any((centred or one.about_zero) and one.strength(loss_scale) for one in found)
    plan = GroupPlan(decay, beside if flagged and decay else None, could_be_native=could)
    for one in found:
        route = _route(optimizer, one, decay, kind, before_clip)
        shard = local_part(one.prior, one.parameter)
        plan.members.append(Planned(one.entry, shard, route, one.parameter, one.parabola))
    return plan


def _shared_decay(found: Sequence[_Found], loss_scale: LossScale, *, centred: bool) -> float:
    """Return the weight decay that all priors of a group are, 0 where they are not all one."""
    if not centred and not all(one.about_zero for one in found):
        return 0.0
    decays = {one.strength(loss_scale) for one in found}
    return decays.pop() if len(decays) == 1 else 0.0


def _route(optimizer: Optimizer, one: _Found, decay: float, kind: str, before_clip: bool) -> RouteName:
    entry, prior, asked = one.entry, one.prior, one.asked
    if learns(prior):
        raise UnsupportedError(
            f"{entry.name}: the prior has a learned hyper-parameter, which no optimizer route moves; and maximising "
            f"the joint density over weights and their scale collapses. Fix it, or integrate it out: "
            f"br.HierarchicalGaussian(br.hyperpriors.InverseGamma(concentration, rate))."
        )
    if one.parabola is not None and one.parabola.flat:
        return "none"
    if entry.parameter.is_complex():
        raise UnsupportedError(f"{entry.name}: complex weights have no prior here; give them br.Flat().")
    _refuse_sparse(optimizer, entry)
    if asked != "auto":
        require_map(prior, entry.name)
        refuse_route(asked, optimizer, entry, prior, kind, before_clip, native=decay > 0)
        if asked != "native":
            return asked
    if decay:
        # The group's own decay is that of all its priors.
        return "native" if one.about_zero else "native + centre"
    require_map(prior, entry.name)
    if prior.traits.smooth:
        refuse_differentiable(optimizer)
        return "gradient"
    if prior.traits.has_prox:
        check_metric(optimizer)
        return "proximal"
    raise UnsupportedError(
        f"{entry.name}: {prior.family} has neither a gradient everywhere nor a proximal operator, so no route reaches "
        f"its MAP; use another prior (for a family of your own: give it offset_prox and declare has_prox=True)."
    )


def _refuse_sparse(optimizer: Optimizer, entry: Entry) -> None:
    owner: Any = entry.info.module
    if isinstance(optimizer, SparseAdam):
        raise UnsupportedError(
            f"SparseAdam takes sparse gradients, the gradient of a prior on {entry.name} is dense; use Adam with "
            f"sparse=False, or br.Flat() there."
        )
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag) and owner.sparse:
        raise UnsupportedError(
            f"{entry.name}: its embedding makes sparse gradients, a prior's is dense; build it with sparse=False, or "
            f"give it br.Flat()."
        )
