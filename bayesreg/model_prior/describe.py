"""The table behind `ModelPrior.describe`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.parametrizations import _WeightNorm

from bayesreg._support.sharding import is_sharded
from bayesreg._support.tables import Table
from bayesreg.conversion import LossScale
from bayesreg.errors import NotEquivalentError
from bayesreg.model_prior.entry import Entry
from bayesreg.optimizers import OptimizerLike
from bayesreg.priors import Belief
from bayesreg.priors.contract.asking import is_flat
from bayesreg.selection import biases, norms

if TYPE_CHECKING:
    from bayesreg.model_prior.model_prior import ModelPrior

__all__ = ["describe_model_prior", "describe_routes", "equivalent"]


def equivalent(
    prior: Belief, loss_scale: LossScale, optimizer: OptimizerLike | None = None, shape: Sequence[int] | None = None
) -> str:
    """Return the regularisation constant that a prior stands for, in words; "none" with what comes near."""
    parabola = prior.quadratic()
    if parabola is None:
        return prior.remarks(shape, loss_scale).near or "none"
    try:
        strength = prior.weight_decay(loss_scale, optimizer, about_loc=True)
    except NotEquivalentError:
        # The prior has one: it is the optimizer that does not take it.
        return "none"
    toward = "" if parabola.centre is None else " toward its centre"
    return f"one per element{toward}" if isinstance(strength, Tensor) else f"{strength:.4g}{toward}"


def describe_routes(title: str, members: Iterable[tuple[str, Belief, str]], loss_scale: LossScale) -> Table:
    """Build the table of which parameters take which route: from (name, prior, route)."""
    groups: dict[tuple[str, str], tuple[Belief, list[str]]] = {}
    for name, prior, route in members:
        groups.setdefault((route, prior.describe()), (prior, []))[1].append(name)
    rows = [
        (_names(names), words, route, equivalent(prior, loss_scale))
        for (route, words), (prior, names) in groups.items()
    ]
    return Table(title, ("parameters", "prior", "route", "equivalent weight_decay"), rows, (loss_scale.words,))


def describe_model_prior(
    model_prior: ModelPrior, loss_scale: LossScale | None, optimizer: OptimizerLike | None, per_parameter: bool
) -> Table:
    """Build the table."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in model_prior:
        words = "none" if entry.prior is None else entry.prior.describe()
        state = "" if entry.parameter.requires_grad else "frozen"
        key = (entry.name, "") if per_parameter else (entry.rule, words + state)
        groups.setdefault(key, []).append(entry)
    columns: tuple[str, ...] = ("parameters", "elements", "prior", "std", "rule")
    if loss_scale is not None:
        columns = (*columns, "equivalent weight_decay")
    rows = []
    for entries in groups.values():
        first, prior = entries[0], entries[0].prior
        frozen = not first.parameter.requires_grad
        elements = sum(e.parameter.numel() for e in entries)
        spread = _std(entries)
        # One number for several parameters only where their variances agree.
        shape = None if isinstance(spread, str) else first.parameter.shape
        words = ("frozen, not counted" + (f" ({prior.describe()})" if prior else "")) if frozen else ""
        row: tuple[object, ...] = (
            _names([e.name for e in entries]),
            elements,
            words or (prior.describe() if prior else "none"),
            spread,
            first.rule,
        )
        if loss_scale is not None:
            row = (*row, "" if frozen or prior is None else equivalent(prior, loss_scale, optimizer, shape))
        rows.append(row)
    still = sum(e.parameter.numel() for e in model_prior if not e.parameter.requires_grad)
    title = f"Prior over {sum(e.parameter.numel() for e in model_prior):,} elements in {len(model_prior)} tensors"
    title += f", {still:,} of them frozen" if still else ""
    return Table(title, columns, rows, tuple(_notes(model_prior, loss_scale)))


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    if len(shown) > 80 and len(names) > 1:
        shown = _factored(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _factored(names: list[str]) -> str:
    """Return names with what they begin and end with in common written once: `encoder.{0.query, 1.key}.weight`."""
    parts = [name.split(".") for name in names]
    shortest = min(map(len, parts)) - 1
    begin = next((i for i in range(shortest) if len({p[i] for p in parts}) > 1), shortest)
    end = next((i for i in range(shortest - begin) if len({p[-1 - i] for p in parts}) > 1), shortest - begin)
    inner = ", ".join(".".join(p[begin : len(p) - end]) for p in parts)
    head, tail = ".".join(parts[0][:begin]), ".".join(parts[0][len(parts[0]) - end :])
    return f"{head}{'.' if head else ''}{{{inner}}}{'.' if tail else ''}{tail}" if begin or end else ", ".join(names)


def _std(entries: Sequence[Entry]) -> float | str | None:
    """Return the standard deviation under the priors of all these parameters, or its range."""
    bounds: list[float] = []
    for entry in entries:
        found = entry.prior.variance(entry.parameter.shape) if entry.prior is not None else None
        if found is not None:
            wide = torch.as_tensor(found, dtype=torch.float64)
            bounds += [math.sqrt(float(wide.min())), math.sqrt(float(wide.max()))]
    if not bounds:
        return None
    low, high = min(bounds), max(bounds)
    return high if math.isclose(low, high, rel_tol=1e-6) else f"{low:.3g} to {high:.3g}"


def _notes(model_prior: ModelPrior, loss_scale: LossScale | None) -> list[str]:
    notes = []
    if loss_scale is not None:
        notes.append(loss_scale.words)
    if model_prior.shorthand:
        notes.append("One prior was given for the whole model: it is on the weights; biases and norms are flat.")
    notes += model_prior.notes
    tied = [" = ".join(e.info.keys) for e in model_prior if len(e.info.keys) > 1]
    if tied:
        notes.append(f"Tied, counted once: {_names(tied)}.")
    # About another centre the pull does not vanish as the weights shrink: there is a minimum.
    shrinking = [e for e, prior in _penalised(model_prior) if prior.reference is None and not prior.centre().any()]
    free_norms = [e for e, prior in model_prior.active() if is_flat(prior) and norms(e.info) and not biases(e.info)]
    if free_norms and shrinking:
        notes.append(
            f"No MAP may exist: normalisation scales ({_names([e.name for e in free_norms])}) are flat, so they can "
            f"grow while a penalised weight after them shrinks, and the objective falls for ever; prediction rarely "
            f"minds. If you need a minimum, add the rule br.norms & ~br.biases: br.Gaussian(1.0, loc=1.0)."
        )
    several = [e.name for e, prior in model_prior.active() if not prior.traits.convex]
    if several:
        notes.append(f"Not convex: {_names(several)}. The objective may have several local modes; a fit finds one.")
    directions = [e.name for e, _ in _penalised(model_prior) if _is_direction(e)]
    if directions:
        notes.append(
            f"Scale-free: {_names(directions)} enters the model only through its direction (weight_norm), so its prior "
            f"pulls on a length that changes nothing; give it br.Flat() and keep the prior on original0, the length."
        )
    notes += _width_notes(model_prior)
    for entry, prior in model_prior.active():
        said = prior.remarks(entry.parameter.shape).caution
        if said is not None:
            notes.append(f"{entry.name}: {said}.")
    return notes


def _width_notes(model_prior: ModelPrior) -> list[str]:
    """Say where the prior is far narrower or wider than the weights that are there, the worst first."""
    found = []
    for entry, prior in _penalised(model_prior):
        parameter = entry.parameter.detach()
        wide = prior.variance(parameter.shape) if prior.traits.proper else None
        if wide is None or parameter.is_meta or is_sharded(parameter):
            continue
        spread = torch.as_tensor(wide, dtype=torch.float64, device=parameter.device).sqrt()
        rms = float(((parameter.double() - prior.centre().to(spread)) / spread).square().mean().sqrt())
        about = "the weights' rms about their centre"
        if rms > 3.0:
            found.append((rms, f"{entry.name}: {about} is {rms:.1f} prior stds: prior and weights disagree."))
        elif 0.0 < rms < 1 / 30:
            found.append((1 / rms, f"{entry.name}: the prior's std is {1 / rms:.0f} times {about}: it hardly acts."))
    shown = [text for _, text in sorted(found, reverse=True)]
    return shown if len(shown) <= 3 else [*shown[:3], f"The same of {len(shown) - 3} more."]


def _penalised(model_prior: ModelPrior) -> list[tuple[Entry, Belief]]:
    return [(entry, prior) for entry, prior in model_prior.active() if not is_flat(prior)]


def _is_direction(entry: Entry) -> bool:
    return entry.info.attribute == "original1" and any(isinstance(m, _WeightNorm) for m in entry.info.module.children())
