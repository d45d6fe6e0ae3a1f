"""Groups of the elements of one parameter: rows, columns, channels, all of them, or each alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bayesreg.errors import InvalidArgumentError

__all__ = ["group_count", "group_size", "inside", "rows_are_whole", "total"]

# The dimensions a parameter needs, and the one whose indices tell groups apart.
_NEEDED = {"row": 1, "column": 2, "channel": 3, "tensor": 0, "element": 0}
_APART = {"row": 0, "channel": 0, "column": 1}


def inside(group: str, shape: Sequence[int], what: str, family: str) -> list[int]:
    """Return the dimensions along which a group extends.

    Args:
        group: What makes a group: "row", "column", "channel", "tensor" or "element".
        shape: Shape of the parameter.
        what: How a message calls it.
        family: The prior's name, for the message.

    Returns:
        The dimensions.

    Raises:
        InvalidArgumentError: If the parameter has too few.
    """
    if len(shape) < _NEEDED[group]:
        raise InvalidArgumentError(
            f"{family}(group={group!r}): expected {what} of {_NEEDED[group]} or more dimensions, got shape "
            f"{tuple(shape)}; give such parameters a rule before it, {{br.biases | br.norms: br.Flat(), ...}}."
        )
    if group == "element":
        return []
    return [dim for dim in range(len(shape)) if dim != _APART.get(group)]


def group_size(shape: Sequence[int], dims: Sequence[int]) -> int:
    """Return the number of elements of one group."""
    return math.prod([shape[dim] for dim in dims])


def group_count(shape: Sequence[int], dims: Sequence[int]) -> int:
    """Return the number of groups."""
    return math.prod([size for dim, size in enumerate(shape) if dim not in dims])


def rows_are_whole(parameter: Tensor) -> bool:
    """Return whether each row lies in one shard: along the first dimension, as FSDP makes them, or none."""
    placements: Sequence[Any] = getattr(parameter, "placements", ())
    return all(placement.is_replicate() or placement.is_shard(0) for placement in placements)


def total(values: Tensor, dims: list[int]) -> Tensor:
    """Sum over each group, keeping dimensions."""
    return values.sum(dims, keepdim=True) if dims else values
