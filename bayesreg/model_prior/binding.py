"""From rules to the prior of each parameter, and what was done with the references on the way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import ParametrizationList

from bayesreg.errors import InvalidArgumentError, ReferenceMismatchError, UnsupportedError
from bayesreg.model_prior.entry import Entry
from bayesreg.priors import Prior
from bayesreg.priors.contract.asking import is_flat, placed
from bayesreg.references import Reference
from bayesreg.references.names import missing_words, rename_hint
from bayesreg.selection import ParameterInfo, canonical_tensors, parameters_of

__all__ = ["bind", "tied_problem", "value_problem"]


def bind(model: nn.Module, entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Resolve named centres, listing everything that does not fit before raising.

    Args:
        model: The model.
        entries: Its parameters with the priors of their rules.

    Returns:
        The entries with priors of their own, and notes on the references for `describe()`.

    Raises:
        InvalidArgumentError: If the model has lazy parameters without a shape, or two that share their memory.
        UnsupportedError: If complex weights have a prior.
        ReferenceMismatchError: If references do not fit; every mismatch is listed.
    """
    _require_initialised(entries)
    _refuse_complex(entries)
    _refuse_shared_memory(entries)
    problems: list[str] = []
    missing: dict[int, dict[str, tuple[int, ...]]] = {}
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
            missing.setdefault(id(reference), {})[entry.name] = tuple(entry.parameter.shape)
        problems += wrong
        names.append((entry, name or entry.name))
    places = set(canonical_tensors(model)) | {name for entry in entries for name in entry.info.keys}
    for key, shapes in missing.items():
        problems += missing_words(shapes, references[key])
    unsound = [problem for reference in references.values() for problem in reference.problems()]
    for reference in references.values():
        held = [*reference, *reference.others]
        extra = [] if reference.ignore_extra else [name for name in held if name not in places]
        problems += [f"extra {name}, which the model does not have" for name in extra]
    if problems or unsound:
        hint = "".join(rename_hint(list(shapes), references[key]) for key, shapes in missing.items())
        cure = (
            " Parameters that are not in it need a rule of their own before this one (in br.transfer new=, with "
            "head_scale=); extra tensors are ignored with extra='ignore', other names are mapped with rename=, other "
            "shapes with resized=."
        )
        raise ReferenceMismatchError(
            f"the reference does not fit the model:{hint} {'; '.join([*problems, *unsound])}.{cure if problems else ''}"
        )
    bound = [
        entry if entry.prior is None else Entry(entry.info, placed(entry.prior, entry.info, name), entry.rule)
        for entry, name in names
    ]
    return bound, [note for reference in references.values() for note in _notes(model, reference, entries, places)]


def _reference(entry: Entry) -> Reference | None:
    return None if entry.prior is None else entry.prior.reference


def _match(entry: Entry, reference: Reference) -> tuple[str | None, list[str]]:
    """Return the name under which a reference holds a parameter, and what is wrong with it there."""
    prior = entry.prior
    assert prior is not None
    held = [name for name in entry.info.keys if name in reference]
    if not held:
        return None, []
    first = reference[held[0]]
    if len(held) > 1 and not isinstance(prior, Prior):
        return held[0], [f"{' and '.join(held)} are one tied parameter: leave all but one out of the mappings"]
    torn = tied_problem(entry.info, reference)
    if torn:
        return held[0], torn
    fits = prior.centre_may_differ or first.shape == entry.parameter.shape
    wrong = value_problem(held[0], first, entry.parameter)
    if not fits and (getattr(prior, "beyond", None) is None or first.ndim != entry.parameter.ndim):
        wrong.append(f"{held[0]} has shape {tuple(first.shape)}, expected {tuple(entry.parameter.shape)}")
    return held[0], wrong


def tied_problem(info: ParameterInfo, reference: Reference) -> list[str]:
    """Return that a reference has different values for one tied parameter, if it has.

    Args:
        info: The parameter.
        reference: The reference.

    Returns:
        A sentence, or nothing.
    """
    held = [name for name in info.keys if name in reference]
    differ = [name for name in held[1:] if not torch.equal(reference[name], reference[held[0]])]
    if not differ:
        return []
    return [
        f"{held[0]} and {' and '.join(differ)} are one tied parameter of the model, with different values in the "
        f"reference: leave one out with rename={{name: None}}"
    ]


def value_problem(name: str, value: Tensor, target: Tensor) -> list[str]:
    """Return what keeps the values of a reference tensor from being those of a parameter or buffer.

    Args:
        name: Its name.
        value: The reference tensor.
        target: The parameter or buffer.

    Returns:
        A sentence, or nothing.
    """
    if value.is_meta or value.layout != torch.strided:
        return []
    if value.is_floating_point() != target.is_floating_point():
        kind = "a floating one" if target.is_floating_point() else "an integer one"
        return [f"{name} has dtype {_plain(value)}, expected {kind} ({_plain(target)})"]
    if target.is_floating_point() and torch.finfo(target.dtype).max < torch.finfo(value.dtype).max:
        finite = torch.isfinite(value)
        if not bool(torch.equal(torch.isfinite(value.to(target.dtype)), finite)):
            return [f"{name} has values too large for {_plain(target)}"]
    return []


def _require_initialised(entries: Sequence[Entry]) -> None:
    lazy = [entry.name for entry in entries if isinstance(entry.parameter, UninitializedParameter)]
    if lazy:
        raise InvalidArgumentError(
            f"model: {', '.join(lazy)} have no shape yet: run one batch through the model before it gets a prior."
        )


def _refuse_complex(entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.prior is not None and entry.parameter.is_complex() and not is_flat(entry.prior):
            raise UnsupportedError(
                f"{entry.name}: expected real weights, got {_plain(entry.parameter)}, on which no density is defined "
                f"here; give it br.Flat(), or hold it as torch.view_as_real(weights), two real numbers each."
            )


def _refuse_shared_memory(entries: Sequence[Entry]) -> None:
    """Refuse weights that are tied through `.data`: two parameters over one memory, whose prior would count twice."""
    seen: dict[tuple[object, ...], str] = {}
    for entry in entries:
        parameter = entry.parameter
        if entry.prior is None or is_flat(entry.prior) or not parameter.requires_grad or parameter.is_meta:
            continue
        if type(parameter) is not nn.Parameter or not parameter.numel():
            continue
        key = (parameter.device, parameter.data_ptr(), parameter.shape, parameter.stride())
        first = seen.setdefault(key, entry.name)
        if first != entry.name:
            raise InvalidArgumentError(
                f"{first} and {entry.name} are two parameters over the same memory (tied through .data), so the prior "
                f"would count twice and each would be stepped apart; tie the parameter itself: module.weight = "
                f"other.weight."
            )


def _plain(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _notes(model: nn.Module, reference: Reference, entries: Sequence[Entry], places: set[str]) -> list[str]:
    """Say what was decided about a reference: what it left out, renamed, rounded."""
    lines = list(reference.notes)
    about = [e for e in entries if _reference(e) is reference]
    own = [e for e in entries if _reference(e) is None and e.prior is not None]
    absent = [e.name for e in own if not any(name in reference for name in e.info.keys)]
    unused = [e for e in own if any(name in reference for name in e.info.keys)]
    flat = [e.name for e in unused if e.prior is not None and is_flat(e.prior)]
    zeroed = [e.name for e in unused if e.name not in flat]
    ignored = [name for name in (*reference, *reference.others) if name not in places]
    if absent:
        lines.append(f"not in it, with a prior of their own: {', '.join(absent)}")
    if zeroed:
        lines.append(f"in it, but with a prior of their own: {', '.join(zeroed)}")
    if flat:
        more = f" and {len(flat) - 3} more" if len(flat) > 3 else ""
        lines.append(f"in it, but flat: {', '.join(flat[:3])}{more}")
    if ignored:
        lines.append(f"ignored, as the model has no place for them: {', '.join(ignored)}")
    lines += _precision(reference, about)
    behind = [e.name for e in about if isinstance(e.info.module, ParametrizationList)]
    if behind:
        lines.append(f"taken for the tensor behind a parametrization, as it is: {', '.join(behind)}")
    if reference.module is not None and _same_weights(reference.module(), model):
        lines.append(
            "it is the model's own weights: a layer that was not pretrained is pulled to its random initialisation "
            "unless a rule before gives it a prior of its own"
        )
    return [f"Reference {reference.source}: {line}." for line in lines]


def _precision(reference: Reference, about: Sequence[Entry]) -> list[str]:
    """Say where a centre is held in fewer digits than the parameter, or a parameter in fewer than the reference."""
    narrow, rounded = set(), set()
    for entry in about:
        held = next((reference[name] for name in entry.info.keys if name in reference), None)
        if held is None or not held.is_floating_point():
            continue
        digits = torch.finfo(entry.parameter.dtype).eps
        if torch.finfo(held.dtype).eps > digits:
            narrow.add(_plain(held))
        elif torch.finfo(held.dtype).eps < digits:
            rounded.add(_plain(entry.parameter))
    lines = []
    if narrow and not any("bfloat16" in note for note in reference.notes):
        lines.append(f"held as {', '.join(sorted(narrow))}, narrower than the parameters: exact to that precision")
    if rounded:
        lines.append(f"rounded to the weights' own {', '.join(sorted(rounded))}, so that they can sit on the centre")
    return lines


def _same_weights(module: nn.Module | None, model: nn.Module) -> bool:
    if module is None:
        return False
    ours = {id(info.parameter) for info in parameters_of(model)}
    return any(id(info.parameter) in ours for info in parameters_of(module))
