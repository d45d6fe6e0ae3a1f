"""Weighted sums over the examples of a linear layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Sums", "share_of"]


class Sums(NamedTuple):
    """Weighted sums over the examples, for each output (or for all alike).

    Attributes:
        total: Σh, (outputs,).
        mean: Of the features, (outputs, d); 0 without a bias.
        gram: Σh(φ − mean)(φ − mean)ᵀ, (outputs, d, d), or its diagonals, (outputs, d), of many features.
    """

    total: Tensor
    mean: Tensor
    gram: Tensor

    def times(self, factor: float) -> Sums:
        """Return the sums with all weights multiplied."""
        return Sums(self.total * factor, self.mean, self.gram * factor)


def share_of(total: Tensor) -> Tensor:
    """Return what is divided by: 1 where nothing counts."""
    return torch.where(total > 0.0, total, 1.0)
