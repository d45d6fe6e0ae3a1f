"""The NLL of each example near an output, in closed form."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Local"]


class Local(NamedTuple):
    """NLL, slope and Hessian of each example in its outputs; the Hessian is diag(diagonal) − outer·outerᵀ.

    Attributes:
        nll: (n,), nats, with all constants.
        slope: (n, outputs).
        diagonal: (n, outputs); a number where it is the same everywhere and always.
        outer: (n, outputs); None where the outputs of an example do not meet.
    """

    nll: Tensor
    slope: Tensor
    diagonal: Tensor | float
    outer: Tensor | None = None
