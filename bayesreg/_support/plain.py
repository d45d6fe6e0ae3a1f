"""Tensors as plain values, for pickles that are equal where their content is."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["Plain", "from_plain", "to_plain"]

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
