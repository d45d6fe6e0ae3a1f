"""From the rows of a prior file to the parameters of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bayesreg._entry import Entry
from bayesreg.errors import InvalidArgumentError, PriorFileError, UnsupportedError, nearest
from bayesreg.prior_file import FileRow, read_rows
from bayesreg.priors import Belief
from bayesreg.priors.joint import Part
from bayesreg.references import Rename
from bayesreg.references.names import rename_hint, renamed
from bayesreg.selection import ParameterInfo, Selection, any_of, selected

__all__ = ["Differences", "load_entries"]


@dataclass(frozen=True)
class Differences:
    """What is said about where a file and a model differ.

    Attributes:
        new: Rule key of the parameters that the file does not speak of, or has for another task.
        head: Their prior.
        rename: From names in the file to names in the model.
        extra: "raise" or "ignore": parameters that the model does not have.
    """

    new: Selection | None = None
    head: Belief | None = None
    rename: Rename | None = None
    extra: Literal["raise", "ignore"] = "raise"


def load_entries(
    path: str | os.PathLike[str], infos: Sequence[ParameterInfo], differences: Differences
) -> tuple[list[Entry], list[str]]:
    """Read a prior file and match it with a model's parameters, listing every mismatch; with its notes."""
    source = Path(path)
    if differences.head is not None and not isinstance(differences.head, Belief):
        raise InvalidArgumentError(
            f"head: expected a prior such as br.Gaussian(1.0), got {type(differences.head).__name__}."
        )
    if differences.rename is not None and not isinstance(differences.rename, Mapping):
        raise InvalidArgumentError(
            f"rename: expected a mapping from names or globs, got {type(differences.rename).__name__}."
        )
    if isinstance(differences.new, list | tuple) and not differences.new:
        raise InvalidArgumentError("new: expected a rule key or a list of them, got an empty list.")
    if (differences.new is None) != (differences.head is None):
        raise InvalidArgumentError("new, head: expected both or none: which parameters are new, and their prior.")
    if differences.extra not in ("raise", "ignore"):
        raise InvalidArgumentError(f"extra: expected 'raise' or 'ignore', got {differences.extra!r}.")
    rows, notes, _ = read_rows(source)
    fresh = set() if differences.new is None else selected("new", differences.new, infos)
    names = {name: [name] for name in rows}
    if differences.rename is not None:
        targets, said = renamed({name: name for name in rows}, differences.rename, source.name)
        names = {name: [new for new, old in targets.items() if old == name] for name in rows}
        notes += [f"File {source.name}: {line}." for line in said]
    places = {name: info for info in infos for name in info.names}
    if rows and not any(name in places for new in names.values() for name in new) and differences.extra == "raise":
        raise PriorFileError(
            f"{source}: no name in common with the model: the file has {', '.join(list(rows)[:3])}, ... ({len(rows)}), "
            f"the model {', '.join(list(places)[:3])}, ... ({len(places)});"
            f"{rename_hint(list(places), [n for new in names.values() for n in new])} another architecture, or other "
            f"names, which rename= maps."
        )
    here: dict[str, FileRow] = {}
    problems, ignored = [], []
    misshapen: set[str] = set()
    for old, row in rows.items():
        for name in names[old]:
            info = places.get(name)
            if info is not None and info.name in fresh:
                continue
            if info is None and differences.extra == "ignore":
                ignored.append(name)
            elif info is None:
                problems.append(f"the file has {name}, the model does not{nearest(name, places)}")
            elif tuple(info.parameter.shape) != row.shape:
                misshapen.add(info.name)
                problems.append(
                    f"{name} has shape {row.shape} in the file and {tuple(info.parameter.shape)} in the model"
                )
            elif row.prior is None and info.parameter.requires_grad:
                misshapen.add(info.name)
                problems.append(
                    f"{name} has no prior in the file, as it was frozen there, and is trained here: freeze it, or name "
                    f"it by new="
                )
            else:
                here[name] = row
    for info in infos:
        twice = [name for name in info.names if name in here]
        if len(twice) > 1:
            problems.append(
                f"{' and '.join(twice)} are one tied parameter of the model, with a prior each in the file: leave one "
                f"out with rename={{{twice[1]!r}: None}}"
            )
    lacking = {
        info.name: tuple(info.parameter.shape)
        for info in infos
        if info.parameter.requires_grad and info.name not in fresh and not any(name in here for name in info.names)
    }
    problems += [f"the model has {name}, the file does not" for name in lacking if name not in misshapen]
    if problems:
        hint = rename_hint(list(lacking), [name for new in names.values() for name in new]) if lacking else ""
        raise PriorFileError(
            f"{source}: the prior does not fit the model:{hint} {'; '.join(problems)}. Parameters that are new, or of "
            f"another shape, are named by new= with their prior head=; others of the file are ignored with "
            f"extra='ignore', other names mapped with rename=."
        )
    if ignored:
        notes.append(f"File {source.name}: ignored, as the model has no place for them: {', '.join(ignored)}.")
    if differences.new is not None:
        gone = [name for name in rows if any(n in places and places[n].name in fresh for n in names[name])]
        words = f", in place of {', '.join(gone)}" if gone else ""
        notes.append(f"File {source.name}: new, with a prior of their own: {', '.join(sorted(fresh))}{words}.")
    aliases = {alias: name for name, row in rows.items() for alias in (*row.names, name)}
    _restrict(source, here, {alias: names[name] for alias, name in aliases.items()})
    result: list[Entry] = []
    for info in infos:
        known = next((n for n in info.names if n in here), None)
        if info.name in fresh:
            label = "" if differences.new is None else any_of(differences.new).label
            head = differences.head
            result.append(Entry(info, None if head is None else head.bound_to(info.name, info.parameter), label))
        elif known is None:
            result.append(Entry(info, None, ""))
        else:
            result.append(_bound(source, info, known, here[known]))
    return result, notes


def _bound(source: Path, info: ParameterInfo, known: str, row: FileRow) -> Entry:
    prior = row.prior
    if prior is not None:
        if not info.parameter.is_meta:
            prior = prior.to(info.parameter.device)
        joined = [name for name in info.names if isinstance(prior, Part) and name in prior.joins]
        try:
            prior = prior.bound_to(joined[0] if joined else known, info.parameter)
            if isinstance(prior, Part):
                prior.check_place(info)
        except InvalidArgumentError as error:
            raise PriorFileError(f"{source}: damaged prior file ({error})") from error
        except UnsupportedError as error:
            raise PriorFileError(f"{source}: {error}") from error
    return Entry(info, prior, row.rule)


def _restrict(source: Path, here: dict[str, FileRow], names: Mapping[str, list[str]]) -> None:
    """Tell the parts of joint densities which parameters are left, and their names in this model."""
    for name, row in list(here.items()):
        part = row.prior
        if not isinstance(part, Part):
            continue
        missing = [old for old in part.joins if old not in names]
        if missing:
            raise PriorFileError(
                f"{source}: damaged prior file, {name} is joined with {missing[0]}, which is not in it."
            )
        several = [old for old in part.joins if len([new for new in names[old] if new in here]) > 1]
        if several:
            raise PriorFileError(
                f"{source}: {several[0]} becomes {' and '.join(names[several[0]])}: a joint density cannot be about "
                f"one parameter twice."
            )
        left = [new for old in part.joins for new in names[old] if new in here]
        try:
            here[name] = replace(row, prior=part.restricted_to(left))
        except UnsupportedError as error:
            raise PriorFileError(f"{source}: the prior does not fit the model: {error}") from error
