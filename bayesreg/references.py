"""Reference weights: a module, a state dict or a file, read into named tensors."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayesreg.errors import InvalidArgumentError, PriorFileError, ReferenceMismatchError, nearest
from bayesreg.selection import canonical_tensors

__all__ = ["Reference", "load_reference", "plain_names", "read_tensor_file"]

_TORCH_SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt")


class Reference(Mapping[str, Tensor]):
    """Named reference tensors, copied when they were read.

    Args:
        tensors: The tensors by plain name.
        source: Where they come from, in words.
        ignore_extra: Whether tensors that a model has no place for are accepted.
    """

    def __init__(self, tensors: Mapping[str, Tensor], source: str, ignore_extra: bool = False) -> None:
        self._tensors = dict(tensors)
        self.source = source
        self.ignore_extra = ignore_extra

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


def load_reference(
    reference: nn.Module | Mapping[str, Tensor] | str | os.PathLike[str], *, extra: str = "raise"
) -> Reference:
    """Read reference weights from wherever they are.

    Wrapper prefixes (`module.`, `_orig_mod.`) are stripped, and a checkpoint that holds its weights under
    `state_dict` or `model` is understood. Nothing is unpickled: torch files are read with `weights_only=True`.

    Args:
        reference: A module, a state dict, or the path of a `.safetensors`, `.pt`, `.pth`, `.th` or `.bin` file.
        extra: "raise" or "ignore", kept with the reference for the model that will be compared with it.

    Returns:
        The reference.

    Raises:
        InvalidArgumentError: If it is none of these.
        PriorFileError: If a file cannot be read.
        ReferenceMismatchError: If it holds no tensors, or non-finite ones.
    """
    if isinstance(reference, nn.Module):
        source = type(reference).__name__
        raw: Mapping[str, Any] = canonical_tensors(reference)
    elif isinstance(reference, Mapping):
        source, raw = "state dict", plain_names(state_dict_in(reference))
    elif isinstance(reference, str | os.PathLike):
        path = Path(reference)
        source, raw = path.name, plain_names(state_dict_in(read_tensor_file(path)))
    else:
        raise InvalidArgumentError(
            f"reference: expected a module, a state dict or a path, got {type(reference).__name__}."
        )
    tensors = {name: value.detach().clone() for name, value in raw.items() if isinstance(value, Tensor)}
    others = [name for name, value in raw.items() if not isinstance(value, Tensor)]
    if not tensors or others:
        held = f"entries that are not tensors: {', '.join(map(str, others[:5]))}" if others else "no tensors"
        raise ReferenceMismatchError(f"reference {source}: expected named tensors, found {held}.")
    bad = [n for n, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise ReferenceMismatchError(f"reference {source}: expected finite tensors, got NaN or infinity in {bad[:5]}.")
    return Reference(tensors, source, ignore_extra=extra == "ignore")


def read_tensor_file(path: Path) -> Mapping[str, Any]:
    """Read a safetensors or torch file without unpickling anything but tensors and plain data.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        PriorFileError: If it cannot be read so.
    """
    if not path.is_file():
        raise PriorFileError(f"{path}: {'a directory, expected a file' if path.is_dir() else 'no such file'}.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise PriorFileError(f"{path}: not a readable safetensors file, corrupt or truncated ({error}).") from error
    if path.suffix not in _TORCH_SUFFIXES:
        raise PriorFileError(
            f"{path}: expected a file ending in .safetensors or {', '.join(_TORCH_SUFFIXES)}, got {path.suffix!r}."
        )
    try:
        with warnings.catch_warnings():
            # A foreign pickle makes torch warn before it refuses; the refusal below says more.
            warnings.simplefilter("ignore", UserWarning)
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PriorFileError(
            f"{path}: corrupt, or it holds pickled objects other than tensors, which bayesreg never loads; save a "
            f"state dict (torch.save(model.state_dict(), path)) or a .safetensors file."
        ) from error
    except Exception as error:  # torch's reader raises whatever a damaged byte leads to
        raise PriorFileError(f"{path}: not a readable torch file, corrupt or truncated ({error}).") from error
    if not isinstance(loaded, Mapping):
        raise PriorFileError(f"{path}: expected a state dict, got {type(loaded).__name__}.")
    return loaded


def state_dict_in(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state dict inside a checkpoint dictionary."""
    for key in ("state_dict", "model"):
        inner = mapping.get(key)
        if isinstance(inner, Mapping) and inner and all(isinstance(value, Tensor) for value in inner.values()):
            return inner
    return mapping


_WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_PARAMETRIZED = re.compile(r"parametrizations\.(\w+)\.original(\d*)$")


def _parametrized(match: re.Match[str]) -> str:
    """`parametrizations.weight.original` is the weight; `original0`, `original1` are parts of it."""
    return match[1] + (f".original{match[2]}" if match[2] else "")


def plain_names(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Strip the prefixes that wrappers put before every name."""
    names = {name: _PARAMETRIZED.sub(_parametrized, _WRAPPERS.sub("", str(name))) for name in mapping}
    # AveragedModel adds a counter beside the wrapped weights.
    if all(new.startswith("module.") or new == "n_averaged" for new in names.values()):
        names = {old: new.removeprefix("module.") for old, new in names.items() if new != "n_averaged"}
    return {new: mapping[old] for old, new in names.items()}
