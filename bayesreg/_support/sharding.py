"""Sharded parameters (DTensor): work on the local shard, sum over the mesh dimensions that shard and no others."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["gather_sum", "is_sharded", "local", "shard_like", "whole"]


def is_sharded(tensor: Tensor) -> bool:
    """Return whether it is a DTensor; costs nothing where none can exist."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a DTensor, differentiably; any other tensor as it is."""
    if not is_sharded(tensor):
        return tensor
    shard: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return shard


def whole(tensor: Tensor) -> Tensor:
    """Return all of a DTensor, which every process must ask for at once; any other tensor as it is."""
    if not is_sharded(tensor):
        return tensor
    full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return full


def shard_like(full: Tensor, parameter: Tensor) -> Tensor:
    """Return the part of a full tensor that belongs to this process's shard of `parameter`, without communication."""
    if not is_sharded(parameter):
        return full
    target: Any = parameter
    if is_sharded(full):
        source: Any = full
        return local(source.redistribute(target.device_mesh, target.placements))
    from torch.distributed.tensor import distribute_tensor

    # Every process holds the same tensor, so nothing needs to be sent; older versions of torch broadcast regardless.
    silent = {"src_data_rank": None} if "src_data_rank" in inspect.signature(distribute_tensor).parameters else {}
    whole = full.to(local(parameter).device).expand(parameter.shape).contiguous()
    return local(distribute_tensor(whole, target.device_mesh, target.placements, **silent))


def gather_sum(terms: Iterable[tuple[Tensor, Tensor]]) -> Tensor | None:
    """Add up scalar terms; those of sharded parameters over their shards too.

    The value is the whole sum on every process, the gradient is that of the process's own shards: a reduction inside
    the graph would count it once per process.

    Args:
        terms: Pairs of a scalar and the parameter it belongs to.

    Returns:
        The sum, None if there are no terms.
    """
    plain: list[Tensor] = []
    by_mesh: dict[tuple[Any, tuple[int, ...]], list[Tensor]] = {}
    for term, parameter in terms:
        if is_sharded(parameter):
            target: Any = parameter
            dims = tuple(i for i, placement in enumerate(target.placements) if placement.is_shard())
            by_mesh.setdefault((target.device_mesh, dims), []).append(term)
        else:
            plain.append(term)
    for (mesh, dims), shares in by_mesh.items():
        share = _add(shares)
        whole = share.detach().clone()
        for dim in dims:
            torch.distributed.all_reduce(whole, group=mesh.get_group(dim))
        plain.append(share + (whole - share).detach())
    return _add(plain) if plain else None


def _add(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term.to(total.device)
    return total
