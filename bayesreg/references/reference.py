"""Named reference tensors, and where they come from."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from bayesreg.errors import InvalidArgumentError, ReferenceMismatchError, nearest
from bayesreg.references.files import read_directory, read_tensor_file
from bayesreg.references.names import Rename, plain_names, renamed, state_dict_in
from bayesreg.selection import canonical_tensors

__all__ = ["Reference", "Storage", "load_reference"]

Storage: TypeAlias = Literal["copy", "memory_map", "bfloat16"]


class Reference(Mapping[str, Tensor]):
    """Named reference tensors; `load_reference` makes them.

    Args:
        tensors: The tensors by plain name.
        source: Where they come from, in words.
        ignore_extra: Whether tensors that a model has no place for are accepted.
        notes: What was done to names and values, for `describe()`.

    Example:
        >>> reference = Reference({"weight": torch.ones(2)}, "by hand")
        >>> reference
        Reference(by hand, 1 tensor)
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], source: str, ignore_extra: bool = False, notes: Sequence[str] = ()
    ) -> None:
        self._tensors = dict(tensors)
        self.source = source
        self.ignore_extra = ignore_extra
        self.notes = tuple(notes)
        #: The module the tensors were copied from, while it lives.
        self.module: weakref.ref[nn.Module] | None = None

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise ReferenceMismatchError(
                f"reference {self.source}: expected a tensor {name!r}, found none{nearest(name, self._tensors)}"
            )
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __repr__(self) -> str:
        return f"Reference({self.source}, {len(self)} tensor{'s' if len(self) != 1 else ''})"


def load_reference(
    reference: nn.Module | Mapping[str, Tensor] | str | os.PathLike[str],
    *,
    rename: Rename | None = None,
    extra: Literal["raise", "ignore"] = "raise",
    storage: Storage = "copy",
) -> Reference:
    """Read reference weights from wherever they are.

    Wrapper prefixes (`module.`, `_orig_mod.`) are stripped, and a checkpoint that holds its weights under
    `state_dict`, `model_state_dict` or `model` is understood. Nothing is unpickled: torch files are read with
    `weights_only=True`.

    Args:
        reference: A module, a state dict, the path of a `.safetensors`, `.pt`, `.pth`, `.th` or `.bin` file, a
            Hugging Face directory (one file or shards), or a `Reference`.
        rename: From names in the reference to names in the model, where they differ: a mapping whose keys are
            names, globs (`{"backbone.*": "encoder.*"}`, each `*` keeps what it stood for; `{"*": "bert.*"}` puts a
            prefix before all) or compiled regular expressions matched at the front of a name. A value of None leaves
            the tensor out, several names give it to each. The first rule that matches decides.
        extra: "raise" or "ignore": what a `ModelPrior` does with tensors that the model has no place for.
        storage: Where the tensors are kept. "copy" (default): in memory, in their own dtype. "memory_map": in the
            file, whose pages are read when needed and shared between processes; it must not change meanwhile.
            "bfloat16": in memory, in half the size, rounded by at most one part in 256; they stay in the file's
            dtype where that is no wider.

    Returns:
        The reference. A `Reference` given is not copied again.

    Raises:
        InvalidArgumentError: If it is none of these, or an argument is out of range.
        PriorFileError: If a file cannot be read.
        ReferenceMismatchError: If it holds no tensors, tensors without finite values, or a rename does not fit.

    Example:
        >>> pretrained = nn.Sequential(nn.Linear(3, 2))
        >>> reference = load_reference(pretrained, rename={"0.*": "body.*"})
        >>> sorted(reference)
        ['body.bias', 'body.weight']
    """
    _check_options(extra, storage)
    notes: list[str] = []
    module: nn.Module | None = None
    if isinstance(reference, Reference):
        source, raw = reference.source, dict(reference)
        module = None if reference.module is None else reference.module()
        notes += reference.notes
        extra = "ignore" if reference.ignore_extra else extra
    elif isinstance(reference, nn.Module):
        source, raw, module = type(reference).__name__, canonical_tensors(reference), reference
    elif isinstance(reference, Mapping):
        source, raw = "state dict", plain_names(state_dict_in(reference))
    elif isinstance(reference, str | os.PathLike):
        path = Path(reference)
        read = read_directory if path.is_dir() else read_tensor_file
        source, raw = path.name, plain_names(state_dict_in(read(path, storage == "memory_map")))
    else:
        raise InvalidArgumentError(
            f"reference: expected a module, a state dict or a path, got {type(reference).__name__}."
        )
    if rename is not None:
        if not isinstance(rename, Mapping):
            raise InvalidArgumentError(f"rename: expected a mapping, got {type(rename).__name__}.")
        raw, done = renamed(raw, rename, source)
        notes += done
    _check_tensors(raw, source)
    if storage == "memory_map":
        if not isinstance(reference, str | os.PathLike):
            raise InvalidArgumentError(
                f"storage='memory_map': expected the path of a file or directory, got a {type(reference).__name__}; "
                f"use 'copy' or 'bfloat16'."
            )
        notes.append("memory-mapped: the file must not change while the prior is in use")
    if not (isinstance(reference, Reference) and storage == "copy"):
        raw = _stored(raw, storage, source, notes)
    made = Reference(raw, source, extra == "ignore", notes)
    made.module = None if module is None else weakref.ref(module)
    return made


def _check_options(extra: str, storage: str) -> None:
    if extra not in ("raise", "ignore"):
        raise InvalidArgumentError(f"extra: expected 'raise' or 'ignore', got {extra!r}.")
    if storage not in get_args(Storage):
        raise InvalidArgumentError(
            f"storage: expected one of {', '.join(get_args(Storage))}, got {storage!r}"
            f"{nearest(str(storage), get_args(Storage))}."
        )


def _check_tensors(raw: Mapping[str, Any], source: str) -> None:
    others = [name for name, value in raw.items() if not isinstance(value, Tensor)]
    if others or not raw:
        held = f"entries that are not tensors: {', '.join(map(str, others))}" if others else "no tensors"
        raise ReferenceMismatchError(
            f"reference {source}: expected named tensors, found {held}"
            f"{'; rename={name: None} leaves one out' if others else ''}."
        )
    problems = []
    for name, tensor in raw.items():
        if tensor.is_meta:
            problems.append(f"{name} is on the meta device and has no values")
        elif tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            problems.append(f"{name} has {bad} of {tensor.numel()} elements NaN or infinite")
    if problems:
        raise ReferenceMismatchError(f"reference {source}: expected finite tensors, but {'; '.join(problems)}.")


def _stored(raw: Mapping[str, Tensor], storage: Storage, source: str, notes: list[str]) -> dict[str, Tensor]:
    # One copy per tensor: tied ones stay one.
    kept: dict[int, Tensor] = {}
    rounded = False
    for value in raw.values():
        if id(value) in kept:
            continue
        tensor = value.detach()
        narrow = storage == "bfloat16" and tensor.is_floating_point() and tensor.element_size() > 2
        if narrow:
            low = tensor.to(torch.bfloat16)
            if not bool(torch.isfinite(low).all()):
                raise ReferenceMismatchError(f"reference {source}: some values are too large for bfloat16.")
            rounded |= not bool((low.to(tensor.dtype) == tensor).all())
            kept[id(value)] = low
        else:
            kept[id(value)] = tensor if storage == "memory_map" else tensor.clone()
    if storage == "bfloat16":
        notes.append(
            "kept in bfloat16: "
            + ("the centre is rounded by at most one part in 256" if rounded else "all values fit exactly")
        )
    return {name: kept[id(value)] for name, value in raw.items()}
