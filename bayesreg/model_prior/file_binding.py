"""From the rows of a prior file to the parameters of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from bayesreg.errors import InvalidArgumentError, PriorFileError, UnsupportedError, nearest
from bayesreg.model_prior.entry import Entry
from bayesreg.model_prior.file import FileRow, read_prior_file
from bayesreg.priors import Belief
from bayesreg.priors.contract.asking import placed
from bayesreg.priors.contract.joint import Part
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
    """Read a prior file and match it with a model's parameters, listing every mismatch; with its notes.

    Args:
        path: The file.
        infos: The model's parameters.
        differences: What is said about where the two differ.

    Returns:
        The entries, and notes for `describe()`.

    Raises:
        InvalidArgumentError: If `differences` are of other types.
        PriorFileError: If the file cannot be read or does not fit the model.
    """
    source = Path(path)
    _check_differences(differences)
    held = read_prior_file(source)
    rows, notes = held.rows, held.notes
    fresh = set() if differences.new is None else selected("new", differences.new, infos)
    names = {name: [name] for name in rows}
    if differences.rename is not None:
        targets, said = renamed({name: name for name in rows}, differences.rename, source.name)
        names = {name: [new for new, old in targets.items() if old == name] for name in rows}
        notes += [f"File {source.name}: {line}." for line in said]
    sorted_out = _sort_out(rows, names, infos, fresh, differences.extra)
    _refuse(source, rows, names, infos, fresh, sorted_out, differences.extra)
    if sorted_out.ignored:
        notes.append(
            f"File {source.name}: ignored, as the model has no place for them: {', '.join(sorted_out.ignored)}."
        )
    if differences.new is not None:
        places = sorted_out.places
        gone = [name for name in rows if any(n in places and places[n].name in fresh for n in names[name])]
        words = f", in place of {', '.join(gone)}" if gone else ""
        notes.append(f"File {source.name}: new, with a prior of their own: {', '.join(sorted(fresh))}{words}.")
    aliases = {alias: name for name, row in rows.items() for alias in (*row.names, name)}
    _restrict(source, sorted_out.here, {alias: names[name] for alias, name in aliases.items()})
    return [_entry(source, info, sorted_out.here, fresh, differences) for info in infos], notes


def _check_differences(differences: Differences) -> None:
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


@dataclass
class _Sorted:
    """The rows of a file by what becomes of them.

    Attributes:
        places: The model's parameters by every name.
        here: Rows that a parameter takes, by the name it takes them under.
        ignored: Names that the model has no place for, and need not.
        problems: What does not fit, in words.
        misfits: Parameters that a row of theirs does not fit.
    """

    places: dict[str, ParameterInfo]
    here: dict[str, FileRow] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    misfits: set[str] = field(default_factory=set)


def _sort_out(
    rows: Mapping[str, FileRow],
    names: Mapping[str, list[str]],
    infos: Sequence[ParameterInfo],
    fresh: set[str],
    extra: str,
) -> _Sorted:
    found = _Sorted({name: info for info in infos for name in info.names})
    for name, row in ((new, row) for old, row in rows.items() for new in names[old]):
        info = found.places.get(name)
        if info is not None and info.name in fresh:
            continue
        if info is None and extra == "ignore":
            found.ignored.append(name)
        elif info is None:
            found.problems.append(f"the file has {name}, the model does not{nearest(name, found.places)}")
        elif tuple(info.parameter.shape) != row.shape:
            found.misfits.add(info.name)
            found.problems.append(
                f"{name} has shape {row.shape} in the file and {tuple(info.parameter.shape)} in the model"
            )
        elif row.prior is None and info.parameter.requires_grad:
            found.misfits.add(info.name)
            found.problems.append(
                f"{name} has no prior in the file, as it was frozen there, and is trained here: freeze it, or name "
                f"it by new="
            )
        else:
            found.here[name] = row
    for info in infos:
        twice = [name for name in info.names if name in found.here]
        if len(twice) > 1:
            found.problems.append(
                f"{' and '.join(twice)} are one tied parameter of the model, with a prior each in the file: leave one "
                f"out with rename={{{twice[1]!r}: None}}"
            )
    return found


def _refuse(
    source: Path,
    rows: Mapping[str, FileRow],
    names: Mapping[str, list[str]],
    infos: Sequence[ParameterInfo],
    fresh: set[str],
    found: _Sorted,
    extra: str,
) -> None:
    """Raise with all that does not fit."""
    given = [name for new in names.values() for name in new]
    if rows and extra == "raise" and not any(name in found.places for name in given):
        raise PriorFileError(
            f"{source}: no name in common with the model: the file has {', '.join(list(rows)[:3])}, ... ({len(rows)}), "
            f"the model {', '.join(list(found.places)[:3])}, ... ({len(found.places)});"
            f"{rename_hint(list(found.places), given)} another architecture, or other names, which rename= maps."
        )
    lacking = [
        info.name
        for info in infos
        if info.parameter.requires_grad
        and info.name not in fresh
        and not any(name in found.here for name in info.names)
    ]
    absent = [f"the model has {name}, the file does not" for name in lacking if name not in found.misfits]
    problems = [*found.problems, *absent]
    if problems:
        raise PriorFileError(
            f"{source}: the prior does not fit the model:{rename_hint(lacking, given) if lacking else ''} "
            f"{'; '.join(problems)}. Parameters that are new, or of another shape, are named by new= with their prior "
            f"head=; others of the file are ignored with extra='ignore', other names mapped with rename=."
        )


def _entry(
    source: Path, info: ParameterInfo, here: Mapping[str, FileRow], fresh: set[str], differences: Differences
) -> Entry:
    if info.name in fresh:
        head, new = differences.head, differences.new
        assert head is not None
        assert new is not None
        return Entry(info, placed(head, info), any_of(new).label)
    known = next((name for name in info.names if name in here), None)
    return Entry(info, None, "") if known is None else _bound(source, info, known, here[known])


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
