"""Values by their content: tensors as plain values for pickles, and whether two values are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform

__all__ = ["Plain", "alike", "from_plain", "to_plain"]

#: Dtype and a NumPy array; one word for no tensor.
Plain: TypeAlias = tuple[Any, ...]


def to_plain(tensor: Tensor | None) -> Plain | None:
    """Return a tensor as plain values.

    Args:
        tensor: The tensor, or None.

    Returns:
        The values; None where a tensor has none that could be kept so (on the meta device, sparse, a subclass).

    Example:
        >>> from_plain(to_plain(torch.ones(2, dtype=torch.bfloat16)))
        tensor([1., 1.], dtype=torch.bfloat16)
    """
    if tensor is None:
        return ("none",)
    if type(tensor) is not Tensor or tensor.is_meta or tensor.layout is not torch.strided or tensor.requires_grad:
        return None
    held = tensor.detach().cpu().contiguous()
    array = (held.view(torch.int16) if held.dtype is torch.bfloat16 else held).numpy().copy()
    return str(tensor.dtype).removeprefix("torch."), array


def from_plain(values: Plain) -> Tensor | None:
    """Return the tensor that `to_plain` took apart, on the CPU: priors follow the weights from there."""
    if values == ("none",):
        return None
    name, array = values
    dtype: torch.dtype = getattr(torch, name)
    tensor = torch.from_numpy(array.copy())
    return tensor.view(dtype) if dtype is torch.bfloat16 else tensor


def alike(one: Any, other: Any) -> bool:
    """Return whether two values are the same by their content.

    Args:
        one: A number, word or tensor; a prior, or anything that has `same_as`; a distribution; mappings and lists of
            these.
        other: The other.

    Returns:
        Whether they are; a tensor's dtype plays no part where both hold the same numbers.

    Example:
        >>> alike({"scale": torch.ones(2)}, {"scale": torch.ones(2).double()}), alike([1.0], [2.0])
        (True, False)
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        if not all(isinstance(value, Tensor | float | int) for value in (one, other)):
            return False
        here, there = torch.as_tensor(one).detach(), torch.as_tensor(other).detach()
        wide = torch.promote_types(here.dtype, there.dtype)
        return here.shape == there.shape and torch.equal(here.to("cpu", wide), there.to("cpu", wide))
    if isinstance(one, Distribution | Transform):
        # What begins with an underscore is kept for speed, or says how to check.
        if type(one) is not type(other):
            return False
        mine, theirs = ({k: v for k, v in vars(value).items() if not k.startswith("_")} for value in (one, other))
        return alike(mine, theirs)
    return bool(one.same_as(other) if hasattr(one, "same_as") else one == other)
