"""Adding λ(θ − c) to gradients: the difference first, in pieces that stay in the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["add_differences_"]

# Elements of a piece: a workspace of this size costs no memory traffic on a CPU; an accelerator wants few launches.
_PIECE = {"cpu": 2**16}
_LARGE_PIECE = 2**24


def add_differences_(
    grads: Sequence[Tensor], values: Sequence[Tensor], locs: Sequence[Tensor], strength: float
) -> None:
    """Add strength · (value − loc) to each gradient, in place; exactly 0 where a value is on its centre.

    Args:
        grads: The gradients.
        values: As many weights.
        locs: As many centres, of the shape of their weights or numbers.
        strength: λ.

    Example:
        >>> grad, weight = torch.zeros(2), torch.tensor([0.1, 0.3])
        >>> add_differences_([grad], [weight], [torch.tensor([0.1, 0.1])], 0.5)
        >>> grad[0].item(), round(grad[1].item(), 6)
        (0.0, 0.1)
    """
    piece = _PIECE.get(grads[0].device.type, _LARGE_PIECE)
    few: list[tuple[Tensor, Tensor, Tensor]] = []
    gathered = 0
    for grad, value, loc in zip(grads, values, locs, strict=True):
        size = grad.numel()
        if size > piece:
            _in_pieces(grad, value, loc, strength, piece)
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


def _in_pieces(grad: Tensor, value: Tensor, loc: Tensor, strength: float, piece: int) -> None:
    alike = grad.is_contiguous() and value.is_contiguous() and (not loc.ndim or loc.is_contiguous())
    if not alike or (loc.ndim and loc.shape != value.shape):
        grad.add_(value - loc, alpha=strength)
        return
    flat, held = grad.view(-1), value.view(-1)
    centre = loc.view(-1) if loc.ndim else loc
    for start in range(0, flat.numel(), piece):
        here = slice(start, start + piece)
        flat[here].add_(held[here] - (centre[here] if loc.ndim else centre), alpha=strength)
