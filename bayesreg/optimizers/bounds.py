"""Optimizers whose decay is a bound: they step by signs, of weights or of singular values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Bound", "bound_of"]

_SIGNS = ("lion", "clion", "lion8bit", "lion32bit", "pagedlion8bit", "pagedlion32bit")
_ORTHOGONAL = ("muon", "nmuon")


@dataclass(frozen=True)
class Bound:
    """What a decoupled decay keeps weights under.

    Attributes:
        size: 1/λ.
        spectral: Whether it bounds singular values; else each weight.
    """

    size: float
    spectral: bool

    @property
    def words(self) -> str:
        """The bound in words."""
        return f"1/weight_decay = {self.size:.4g}" + (" times what it scales updates by" if self.spectral else "")

    def gain(self, shape: Sequence[int], settings: Mapping[str, Any]) -> float:
        """Return what updates of a matrix are scaled by, as torch's Muon does.

        Args:
            shape: Of the matrix.
            settings: Of the param group.
        """
        if not self.spectral or len(shape) != 2:
            return 1.0
        rows, columns = max(1, shape[0]), max(1, shape[1])
        if settings.get("adjust_lr_fn") == "match_rms_adamw":
            return 0.2 * math.sqrt(max(rows, columns))
        return math.sqrt(max(1.0, rows / columns))


def bound_of(name: str, decay: float) -> Bound | None:
    """Return what an optimizer's decoupled decay keeps weights under; None where it is no bound, or not known.

    Args:
        name: Of the optimizer.
        decay: λ.

    Returns:
        The bound.

    References:
        Chen, Li and Liu (2025), Muon Optimizes Under Spectral Norm Constraints; Chen et al. (2024), Lion Secretly
        Solves Constrained Optimization.
    """
    plain = name.lower().replace("_", "")
    if not decay or plain not in (*_SIGNS, *_ORTHOGONAL):
        return None
    return Bound(1.0 / decay, plain in _ORTHOGONAL)
