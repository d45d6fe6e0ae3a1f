"""States of optimizers, schedulers and modules as JSON and tensors, and back to the bit."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesreg.errors import CheckpointError

__all__ = ["pack", "unpack"]

# What JSON has no word for is an object with this key: its kind. Mappings of the state itself are lists of pairs, so
# that no key of theirs can be mistaken for it.
_KIND, _VALUE = "kind", "value"


def pack(tree: Any, name: str = "state") -> tuple[Any, dict[str, Tensor]]:
    """Return a state as what JSON holds and tensors by name.

    Args:
        tree: None, numbers, strings and tensors in lists, tuples and mappings.
        name: What to call it where something else is in it.

    Returns:
        The JSON, with names in place of tensors, and the tensors: on the CPU, contiguous, one for each memory.

    Raises:
        CheckpointError: If something else is in it, which only a pickle could hold.
    """
    tensors: dict[str, Tensor] = {}
    known: dict[Any, str] = {}
    return _packed(tree, name, tensors, known), tensors


def _packed(value: Any, name: str, tensors: dict[str, Tensor], known: dict[Any, str]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {_KIND: "float", _VALUE: repr(value)}
    if isinstance(value, Tensor):
        return {_KIND: "tensor", _VALUE: _kept(value, name, tensors, known)}
    if isinstance(value, list) and type(value) is list:
        return [_packed(one, f"{name}/{index}", tensors, known) for index, one in enumerate(value)]
    if type(value) is tuple or isinstance(value, torch.Size):
        return {_KIND: "tuple", _VALUE: _packed(list(value), name, tensors, known)}
    if type(value) in (dict, OrderedDict, Counter):
        pairs = [
            [_packed(key, f"a key of {name}", tensors, known), _packed(one, f"{name}/{key}", tensors, known)]
            for key, one in value.items()
        ]
        packed = {_KIND: type(value).__name__, _VALUE: pairs}
        # Modules keep the versions of their parts there.
        if (versions := getattr(value, "_metadata", None)) is not None:
            packed["metadata"] = _packed(dict(versions), f"{name}/metadata", tensors, known)
        return packed
    raise CheckpointError(
        f"checkpoint: expected numbers, strings and tensors as the state of what trains, got {type(value).__name__} "
        f"as {name}; without a pickle it cannot be kept: choose another optimizer or scheduler, or leave checkpoint= "
        f"out."
    )


def _kept(value: Tensor, name: str, tensors: dict[str, Tensor], known: dict[Any, str]) -> str:
    if value.layout is not torch.strided:
        raise CheckpointError(f"checkpoint: {name} is a {value.layout} tensor, which safetensors cannot hold.")
    here = value.detach()
    # Tied weights are there under several names and once in memory.
    where = (here.device, here.data_ptr(), here.dtype, here.shape, here.stride()) if here.numel() else name
    if where not in known:
        known[where] = name
        # A copy, so that what is written is of this moment.
        tensors[name] = here.to("cpu", copy=True).contiguous()
    return known[where]


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the state that `pack` was given.

    Args:
        packed: Its JSON.
        tensors: Its tensors.

    Returns:
        The state; tensors on the CPU.

    Raises:
        CheckpointError: If it is none that `pack` made.
    """
    if packed is None or isinstance(packed, bool | int | float | str):
        return packed
    if isinstance(packed, list):
        return [unpack(one, tensors) for one in packed]
    kind, value = packed.get(_KIND), packed.get(_VALUE)
    if kind == "float":
        return float(value)
    if kind == "tensor" and value in tensors:
        return tensors[value]
    if kind == "tuple":
        return tuple(unpack(value, tensors))
    if kind in _MAPPINGS:
        made = _MAPPINGS[kind]((unpack(key, tensors), unpack(one, tensors)) for key, one in value)
        if "metadata" in packed:
            made._metadata = unpack(packed["metadata"], tensors)
        return made
    raise CheckpointError(f"checkpoint: damaged, expected a state, got {kind!r}.")


_MAPPINGS: dict[str, Any] = {"dict": dict, "OrderedDict": OrderedDict, "Counter": lambda pairs: Counter(dict(pairs))}
