"""A matrix given as a product of thin factors: its weighted squares and their gradients, never forming it whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Factored", "energy", "pull"]

# Elements of the product that are formed at a time, where they have to be.
_CHUNK = 2**20


@dataclass(frozen=True)
class Factored:
    """A matrix left·right, p × q, whose elements are divided by `scale`.

    Attributes:
        left: (p, k).
        right: (k, q).
        scale: > 0: a scalar, or of shape (p, q), (p, 1) or (1, q).
    """

    left: Tensor
    right: Tensor
    scale: Tensor

    @property
    def thin(self) -> bool:
        """Whether the scale goes by rows or by columns, so that Gram matrices serve."""
        return self.scale.ndim == 0 or 1 in self.scale.shape

    def margins(self) -> tuple[Tensor, Tensor]:
        """Return the scale as one factor for rows and one for columns."""
        one, scale = self.left.new_ones(()), self.scale.to(self.left)
        by_columns = scale.ndim == 2 and scale.shape[0] == 1 and scale.shape[1] > 1
        return (one, scale) if by_columns else (scale, one)

    def blocks(self) -> Iterator[slice]:
        """Return slices of rows that cover all of them."""
        rows = max(1, _CHUNK // max(1, self.right.shape[1]))
        return (slice(start, start + rows) for start in range(0, len(self.left), rows))


def energy(matrix: Factored, *, wide: bool = False) -> Tensor:
    """Return ½·Σ(left·right/scale)²; differentiable.

    Args:
        matrix: The matrix.
        wide: Multiply in float64: where products of columns may cancel.

    Returns:
        A scalar.
    """
    if matrix.thin:
        over_rows, over_columns = matrix.margins()
        left, right = matrix.left / over_rows, matrix.right / over_columns
        if wide:
            left, right = left.to(torch.float64), right.to(torch.float64)
        return 0.5 * ((left.mT @ left) * (right @ right.mT)).sum().to(matrix.left.dtype)
    parts = [
        ((matrix.left[at] @ matrix.right) / matrix.scale[at].to(matrix.left)).square().sum() for at in matrix.blocks()
    ]
    return 0.5 * torch.stack(parts).sum()


@torch.no_grad()
def pull(matrix: Factored, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return M·right' and left'·M with M = left·right/scale² of the matrix.

    With the factors of the matrix itself these are the gradients of its energy.

    Args:
        matrix: The matrix.
        left: (p, r).
        right: (r, q).

    Returns:
        (p, r) and (r, q).
    """
    if matrix.thin:
        over_rows, over_columns = (margin.square() for margin in matrix.margins())
        up = (matrix.left @ (matrix.right @ (right / over_columns).mT)) / over_rows
        down = ((left / over_rows).mT @ matrix.left) @ matrix.right / over_columns
        return up, down
    up, down = torch.empty_like(left), torch.zeros_like(right)
    for at in matrix.blocks():
        scale = matrix.scale[at].to(matrix.left)
        block = (matrix.left[at] @ matrix.right).div_(scale).div_(scale)
        up[at] = block @ right.mT
        down += left[at].mT @ block
    return up, down
