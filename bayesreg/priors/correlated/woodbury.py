"""Quadratic forms of a covariance D + WW' over several tensors at once, chunk by chunk, without flattening them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesreg.errors import InvalidArgumentError

__all__ = ["Block", "capacitance_root", "gradient_", "log_determinant", "quadratic"]

# Elements per chunk on a CPU: a chunk of everything a pass touches stays in the cache.
_CHUNK = 2**18
# Of C: beyond it less than three digits of a penalty are left in float64.
_LARGEST = 1e-3 / torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Block:
    """The share of one tensor.

    Attributes:
        diag: D, of the tensor's shape or a scalar.
        rows: W' as (k, *shape).
        loc: The centre, of the tensor's shape or a scalar.
    """

    diag: Tensor
    rows: Tensor
    loc: Tensor

    def chunks(self, count: int, device: torch.device) -> Iterator[slice]:
        """Return slices that cover `count` elements."""
        size = _CHUNK if device.type == "cpu" else max(count, 1)
        return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _flat(held: Tensor, at: slice) -> Tensor:
    return held.reshape(-1)[at] if held.ndim else held


def capacitance_root(blocks: Sequence[Block]) -> Tensor:
    """Return the Cholesky factor of C = I + W'D⁻¹W, in float64.

    Args:
        blocks: The tensors' shares.

    Returns:
        L with C = LL', (k, k), on the CPU.

    Raises:
        InvalidArgumentError: If C is not positive definite up to rounding, or its largest entry is beyond it.
    """
    rank = len(blocks[0].rows)
    total = torch.eye(rank, dtype=torch.float64)
    for block in blocks:
        rows = block.rows.reshape(rank, -1)
        for at in block.chunks(rows.shape[1], rows.device):
            part = rows[:, at].to(torch.float64)
            total += (part @ (part / _flat(block.diag, at).to(torch.float64)).mT).cpu()
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(total)
    if not torch.compiler.is_compiling() and (int(failed) or float(total.diagonal().max()) > _LARGEST):
        raise InvalidArgumentError(
            "diag, factor: expected a covariance diag + factor·factor' that can be inverted in float64, got one whose "
            "diag is too small beside its factor; raise diag."
        )
    return root


def log_determinant(blocks: Sequence[Block], root: Tensor) -> Tensor:
    """Return log det (D + WW') in float64.

    Args:
        blocks: The tensors' shares.
        root: Of `capacitance_root`.

    Returns:
        A float64 scalar, on the CPU.
    """
    total = 2.0 * root.diagonal().log().sum()
    for block in blocks:
        count = block.rows[0].numel()
        if not block.diag.ndim:
            total = total + count * block.diag.to(total).log()
            continue
        for at in block.chunks(count, block.diag.device):
            total = total + _flat(block.diag, at).to(torch.float64).log().sum().to(total)
    return total


def quadratic(blocks: Sequence[Block], values: Sequence[Tensor], root: Tensor) -> Tensor:
    """Return ½·r'(D + WW')⁻¹r with r = value − loc, summed over tensors in float64; not differentiable.

    Args:
        blocks: The tensors' shares.
        values: The tensors.
        root: Of `capacitance_root`.

    Returns:
        A float64 scalar.
    """
    square, image = _first_pass(blocks, values, root, value=True)
    half: Tensor = torch.linalg.solve_triangular(root.to(image.device), image[:, None], upper=False)
    return 0.5 * (square - half.square().sum())


def gradient_(
    blocks: Sequence[Block],
    grads: Sequence[Tensor | None],
    values: Sequence[Tensor],
    root: Tensor,
    coefficient: float,
) -> None:
    """Add coefficient · (D + WW')⁻¹r to each gradient there is, in place.

    Args:
        blocks: The tensors' shares.
        grads: Gradients, changed in place; None where a tensor has none.
        values: The tensors.
        root: Of `capacitance_root`.
        coefficient: The loss scale s.
    """
    _, image = _first_pass(blocks, values, root, value=False)
    weights = torch.cholesky_solve(image[:, None], root.to(image.device))[:, 0]
    # (D + WW')⁻¹r = D⁻¹(r − W·C⁻¹W'D⁻¹r): the factor is read once more, nothing of its size is kept.
    for block, grad, value in zip(blocks, grads, values, strict=True):
        if grad is None:
            continue
        rows, flat = block.rows.reshape(len(block.rows), -1), value.reshape(-1)
        dtype = torch.promote_types(rows.dtype, flat.dtype)
        c = weights.to(flat.device, dtype)
        # A gradient in another memory order is filled through a copy.
        target = grad.view(-1) if grad.is_contiguous() else torch.zeros_like(flat, dtype=grad.dtype)
        work = torch.empty(_longest(flat), dtype=dtype, device=flat.device)
        for at in block.chunks(len(flat), flat.device):
            part = work[: at.stop - at.start]
            torch.sub(flat[at], _flat(block.loc, at), out=part)
            torch.addmv(part, rows[:, at].to(dtype).mT, c, alpha=-1.0, out=part)
            target[at].addcdiv_(part, _flat(block.diag, at), value=coefficient)
        if target.data_ptr() != grad.data_ptr():
            grad.add_(target.view(grad.shape))


def _first_pass(
    blocks: Sequence[Block], values: Sequence[Tensor], root: Tensor, *, value: bool
) -> tuple[Tensor, Tensor]:
    """Return r'D⁻¹r (0 unless `value`) and W'D⁻¹r, both accumulated over chunks in float64."""
    device = values[0].device
    square = torch.zeros((), dtype=torch.float64, device=device)
    image = torch.zeros(len(root), dtype=torch.float64, device=device)
    for block, tensor in zip(blocks, values, strict=True):
        rows, flat = block.rows.reshape(len(block.rows), -1), tensor.reshape(-1)
        dtype = torch.promote_types(rows.dtype, flat.dtype)
        offsets, scaled = (torch.empty(_longest(flat), dtype=dtype, device=flat.device) for _ in range(2))
        for at in block.chunks(len(flat), flat.device):
            count = at.stop - at.start
            offset, over = offsets[:count], scaled[:count]
            torch.sub(flat[at], _flat(block.loc, at), out=offset)
            torch.div(offset, _flat(block.diag, at), out=over)
            image += torch.mv(rows[:, at].to(dtype), over).to(torch.float64)
            if value:
                # torch.sum adds in a tree, torch.dot does not: it is a hundred times further off in float32.
                square += offset.mul_(over).sum().to(torch.float64)
    return square, image


def _longest(flat: Tensor) -> int:
    return min(len(flat), _CHUNK) if flat.device.type == "cpu" else len(flat)
