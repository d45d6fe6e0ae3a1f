"""Prior files: safetensors with the hyper-parameters, and in the metadata who has which."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayesreg._support.files import atomic
from bayesreg._support.tables import Table
from bayesreg._version import __version__
from bayesreg.errors import BayesRegError, InvalidArgumentError, PriorFileError, UnsupportedError, nearest
from bayesreg.model_prior.entry import Entry
from bayesreg.priors import FAMILIES, Belief

__all__ = ["FORMAT", "FileRow", "describe_file", "read_rows", "save_model_prior"]

#: Raised when a file written before could not be read by the code before the change.
FORMAT = 1

# What reading a field of foreign JSON can raise.
_DAMAGED = (KeyError, TypeError, IndexError, ValueError, AttributeError)


def save_model_prior(entries: list[Entry], path: str | os.PathLike[str], notes: Sequence[str] = ()) -> None:
    """Write entries to a safetensors file, whole or not at all."""
    from safetensors.torch import save_file

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
    with atomic(target) as temporary:
        save_file(tensors, temporary, metadata={"bayesreg": json.dumps(record)})


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


def read_rows(path: Path) -> tuple[dict[str, FileRow], list[str], dict[str, Any]]:
    """Read a prior file.

    Args:
        path: The file.

    Returns:
        Its rows by parameter name, the notes of the prior that was saved, and the rest of its metadata.

    Raises:
        PriorFileError: If the file is not readable, damaged, or newer than this bayesreg.
    """
    record, tensors = _read(path)
    try:
        learned: dict[str, nn.Parameter] = {}
        priors = [_rebuild(path, number, row, tensors, learned) for number, row in enumerate(record["priors"])]
        rows = {}
        for row in record["entries"]:
            name, number = str(row["name"]), row["prior"]
            if number is not None and not (type(number) is int and 0 <= number < len(priors)):
                raise PriorFileError(f"{path}: damaged prior file, {name} names prior {number!r} of {len(priors)}.")
            shape, prior = tuple(map(int, row["shape"])), None if number is None else priors[number]
            names = tuple(map(str, row.get("names", [name])))
            rows[name] = FileRow(name, names, shape, str(row["dtype"]), str(row["rule"]), prior)
        notes = [str(note) for note in record.get("notes", [])]
    except PriorFileError:
        raise
    except _DAMAGED as error:
        raise PriorFileError(f"{path}: damaged prior file, its metadata lacks {error}.") from error
    return rows, notes, record


def describe_file(path: str | os.PathLike[str]) -> Table:
    """Return what a prior file holds, without a model.

    Args:
        path: The file.

    Returns:
        One row per parameter: name, shape, prior and rule; the notes of the prior that was saved.

    Raises:
        PriorFileError: If the file is not readable, or newer than this bayesreg.
    """
    rows, notes, record = read_rows(Path(path))
    made = f"Written by bayesreg {record.get('bayesreg')}, format {record['format']}"
    made += f", {record['created']}." if "created" in record else "."
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
        return value.detach().to("cpu", copy=True).contiguous()
    return torch.tensor(value, dtype=torch.float64)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise PriorFileError(f"{path}: no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("bayesreg")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise PriorFileError(
            f"{path}: not a readable safetensors file: corrupt, truncated, or another format such as a pickle, which "
            f"bayesreg never loads ({error})."
        ) from error
    if text is None:
        raise PriorFileError(f"{path}: a safetensors file, but not a prior: ModelPrior.save did not write it.")
    try:
        record = json.loads(text)
        version = int(record["format"])
    except (*_DAMAGED, OverflowError, RecursionError) as error:
        raise PriorFileError(f"{path}: damaged prior file, its metadata cannot be read ({error}).") from error
    if version < 1:
        raise PriorFileError(f"{path}: damaged prior file, format {version}.")
    if version > FORMAT:
        raise PriorFileError(
            f"{path}: written by bayesreg {record.get('bayesreg')} in format {version}; this is {__version__}, which "
            f"reads up to format {FORMAT}: upgrade bayesreg."
        )
    return record, tensors


def _refuse_unregistered(prior: Belief) -> None:
    family = prior._saved_family()
    if FAMILIES.get(family.__name__) is not family:
        raise UnsupportedError(
            f"{family.__name__}: a prior file could not be read again, as bayesreg does not know this family: put "
            f"@br.register_family on the class, here and where the file is read."
        )


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
        key = row.get("shared", {}).get(name, f"prior.{number}.{name}")
        if name in row["learned"]:
            arguments[name] = learned.setdefault(key, nn.Parameter(tensors[key]))
        else:
            arguments[name] = tensors[key]
    try:
        prior = FAMILIES[family].from_saved(arguments, row["options"])
        return prior._say(row)
    except (BayesRegError, RuntimeError, *_DAMAGED) as error:
        raise PriorFileError(f"{path}: damaged prior file, {family} cannot be rebuilt ({error}).") from error
