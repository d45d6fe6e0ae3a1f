"""Safetensors files that hold a record beside the tensors, and a checksum of both."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from bayesreg._support.files import atomic
from bayesreg.errors import PriorFileError

__all__ = ["Sealed", "read_sealed", "write_sealed"]

#: The names under which record and checksum are in a file's metadata.
_RECORD, _CHECKSUM = "bayesreg", "bayesreg.sha256"

# What a checksum is written for, as the record says it: a file that lost its checksum is damaged, not old.
_SEALED = "sha256"


@dataclass(frozen=True)
class Sealed:
    """What such a file holds.

    Attributes:
        record: The record.
        tensors: The tensors by name, in memory of their own.
        checked: Whether the file has a checksum (which is then right); those of earlier versions have none.
    """

    record: dict[str, Any]
    tensors: dict[str, Tensor]
    checked: bool


def write_sealed(path: str | os.PathLike[str], record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a record and tensors with their checksum, whole or not at all.

    Args:
        path: The file.
        record: What JSON can hold.
        tensors: The tensors, on the CPU and contiguous.

    Raises:
        OSError: If it cannot be written.
    """
    from safetensors.torch import save_file

    text = json.dumps({**record, "checksum": _SEALED})
    with atomic(path) as temporary:
        save_file(dict(tensors), temporary, metadata={_RECORD: text, _CHECKSUM: _digest(text, tensors)})


def read_sealed(path: Path, what: str = "prior") -> Sealed:
    """Read such a file into memory, and check it.

    The bytes are read first: a file that is written anew meanwhile is refused, and cannot take a mapped page away.

    Args:
        path: The file.
        what: What it should be, for messages.

    Returns:
        Its content.

    Raises:
        PriorFileError: If there is no such file; it is no safetensors file, without a record, or damaged.
    """
    if not path.is_file():
        raise PriorFileError(f"{path}: {'a directory, expected a file' if path.is_dir() else 'no such file'}.")
    metadata, tensors = _read(path)
    if _RECORD not in metadata:
        wrote = " ModelPrior.save" if what == "prior" else ""
        raise PriorFileError(f"{path}: a safetensors file, but not a {what}:{wrote or ' bayesreg'} did not write it.")
    text = metadata[_RECORD]
    try:
        record = _strict_json(text)
    except (ValueError, RecursionError) as error:
        _damaged(path, what, f"its metadata cannot be read ({error})", error)
    if not isinstance(record, dict):
        _damaged(path, what, f"expected a mapping as its metadata, got {type(record).__name__}")
    expected = metadata.get(_CHECKSUM)
    if expected is None and "checksum" in record:
        _damaged(path, what, "its checksum is missing")
    if expected is not None and expected != _digest(text, tensors):
        _damaged(path, what, "its checksum differs from its content: it was changed since bayesreg wrote it")
    return Sealed(record, tensors, expected is not None)


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        # Of a name that is there twice, the reader would take the last one.
        header = _strict_json(content[8 : 8 + int.from_bytes(content[:8], "little")].decode("utf-8"))
        metadata = header.get("__metadata__", {})
        if not isinstance(metadata, dict):
            raise ValueError(f"expected a mapping as its metadata, got {type(metadata).__name__}")
        return metadata, load(content)
    # KeyError: a dtype of safetensors that torch has not.
    except (SafetensorError, OSError, ValueError, RecursionError, AttributeError, KeyError) as error:
        raise PriorFileError(
            f"{path}: not a readable safetensors file: corrupt, truncated, or another format such as a pickle, which "
            f"bayesreg never loads ({error})."
        ) from error


def _strict_json(text: str) -> Any:
    """Read JSON, in which no name is there twice and every number is one."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        held = dict(pairs)
        if len(held) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
        return held

    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is no number")

    return json.loads(text, object_pairs_hook=once, parse_constant=refuse)


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the record and of every tensor's name, dtype, shape and bytes, in the order of names."""
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        # One element may have a stride of 0, which no other dtype can view.
        found.update(tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _damaged(path: Path, what: str, why: str, error: Exception | None = None) -> NoReturn:
    raise PriorFileError(f"{path}: damaged {what} file, {why}.") from error
