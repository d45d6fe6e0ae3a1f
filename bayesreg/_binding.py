"""From rules to the prior of each parameter, and what was done with the references on the way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bayesreg._entry import Entry
from bayesreg.errors import ReferenceMismatchError, nearest
from bayesreg.priors.located import LocatedPrior
from bayesreg.references import Reference
from bayesreg.references.names import rename_hint
from bayesreg.selection import canonical_tensors, parameters_of

__all__ = ["bind"]


def bind(model: nn.Module, entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Resolve named centres, listing everything that does not fit before raising.

    Args:
        model: The model.
        entries: Its parameters with the priors of their rules.

    Returns:
        The entries with priors of their own, and notes on the references for `describe()`.

    Raises:
        ReferenceMismatchError: If references do not fit; every mismatch is listed.
    """
    problems: list[str] = []
    missing: dict[int, list[str]] = {}
    references: dict[int, Reference] = {}
    names: list[tuple[Entry, str]] = []
    for entry in entries:
        reference = _reference(entry)
        if reference is None:
            names.append((entry, entry.name))
            continue
        references[id(reference)] = reference
        name, wrong = _match(entry, reference)
        if name is None:
            missing.setdefault(id(reference), []).append(entry.name)
        problems += wrong
        names.append((entry, name or entry.name))
    places = set(canonical_tensors(model)) | {name for entry in entries for name in entry.info.names}
    for reference in references.values():
        extra = [] if reference.ignore_extra else [name for name in reference if name not in places]
        problems += [f"extra {name}, which the model does not have" for name in extra]
    if problems:
        hint = "".join(rename_hint(found, list(references[key])) for key, found in missing.items())
        raise ReferenceMismatchError(
            f"the reference does not fit the model: {'; '.join(problems)}. Give the parameters that are not in it a "
            f"rule of their own before this one (new= in br.transfer); extra tensors are ignored with extra='ignore', "
            f"other names are mapped with rename=, other shapes with resized=.{hint}"
        )
    bound = [
        entry if entry.prior is None else Entry(entry.info, entry.prior.bound_to(name, entry.parameter), entry.rule)
        for entry, name in names
    ]
    return bound, [note for reference in references.values() for note in _notes(model, reference, entries, places)]


def _reference(entry: Entry) -> Reference | None:
    return entry.prior.reference if isinstance(entry.prior, LocatedPrior) else None


def _match(entry: Entry, reference: Reference) -> tuple[str | None, list[str]]:
    """Return the name under which a reference holds a parameter, and what is wrong with it there."""
    prior = entry.prior
    assert isinstance(prior, LocatedPrior)
    held = [name for name in entry.info.names if name in reference]
    if not held:
        return None, [f"missing {entry.name}{nearest(entry.name, reference)}"]
    first = reference[held[0]]
    if len(held) > 1 and prior.joins_parameters:
        return held[0], [f"{' and '.join(held)} are one tied parameter: leave all but one out of the mappings"]
    differ = [name for name in held[1:] if not torch.equal(reference[name], first)]
    if differ:
        return held[0], [
            f"{held[0]} and {' and '.join(differ)} are one tied parameter of the model, with different values in the "
            f"reference: leave one out with rename={{name: None}}"
        ]
    shape = tuple(entry.parameter.shape)
    problems = []
    if not first.is_floating_point() and entry.parameter.is_floating_point():
        problems.append(f"{held[0]} has dtype {_plain(first)}, expected a floating one ({_plain(entry.parameter)})")
    if tuple(first.shape) != shape and (prior.beyond is None or first.ndim != len(shape)):
        problems.append(f"{held[0]} has shape {tuple(first.shape)}, expected {shape}")
    return held[0], problems


def _plain(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _notes(model: nn.Module, reference: Reference, entries: Sequence[Entry], places: set[str]) -> list[str]:
    """Say what was decided about a reference: what it left out, renamed, rounded."""
    lines = list(reference.notes)
    own = [e for e in entries if _reference(e) is None and e.prior is not None]
    absent = [e.name for e in own if not any(name in reference for name in e.info.names)]
    unused = [e.name for e in own if any(name in reference for name in e.info.names)]
    ignored = [name for name in reference if name not in places]
    narrow = sorted({
        _plain(reference[name])
        for entry in entries
        if _reference(entry) is reference
        for name in entry.info.names
        if name in reference and reference[name].element_size() < entry.parameter.element_size()
    })
    if absent:
        lines.append(f"not in it, with a prior of their own: {', '.join(absent)}")
    if unused:
        # They may be all biases of a large model, and the table has them in a row of their own.
        more = f" and {len(unused) - 6} more" if len(unused) > 6 else ""
        lines.append(f"in it, but with a prior of their own: {', '.join(unused[:6])}{more}")
    if ignored:
        lines.append(f"ignored, as the model has no place for them: {', '.join(ignored)}")
    if narrow and not any("bfloat16" in note for note in reference.notes):
        lines.append(f"held as {', '.join(narrow)}, narrower than the parameters: exact to that precision")
    if reference.module is not None and _same_weights(reference.module(), model):
        lines.append(
            "it is the model's own weights: a layer that was not pretrained is pulled to its random initialisation "
            "unless a rule before gives it a prior of its own"
        )
    return [f"Reference {reference.source}: {line}." for line in lines]


def _same_weights(module: nn.Module | None, model: nn.Module) -> bool:
    if module is None:
        return False
    ours = {id(info.parameter) for info in parameters_of(model)}
    return any(id(info.parameter) in ours for info in parameters_of(module))
