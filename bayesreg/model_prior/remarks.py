"""What `describe()` says under its table: ties, missing minima, directions, widths that do not fit the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import nn
from torch.nn.utils.parametrizations import _WeightNorm

from bayesreg._support.sharding import is_sharded
from bayesreg._support.tables import in_short
from bayesreg.model_prior.entry import Entry, active
from bayesreg.priors import Belief
from bayesreg.priors.contract.asking import is_flat
from bayesreg.selection import biases, norms

__all__ = ["remarks_on"]

Counted: TypeAlias = list[tuple[Entry, Belief]]


def remarks_on(entries: Sequence[Entry]) -> list[str]:
    """Return what a user should know of these priors on these parameters, a sentence each."""
    counted, notes = active(entries), []
    tied = [" = ".join(e.info.keys) for e in entries if len(e.info.keys) > 1]
    if tied:
        notes.append(f"Tied, counted once: {in_short(tied)}.")
    # About another centre the pull does not vanish as the weights shrink: there is a minimum.
    shrinking = [e for e, prior in _penalised(counted) if prior.reference is None and not prior.centre().any()]
    free_norms = [e for e, prior in counted if is_flat(prior) and norms(e.info) and not biases(e.info)]
    if free_norms and shrinking:
        notes.append(
            f"No MAP may exist: normalisation scales ({in_short([e.name for e in free_norms])}) are flat, so they can "
            f"grow while a penalised weight after them shrinks, and the objective falls for ever; prediction rarely "
            f"minds. If you need a minimum, add the rule br.norms & ~br.biases: br.Gaussian(1.0, loc=1.0)."
        )
    several = [e.name for e, prior in counted if not prior.traits.convex]
    if several:
        notes.append(f"Not convex: {in_short(several)}. The objective may have several local modes; a fit finds one.")
    directions = [e.name for e, _ in _penalised(counted) if _is_direction(e)]
    if directions:
        notes.append(
            f"Scale-free: {in_short(directions)} enters the model only through its direction (weight_norm), so its "
            f"prior pulls on a length that changes nothing; give it br.Flat() and keep the prior on original0, the "
            f"length."
        )
    notes += _unused_elements(counted)
    notes += _width_notes(counted)
    for entry, prior in counted:
        said = prior.remarks(entry.parameter.shape).caution
        if said is not None:
            notes.append(f"{entry.name}: {said}.")
    return notes


def _unused_elements(counted: Counted) -> list[str]:
    """Say where elements of a parameter play no part in the model, and are under its prior all the same."""
    notes = []
    for entry, prior in _penalised(counted):
        owner, pruned = entry.info.module, entry.info.attribute.removesuffix("_orig")
        mask = owner._buffers.get(f"{pruned}_mask") if pruned != entry.info.attribute else None
        padding = getattr(owner, "padding_idx", None) if isinstance(owner, nn.Embedding | nn.EmbeddingBag) else None
        free = prior.centre().ndim or not prior.traits.proper
        if mask is not None and not mask.is_meta:
            left = int(mask.count_nonzero())
            notes.append(
                f"Pruned: a mask leaves {left:,} of {mask.numel():,} elements of {entry.name} in the model; the others "
                f"are pulled and counted too. Afterwards: torch.nn.utils.prune.remove; to leave them out: a tensor "
                f"scale that is inf where the mask is 0."
            )
        elif padding is not None and not free:
            notes.append(
                f"Row {padding} of {entry.name} is padding: data never move it, and the prior pulls and counts it like "
                f"the others; to leave it out: a tensor scale that is inf in that row."
            )
    return notes


def _width_notes(counted: Counted) -> list[str]:
    """Say where the prior is far narrower or wider than the weights that are there, the worst first."""
    found = []
    for entry, prior in _penalised(counted):
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


def _penalised(counted: Counted) -> Counted:
    return [(entry, prior) for entry, prior in counted if not is_flat(prior)]


def _is_direction(entry: Entry) -> bool:
    return entry.info.attribute == "original1" and any(isinstance(m, _WeightNorm) for m in entry.info.module.children())
