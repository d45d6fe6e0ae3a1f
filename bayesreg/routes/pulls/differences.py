"""Adding λ(θ − c) to gradients: the difference first, in pieces that stay in the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["add_differences_"]

# On a CPU: up to so many elements tensors go together, as calls cost more than memory; larger ones in pieces
# through one workspace that is kept. An accelerator wants few launches.
_SMALL, _PIECE = 2**12, 2**19
_LARGE_PIECE = 2**24


def add_differences_(
    grads: Sequence[Tensor],
    values: Sequence[Tensor],
    locs: Sequence[Tensor],
    strength: float,
    work: dict[torch.dtype, Tensor] | None = None,
) -> None:
    """Add strength · (value − loc) to each gradient, in place; exactly 0 where a value is on its centre.

    Args:
        grads: The gradients.
        values: As many weights.
        locs: As many centres, of the shape of their weights or numbers.
        strength: λ.
        work: Workspaces by dtype, kept from call to call.

    Example:
        >>> grad, weight = torch.zeros(2), torch.tensor([0.1, 0.3])
        >>> add_differences_([grad], [weight], [torch.tensor([0.1, 0.1])], 0.5)
        >>> grad[0].item(), round(grad[1].item(), 6)
        (0.0, 0.1)
    """
    on_cpu = grads[0].device.type == "cpu"
    small, piece = (_SMALL, _PIECE) if on_cpu else (_LARGE_PIECE, _LARGE_PIECE)
    few: list[tuple[Tensor, Tensor, Tensor]] = []
    gathered = 0
    work = {} if work is None else work
    for grad, value, loc in zip(grads, values, locs, strict=True):
        size = grad.numel()
        if size > small:
            _in_pieces(grad, value, loc, strength, piece, work)
            continue
        if gathered + size > piece:
            _together(few, strength)
            few, gathered = [], 0
        few.append((grad, value, loc))
        gathered += size
    if few:
        _together(few, strength)


def _together(few: Sequence[tuple[Tensor, Tensor, Tensor]], strength: float) -> None:
    grads, values, locs = zip(*few, strict=True)
    torch._foreach_add_(grads, torch._foreach_sub(values, locs), alpha=strength)


def _in_pieces(
    grad: Tensor, value: Tensor, loc: Tensor, strength: float, piece: int, kept: dict[torch.dtype, Tensor]
) -> None:
    alike = grad.is_contiguous() and value.is_contiguous() and (not loc.ndim or loc.is_contiguous())
    if not alike or (loc.ndim and loc.shape != value.shape):
        grad.add_(value - loc, alpha=strength)
        return
    dtype = torch.result_type(value, loc)
    work = kept.get(dtype)
    size = value.numel()
    if work is None or work.numel() < min(piece, size) or work.device != value.device:
        work = kept[dtype] = torch.empty(min(piece, size), dtype=dtype, device=value.device)
    if size <= piece:
        grad.add_(torch.sub(value, loc, out=work[:size].view(value.shape)), alpha=strength)
        return
    parts = grad.view(-1).split(piece), value.view(-1).split(piece)
    centres = loc.view(-1).split(piece) if loc.ndim else [loc] * len(parts[0])
    for part, weights, here in zip(*parts, centres, strict=True):
        part.add_(torch.sub(weights, here, out=work[: part.numel()]), alpha=strength)
