"""Named reference tensors, and where they come from."""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from bayesreg._support.calls import answering
from bayesreg._support.plain import from_plain, to_plain
from bayesreg._support.sharding import local
from bayesreg.errors import InvalidArgumentError, ReferenceMismatchError, nearest
from bayesreg.references.files import read_directory, read_tensor_file
from bayesreg.references.names import Rename, plain_names, renamed, require_tensors, state_dict_in
from bayesreg.selection import canonical_tensors

__all__ = ["Reference", "Storage", "load_reference", "read_reference"]

Storage: TypeAlias = Literal["copy", "memory_map", "bfloat16"]


class Reference(Mapping[str, Tensor]):
    """Named reference tensors, in memory or in a file; `load_reference` makes them.

    Args:
        tensors: The tensors by plain name; copied.
        source: Where they come from, in words.
        ignore_extra: Whether tensors that a model has no place for are accepted.

    Raises:
        ReferenceMismatchError: If there are no tensors, or some without finite values.

    Example:
        >>> reference = Reference({"weight": torch.ones(2)}, "by hand")
        >>> reference
        Reference(by hand, 1 tensor)
    """

    def __init__(self, tensors: Mapping[str, Tensor], source: str, ignore_extra: bool = False) -> None:
        self._take(_stored(tensors, "copy", []), source, ignore_extra)
        self.require_sound()

    def _take(self, tensors: Mapping[str, Tensor], source: str, ignore_extra: bool) -> None:
        self._tensors = dict(tensors)
        self.source = source
        self.ignore_extra = ignore_extra
        #: What was done to names and values, for describe().
        self.notes: tuple[str, ...] = ()
        self.storage: Storage = "copy"
        #: Names beside the tensors that a model must have a place for, too.
        self.others: tuple[str, ...] = ()
        #: The module the tensors were copied from, while it lives.
        self.module: weakref.ref[nn.Module] | None = None
        self._problems: list[str] | None = None

    @classmethod
    def sharing(cls, tensors: Mapping[str, Tensor], source: str, ignore_extra: bool = False) -> Reference:
        """Return a reference that holds these very tensors, unchecked.

        Args:
            tensors: The tensors by plain name.
            source: Where they come from, in words.
            ignore_extra: As in the constructor.

        Returns:
            The reference.
        """
        made = cls.__new__(cls)
        made._take(tensors, source, ignore_extra)
        return made

    def problems(self) -> list[str]:
        """Return what is wrong with the tensors, whatever the model."""
        if self._problems is None:
            # Once: it reads every page of a mapped file.
            self._problems = [problem for name, tensor in self.items() for problem in _problems_of(name, tensor)]
        return list(self._problems)

    def require_sound(self) -> None:
        """Raise if there are no tensors, or some without finite values.

        Raises:
            ReferenceMismatchError: If so; all are listed.
        """
        if not self._tensors:
            raise ReferenceMismatchError(f"reference {self.source}: expected named tensors, found no tensors.")
        problems = self.problems()
        if problems:
            raise ReferenceMismatchError(
                f"reference {self.source}: expected finite tensors, but {'; '.join(problems)}."
            )

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

    def __getstate__(self) -> dict[str, Any]:
        # A weak reference cannot be pickled, and the module is not there where the copy goes.
        plain = {name: to_plain(tensor) for name, tensor in self._tensors.items()}
        kept = self._tensors if None in plain.values() else plain
        return {**self.__dict__, "module": None, "_tensors": kept, "_problems": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        held = {name: from_plain(one) if isinstance(one, tuple) else one for name, one in state["_tensors"].items()}
        self.__dict__.update({**state, "_tensors": held})

    def __deepcopy__(self, memo: dict[int, Any]) -> Reference:
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy({**self.__dict__, "module": None}, memo))
        return made


@answering
def load_reference(
    reference: nn.Module | Mapping[str, Tensor] | str | os.PathLike[str],
    *,
    rename: Rename | None = None,
    extra: Literal["raise", "ignore"] = "raise",
    storage: Storage = "copy",
) -> Reference:
    r"""Read reference weights from wherever they are.

    Wrapper prefixes (`module.`, `_orig_mod.`) are stripped, and a checkpoint that holds its weights under
    `state_dict`, `model_state_dict` or `model` is understood. Nothing is unpickled: torch files are read with
    `weights_only=True`.

    Args:
        reference: A module, a state dict, the path of a `.safetensors`, `.pt`, `.pth`, `.th` or `.bin` file, a
            Hugging Face directory (one file or shards), or a `Reference`.
        rename: From names in the reference to names in the model, where they differ: a mapping whose keys are
            names, globs (`{"backbone.*": "encoder.*"}`, each `*` keeps what it stood for; `{"*": "bert.*"}` puts a
            prefix before all) or compiled regular expressions, which are matched at the front of a name and leave the
            rest of it: end them with `\.` to stop at a whole word. A value of None leaves the tensor out, several names
            give it to each. The first rule that matches decides.
        extra: "raise" or "ignore": what a `ModelPrior` does with tensors that the model has no place for.
        storage: Where the tensors are kept. "copy" (default): in memory, in their own dtype. "memory_map": in the
            file, whose pages are read when needed and shared between processes; it must not change meanwhile.
            "bfloat16": in memory, in half the size, rounded by at most one part in 256; 16-bit tensors stay as
            they are.

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
    made = read_reference(reference, rename=rename, extra=extra, storage=storage)
    made.require_sound()
    return made


def read_reference(
    reference: nn.Module | Mapping[str, Tensor] | str | os.PathLike[str],
    *,
    rename: Rename | None = None,
    extra: str = "raise",
    storage: Storage = "copy",
) -> Reference:
    """Read a reference as `load_reference` does, but leave unsound values to be listed with other mismatches."""
    _check_options(extra, storage, rename)
    notes: list[str] = []
    module: nn.Module | None = None
    mapped = False
    if isinstance(reference, Reference):
        source, raw = reference.source, dict(reference)
        module = None if reference.module is None else reference.module()
        mapped = reference.storage == "memory_map"
        notes += [note for note in reference.notes if not (storage == "bfloat16" and note == _MAPPED)]
        extra = "ignore" if reference.ignore_extra else extra
    elif isinstance(reference, nn.Module):
        source, raw, module = type(reference).__name__, canonical_tensors(reference), reference
    elif isinstance(reference, Mapping):
        source, raw = "state dict", plain_names(state_dict_in(reference))
    elif isinstance(reference, str | os.PathLike):
        path = Path(reference)
        read = read_directory if path.is_dir() else read_tensor_file
        source, raw = path.name, plain_names(state_dict_in(read(path, storage == "memory_map")))
        mapped = storage == "memory_map"
    else:
        raise InvalidArgumentError(
            f"reference: expected a module, a state dict or a path, got {type(reference).__name__}."
        )
    if storage == "memory_map" and not mapped:
        raise InvalidArgumentError(
            f"storage='memory_map': expected the path of a file or directory, got a {type(reference).__name__}; "
            f"use 'copy' or 'bfloat16'."
        )
    if rename is not None:
        if not any(isinstance(value, Tensor) for value in raw.values()):
            require_tensors(raw, source)
        raw, done = renamed(raw, rename, source)
        notes += done
    require_tensors(raw, source)
    keep = isinstance(reference, Reference) and storage != "bfloat16"
    if storage == "memory_map" and _MAPPED not in notes:
        notes.append(_MAPPED)
    made = Reference.sharing(raw if keep else _stored(raw, storage, notes), source, extra == "ignore")
    made.notes = tuple(notes)
    made.storage = "memory_map" if mapped and storage != "bfloat16" else storage
    made.module = None if module is None else weakref.ref(module)
    if keep and rename is None and isinstance(reference, Reference):
        made._problems = reference._problems
    return made


_MAPPED = "memory-mapped: the file must not change while the prior is in use"


def _check_options(extra: str, storage: str, rename: object) -> None:
    if extra not in ("raise", "ignore"):
        raise InvalidArgumentError(f"extra: expected 'raise' or 'ignore', got {extra!r}.")
    if storage not in get_args(Storage):
        raise InvalidArgumentError(
            f"storage: expected one of {', '.join(get_args(Storage))}, got {storage!r}"
            f"{nearest(str(storage), get_args(Storage))}."
        )
    if rename is not None and not isinstance(rename, Mapping):
        raise InvalidArgumentError(f"rename: expected a mapping, got {type(rename).__name__}.")


def _problems_of(name: str, tensor: Tensor) -> list[str]:
    if tensor.is_meta:
        return [f"{name} is on the meta device and has no values"]
    if tensor.layout != torch.strided:
        return [f"{name} has the layout {str(tensor.layout).removeprefix('torch.')}, expected a dense tensor"]
    if not tensor.is_floating_point():
        return []
    bad = sum(part.numel() - int(torch.isfinite(part).sum()) for part in _parts(local(tensor)))
    if not bad:
        return []
    return [f"{name} has {bad} of {tensor.numel()} elements NaN or infinite"]


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return a large tensor in pieces, so that what is computed of them takes little memory."""
    return tensor.reshape(-1).split(2**20) if tensor.is_contiguous() else (tensor,)


def _stored(raw: Mapping[str, Tensor], storage: Storage, notes: list[str]) -> dict[str, Tensor]:
    """Return the tensors as they will be kept, each tied one once, and add to the notes what was done to values."""
    kept: dict[int, Tensor] = {}
    rounded, narrowed, widened = False, False, False
    for name, value in raw.items():
        if id(value) in kept:
            continue
        tensor = value.detach()
        plain = tensor.is_floating_point() and not tensor.is_meta and tensor.layout == torch.strided
        if plain and tensor.element_size() == 1:
            # Every 8-bit float is a bfloat16; torch hardly computes with it.
            kept[id(value)], widened = tensor.to(torch.bfloat16), True
        elif plain and storage == "bfloat16" and tensor.element_size() > 2:
            tensor = tensor.contiguous()
            low = tensor.to(torch.bfloat16)
            for part, whole in zip(_parts(low), _parts(tensor), strict=True):
                if not torch.equal(torch.isfinite(part), torch.isfinite(whole)):
                    raise ReferenceMismatchError(f"storage='bfloat16': {name} has values too large for bfloat16.")
                rounded |= not bool((part.to(whole.dtype) == whole).all())
            kept[id(value)], narrowed = low, True
        else:
            kept[id(value)] = tensor if storage == "memory_map" else tensor.clone()
    if narrowed:
        words = "the centre is rounded by at most one part in 256" if rounded else "all values fit exactly"
        notes.append(f"kept in bfloat16: {words}")
    if widened:
        notes.append("8-bit floats kept in bfloat16, which holds them exactly")
    return {name: kept[id(value)] for name, value in raw.items()}
