"""Prior files: safetensors with the hyper-parameters, and in the metadata who has which."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayesreg._support.sealed import Sealed, read_sealed, write_sealed
from bayesreg._support.sharding import whole
from bayesreg._support.tables import Table
from bayesreg._version import __version__
from bayesreg.errors import BayesRegError, InvalidArgumentError, PriorFileError, UnsupportedError, nearest
from bayesreg.model_prior.entry import Entry
from bayesreg.priors import FAMILIES, Belief
from bayesreg.priors.contract.joint import Part

__all__ = ["FORMAT", "FileRow", "PriorFile", "describe_file", "read_prior_file", "save_model_prior"]

#: Raised when a file written before could not be read by the code before the change.
FORMAT = 1

# What reading a field of foreign JSON can raise.
_DAMAGED = (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError)


def save_model_prior(entries: list[Entry], path: str | os.PathLike[str], notes: Sequence[str] = ()) -> None:
    """Write entries to a safetensors file, whole or not at all."""
    target = Path(path)
    if target.suffix != ".safetensors":
        raise InvalidArgumentError(f"path: expected a name ending in .safetensors, got {str(target)!r}.")
    tensors: dict[str, Tensor] = {}
    priors: list[dict[str, Any]] = []
    index: dict[int, int] = {}
    learned: dict[int, str] = {}
    rows = []
    for entry in entries:
        if entry.prior is not None and id(entry.prior) not in index:
            index[id(entry.prior)] = number = len(priors)
            held = entry.prior.hyperparameters()
            own = dict(entry.prior.named_parameters(recurse=False))
            _refuse_unregistered(entry.prior)
            row: dict[str, Any] = {
                "family": entry.prior._saved_family().__name__,
                "arguments": list(held),
                "learned": list(own),
            }
            for name, value in held.items():
                key = f"prior.{number}.{name}"
                # A learned hyper-parameter may belong to several priors: it is kept once, as it is.
                if name in own and learned.setdefault(id(own[name]), key) != key:
                    row.setdefault("shared", {})[name] = learned[id(own[name])]
                    continue
                tensors[key] = _as_tensor(own.get(name, value))
            priors.append({**row, "options": entry.prior.saved_options(), **entry.prior._said()})
        rows.append({
            "name": entry.name,
            "names": list(entry.info.names),
            "shape": list(entry.parameter.shape),
            "dtype": str(entry.parameter.dtype).removeprefix("torch."),
            "rule": entry.rule,
            "prior": None if entry.prior is None else index[id(entry.prior)],
        })
    created = datetime.now(UTC).isoformat(timespec="seconds")
    record: dict[str, Any] = {
        "created": created,
        "format": FORMAT,
        "bayesreg": __version__,
        "entries": rows,
        "priors": priors,
        "notes": list(notes),
    }
    if not tensors:
        tensors["empty"] = torch.zeros(1)
    write_sealed(target, record, tensors)


@dataclass(frozen=True)
class FileRow:
    """What a file says of one parameter.

    Attributes:
        name: Its name.
        names: All its names, of a tied parameter.
        shape: Its shape.
        dtype: Its dtype.
        rule: The rule that gave it its prior.
        prior: Its prior; of a density over several parameters, its part.
    """

    name: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    rule: str
    prior: Belief | None


@dataclass(frozen=True)
class PriorFile:
    """What a prior file holds.

    Attributes:
        rows: What it says of each parameter, by name.
        notes: The notes of the prior that was saved.
        record: The rest of its metadata.
        checked: Whether it has a checksum; those of earlier versions have none.
    """

    rows: dict[str, FileRow]
    notes: list[str]
    record: dict[str, Any]
    checked: bool


def read_prior_file(path: Path) -> PriorFile:
    """Read a prior file.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        PriorFileError: If the file is not readable, damaged, contradicts itself, or is newer than this bayesreg.
    """
    sealed = _read(path)
    record, tensors = sealed.record, sealed.tensors
    try:
        learned: dict[str, nn.Parameter] = {}
        priors = [_rebuild(path, number, row, tensors, learned) for number, row in enumerate(record["priors"])]
        read = {_key(number, row, name) for number, row in enumerate(record["priors"]) for name in row["arguments"]}
        rows: dict[str, FileRow] = {}
        taken: set[str] = set()
        for entry in record["entries"]:
            row = _row(path, entry, priors)
            again = taken.intersection((row.name, *row.names))
            if again:
                raise PriorFileError(f"{path}: damaged prior file, {again.pop()} is there twice.")
            taken.update((row.name, *row.names))
            rows[row.name] = row
        notes = [str(note) for note in record.get("notes", [])]
    except PriorFileError:
        raise
    except _DAMAGED as error:
        raise PriorFileError(f"{path}: damaged prior file, its metadata lacks {error}.") from error
    if unread := sorted(set(tensors) - read - {"empty"}):
        raise PriorFileError(f"{path}: damaged prior file, no prior reads its {', '.join(unread[:3])}.")
    return PriorFile(rows, notes, record, sealed.checked)


def _row(path: Path, entry: dict[str, Any], priors: Sequence[Belief]) -> FileRow:
    name, number, shape = str(entry["name"]), entry["prior"], entry["shape"]
    if number is not None and not (type(number) is int and 0 <= number < len(priors)):
        raise PriorFileError(f"{path}: damaged prior file, {name} names prior {number!r} of {len(priors)}.")
    if not all(type(length) is int and 0 <= length < 2**63 for length in shape):
        raise PriorFileError(f"{path}: damaged prior file, {name} has shape {str(shape)[:100]}.")
    names = tuple(map(str, entry.get("names", [name])))
    prior = None if number is None else priors[number]
    if isinstance(prior, Part) and (len(set(prior.joins)) < len(prior.joins) or not {name, *names} & set(prior.joins)):
        raise PriorFileError(f"{path}: damaged prior file, {name} is said to be joined with {str(prior.joins)[:200]}.")
    return FileRow(name, names, tuple(shape), str(entry["dtype"]), str(entry["rule"]), prior)


def describe_file(path: str | os.PathLike[str]) -> Table:
    """Return what a prior file holds, without a model.

    Args:
        path: The file.

    Returns:
        One row per parameter: name, shape, prior and rule; the notes of the prior that was saved.

    Raises:
        PriorFileError: If the file is not readable, or newer than this bayesreg.
    """
    found = read_prior_file(Path(path))
    rows, notes, record = found.rows, found.notes, found.record
    made = f"Written by bayesreg {record.get('bayesreg')}, format {record['format']}"
    made += f", {record['created']}" if "created" in record else ""
    made += ". Its checksum is right." if found.checked else "; without a checksum, as files of earlier versions are."
    elements = sum(math.prod(row.shape) for row in rows.values())
    return Table(
        f"Prior over {elements:,} elements in {len(rows)} tensors",
        ("parameter", "shape", "dtype", "prior", "std", "rule"),
        [
            (
                row.name,
                "x".join(map(str, row.shape)) or "1",
                row.dtype,
                "none" if row.prior is None else row.prior.describe(),
                None if row.prior is None else _std(row.prior, row.shape),
                row.rule,
            )
            for row in rows.values()
        ],
        (made, *notes),
    )


def _std(prior: Belief, shape: tuple[int, ...]) -> float | str | None:
    variance = prior.variance(shape)
    if variance is None:
        return None
    wide = torch.as_tensor(variance, dtype=torch.float64)
    low, high = math.sqrt(float(wide.min())), math.sqrt(float(wide.max()))
    return high if math.isclose(low, high, rel_tol=1e-6) else f"{low:.3g} to {high:.3g}"


def _as_tensor(value: float | Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return whole(value.detach()).to("cpu", copy=True).contiguous()
    return torch.tensor(value, dtype=torch.float64)


def _read(path: Path) -> Sealed:
    sealed = read_sealed(path)
    version = sealed.record.get("format")
    if type(version) is not int or version < 1:
        raise PriorFileError(f"{path}: damaged prior file, expected a format number, got {version!r}.")
    if version > FORMAT:
        raise PriorFileError(
            f"{path}: written by bayesreg {sealed.record.get('bayesreg')} in format {version}; this is {__version__}, "
            f"which reads up to format {FORMAT}: upgrade bayesreg."
        )
    return sealed


def _refuse_unregistered(prior: Belief) -> None:
    family = prior._saved_family()
    if FAMILIES.get(family.__name__) is not family:
        raise UnsupportedError(
            f"{family.__name__}: a prior file could not be read again, as bayesreg does not know this family: put "
            f"@br.register_family on the class, here and where the file is read."
        )


def _key(number: int, row: dict[str, Any], name: str) -> str:
    """Return the name of the tensor that an argument of a prior is in."""
    return str(row.get("shared", {}).get(name, f"prior.{number}.{name}"))


def _rebuild(
    path: Path, number: int, row: dict[str, Any], tensors: dict[str, Tensor], learned: dict[str, nn.Parameter]
) -> Belief:
    family = str(row["family"])
    if family not in FAMILIES:
        raise PriorFileError(
            f"{path}: unknown prior family {family!r}{nearest(family, FAMILIES) or '.'} A family of your own must be "
            f"registered (@br.register_family), its module imported, before the file is read."
        )
    arguments: dict[str, Tensor] = {}
    for name in row["arguments"]:
        key = _key(number, row, name)
        if not tensors[key].is_floating_point():
            raise PriorFileError(f"{path}: damaged prior file, {key}: expected real numbers, got {tensors[key].dtype}.")
        if name in row["learned"]:
            arguments[name] = learned.setdefault(key, nn.Parameter(tensors[key]))
        else:
            arguments[name] = tensors[key]
    try:
        prior = FAMILIES[family].from_saved(arguments, row["options"])
        return prior._say(row)
    except (BayesRegError, RuntimeError, *_DAMAGED) as error:
        raise PriorFileError(f"{path}: damaged prior file, {family} cannot be rebuilt ({error}).") from error
