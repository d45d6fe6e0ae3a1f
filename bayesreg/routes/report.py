"""What an attached prior does, in a table and in numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from bayesreg._support.tables import Table, in_short
from bayesreg.conversion import LossScale
from bayesreg.optimizers.attached import COUPLED
from bayesreg.optimizers.step_size import has_metric
from bayesreg.priors import Belief
from bayesreg.priors.equivalents import equivalent
from bayesreg.routes.attachment import Attachment
from bayesreg.routes.planning.plan import Planned
from bayesreg.routes.pulls.decoupled import implied_precision
from bayesreg.routes.sums import constant_of, penalty_of

__all__ = ["describe_attachments", "describe_routes", "log_attachments"]


def describe_routes(title: str, members: Iterable[tuple[str, Belief, str]], loss_scale: LossScale) -> Table:
    """Build the table of which parameters take which route: from (name, prior, route)."""
    groups: dict[tuple[str, str], tuple[Belief, list[str]]] = {}
    for name, prior, route in members:
        groups.setdefault((route, prior.describe()), (prior, []))[1].append(name)
    rows = [
        (in_short(names), words, route, equivalent(prior, loss_scale))
        for (route, words), (prior, names) in groups.items()
    ]
    return Table(title, ("parameters", "prior", "route", "equivalent weight_decay"), rows, (loss_scale.words,))


def describe_attachments(parts: Sequence[Attachment]) -> Table:
    """Build the table of which parameters take which route."""
    names = " and ".join(type(part.optimizer).__name__ for part in parts)
    members = [(m.entry.name, m.prior, m.route) for part in parts for m in part.members()]
    table = describe_routes(f"Prior on {names}", members, parts[0].loss_scale)
    return Table(table.title, table.columns, table.rows, (*table.notes, *_notes(parts)))


def _notes(parts: Sequence[Attachment]) -> list[str]:
    notes = []
    if any(plan.could_be_native for part in parts for plan in part.plans):
        notes.append(
            "An isotropic Gaussian shares its param group with other priors, so it takes the gradient route: exact, "
            "one pass over the weights. An optimizer built from prior.param_groups() would do it for free."
        )
    coupled = sum(COUPLED in group for part in parts for group in part.optimizer.param_groups)
    if coupled:
        groups = "one param group" if coupled == 1 else f"{coupled} param groups"
        notes.append(
            f"In {groups} the flag decoupled_weight_decay is False while the prior is attached: the step is Adam's, "
            f"whose decay is this prior, at no cost. remove() puts it back."
        )
    if any(part.before_clip for part in parts):
        notes.append(
            "Gradients are added by handle.apply_(), before the clip; native decay, which acts after it, is off."
        )
    for part in parts:
        notes += [_decoupled_note(part, m, group) for m, group in _decoupled(part)[:1]]
    return notes


def _decoupled(part: Attachment) -> list[tuple[Planned, dict[str, Any]]]:
    return [(member, group) for plan, group in part.groups() for member in plan.on("decoupled")]


def _decoupled_note(part: Attachment, member: Planned, group: dict[str, Any]) -> str:
    parabola = member.prior.quadratic()
    strength = None if parabola is None else parabola.strength(part.loss_scale)
    text = "Decoupled, as asked: lr·λ·(θ − loc) beside the step, not the MAP of this prior."
    if isinstance(strength, Tensor) or strength is None:
        return text
    state = part.optimizer.state.get(member.parameter, {})
    found = implied_precision(type(part.optimizer), state, group, strength, part.loss_scale)
    if found is None and not has_metric(type(part.optimizer), group):
        return f"{text} What it amounts to cannot be told for {type(part.optimizer).__name__}."
    if found is None:
        return f"{text} What it amounts to is read from the optimizer's state: describe again after a step."
    low, middle, high = (
        (found, found, found)
        if isinstance(found, float)
        else torch.quantile(_sampled(found), torch.tensor([0.05, 0.5, 0.95])).tolist()
    )
    return (
        f"{text} At this moment it amounts to a prior precision of {middle:.3g} on {member.entry.name} (5% to 95%: "
        f"{low:.3g} to {high:.3g}), against {strength / part.loss_scale.value:.3g} of the prior."
    )


def _sampled(values: Tensor) -> Tensor:
    """Return at most a million of the values, on the CPU: torch.quantile takes no more than 16 million."""
    flat = values.detach().reshape(-1)
    return flat[:: max(1, len(flat) // 1_000_000)].float().cpu()


@torch.no_grad()
def log_attachments(parts: Sequence[Attachment]) -> dict[str, Any]:
    """Return the prior's terms, per group and in total."""
    s = parts[0].loss_scale.value
    groups: list[dict[str, Any]] = []
    for part in parts:
        for plan in part.plans:
            kinds: dict[tuple[str, str], list[Planned]] = {}
            for member in plan.members:
                kinds.setdefault((member.route, member.prior.describe()), []).append(member)
            for (route, words), members in kinds.items():
                penalty, constant = float(penalty_of(members, part.terms)), constant_of(members, part.terms)
                parabola = members[0].prior.quadratic()
                strength = None if parabola is None else parabola.strength(part.loss_scale)
                groups.append({
                    "parameters": [m.entry.name for m in members],
                    "prior": words,
                    "route": route,
                    **_terms(penalty, constant, s),
                    "weight_decay": None if isinstance(strength, Tensor) else strength,
                })
    total = _terms(sum(g["penalty"] for g in groups), sum(g["log_prior_constant"] for g in groups), s)
    return {**total, "loss_scale": s, "groups": groups}


def _terms(penalty: float, constant: float, s: float) -> dict[str, float]:
    return {
        "log_prior": constant - penalty,
        "log_prior_constant": constant,
        "penalty": penalty,
        "penalty_in_loss": s * penalty,
    }
