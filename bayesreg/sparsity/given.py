"""Data as users give them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bayesreg.errors import InvalidArgumentError

__all__ = ["as_tensors"]


def as_tensors(model: nn.Module, data: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    """Return inputs and targets as tensors, floating ones in the model's dtype.

    Args:
        model: The model.
        data: Two arrays or tensors of the same length.

    Returns:
        The tensors.

    Raises:
        InvalidArgumentError: If they are not two, or of different lengths.
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise InvalidArgumentError(f"data: expected a pair (inputs, targets), got {type(data).__name__}.")
    inputs, target = (torch.as_tensor(part) for part in data)
    if len(inputs) != len(target):
        raise InvalidArgumentError(f"data: expected as many inputs as targets, got {len(inputs)} and {len(target)}.")
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
    inputs, target = (part.to(dtype) if part.is_floating_point() else part for part in (inputs, target))
    return inputs, target
