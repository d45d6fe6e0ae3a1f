"""Reading tensor files and model directories without unpickling anything but tensors and plain data."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bayesreg._support.sealed import Sealed, read_sealed
from bayesreg.errors import PriorFileError

__all__ = ["is_prior_file", "read_directory", "read_tensor_file"]

_TORCH_SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt")
_OF_A_PRIOR = re.compile(r"prior\.\d+\.\w+")
# The weights of a Hugging Face directory, in the order in which its own loader looks for them.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def read_tensor_file(path: Path, memory_map: bool = False) -> Mapping[str, Any]:
    """Read a safetensors or torch file without unpickling anything but tensors and plain data.

    Args:
        path: The file.
        memory_map: Whether the tensors of a torch file stay in the file. Those of a safetensors file do so anyway.

    Returns:
        What it holds.

    Raises:
        PriorFileError: If it cannot be read so.
    """
    if not path.is_file():
        raise PriorFileError(f"{path}: {'a directory, expected a file' if path.is_dir() else 'no such file'}.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in _TORCH_SUFFIXES:
        raise PriorFileError(
            f"{path}: expected a file ending in .safetensors or {', '.join(_TORCH_SUFFIXES)}, got {path.suffix!r}."
        )
    if not path.stat().st_size:
        raise PriorFileError(f"{path}: the file is empty.")
    try:
        with warnings.catch_warnings():
            # A foreign pickle makes torch warn before it refuses; the refusal below says more.
            warnings.simplefilter("ignore", UserWarning)
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=memory_map or None)
    except pickle.UnpicklingError as error:
        raise PriorFileError(
            f"{path}: corrupt, or it holds pickled objects other than tensors, which bayesreg never loads; save a "
            f"state dict (torch.save(model.state_dict(), path)) or a .safetensors file."
        ) from error
    except Exception as error:  # torch's reader raises whatever a damaged byte leads to
        if memory_map and "mmap can only be used" in str(error):
            raise PriorFileError(
                f"{path}: in torch's format from before 1.6, which cannot be memory-mapped; save it anew with "
                f"torch.save or as .safetensors, or use storage='copy'."
            ) from error
        why = f" ({error})" if len(str(error)) > 4 else ""
        raise PriorFileError(f"{path}: not a readable torch file, corrupt or truncated{why}.") from error
    if not isinstance(loaded, Mapping):
        raise PriorFileError(f"{path}: expected a state dict, got {type(loaded).__name__}.")
    return loaded


def is_prior_file(path: Path) -> bool:
    """Return whether a file is a safetensors file that holds a prior.

    Args:
        path: The file, which need not exist.

    Returns:
        Whether it is.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return "bayesreg" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            if "bayesreg" in (file.metadata() or {}):
                return _centres(path, read_sealed(path))
            names = list(file.keys())
            if names and all(_OF_A_PRIOR.fullmatch(name) for name in names):
                raise PriorFileError(f"{path}: damaged prior file, its metadata is missing.")
            return {name: file.get_tensor(name) for name in names}
    # KeyError, AttributeError: a dtype of safetensors that this torch has not.
    except (SafetensorError, OSError, KeyError, AttributeError) as error:
        raise PriorFileError(f"{path}: not a readable safetensors file, corrupt or truncated ({error}).") from error


def _centres(path: Path, held: Sealed) -> dict[str, Any]:
    """Return the centres of the priors in a prior file, by parameter name; those about a number have none."""
    centres = {}
    try:
        for row in held.record["entries"]:
            centre = held.tensors.get(f"prior.{row['prior']}.loc")
            if centre is not None and centre.ndim:
                centres[str(row["name"])] = centre.expand(row["shape"])
    except (ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise PriorFileError(f"{path}: damaged prior file ({error}).") from error
    if not centres:
        raise PriorFileError(f"{path}: a prior file, none of whose priors is about weights: it is no reference.")
    return centres


def read_directory(path: Path, memory_map: bool = False) -> dict[str, Any]:
    """Read the weights in a Hugging Face model directory, in one file or in shards.

    Args:
        path: The directory, with `model.safetensors`, `pytorch_model.bin` or the index of shards of either.
        memory_map: As in `read_tensor_file`.

    Returns:
        What the files hold.

    Raises:
        PriorFileError: If there are no weights, a shard is missing, or a file cannot be read.
    """
    found = next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
    if found is None:
        held = sorted(item.name for item in path.iterdir())
        adapter = (
            "; an adapter is no whole model, its base model is the reference"
            if any(name.startswith("adapter_model") for name in held)
            else ""
        )
        raise PriorFileError(
            f"{path}: expected a directory with {_WEIGHTS[0]} or {_WEIGHTS[2]} (or the index of their shards), found "
            f"{', '.join(held[:8]) or 'nothing'}{adapter}."
        )
    if found.suffix != ".json":
        return dict(read_tensor_file(found, memory_map))
    try:
        listed = {str(name): str(file) for name, file in json.loads(found.read_text())["weight_map"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PriorFileError(f"{found}: not a readable index of shards ({error}).") from error
    shards = dict.fromkeys(listed.values())
    astray = [shard for shard in shards if Path(shard).name != shard]
    if astray:
        raise PriorFileError(f"{found}: expected files beside it, got {', '.join(astray)}.")
    missing = [shard for shard in shards if not (path / shard).is_file()]
    if missing:
        raise PriorFileError(f"{found}: these shards are missing: {', '.join(missing)}.")
    tensors: dict[str, Any] = {}
    for shard in shards:
        tensors.update(read_tensor_file(path / shard, memory_map))
    absent = [name for name in listed if name not in tensors]
    if absent:
        raise PriorFileError(f"{found}: the shards lack tensors that it lists: {', '.join(absent)}.")
    return tensors
