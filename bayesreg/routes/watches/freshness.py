"""Whether the gradients of a step have the prior in them already: those of a step that failed, or is repeated."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor

from bayesreg.routes.planning.plan import GroupPlan

__all__ = ["Freshness"]

_SAMPLE = 16


class Freshness:
    """Remembers one gradient as it was left.

    Args:
        plans: The routes; of the smallest parameter whose gradient the prior is added to the gradient is remembered.
    """

    def __init__(self, plans: Iterable[GroupPlan]) -> None:
        parameters = [m.parameter for plan in plans for m in plan.on("gradient", "native + centre", "decoupled")]
        self._parameter: Tensor | None = min(parameters, key=Tensor.numel, default=None)
        self._left: tuple[weakref.ref[Tensor], int, Tensor] | None = None

    def note(self) -> None:
        """Remember the gradient as it is now, the prior's among it."""
        grad = None if self._parameter is None else self._parameter.grad
        self._left = None if grad is None else (weakref.ref(grad), grad._version, _sample(grad))

    def note_changes(self) -> None:
        """Remember what the step itself made of the gradient."""
        grad = None if self._parameter is None else self._parameter.grad
        if self._left is not None and grad is not None and self._left[1] != grad._version and self._left[0]() is grad:
            self.note()

    def is_stale(self) -> bool:
        """Return whether it is the same gradient still, to which the prior was added."""
        if self._left is None or self._parameter is None:
            return False
        kept, version, sample = self._left
        grad = self._parameter.grad
        # Through .data values change and the version does not.
        return grad is not None and kept() is grad and grad._version == version and torch.equal(_sample(grad), sample)


def _sample(grad: Tensor) -> Tensor:
    # Looking at a gradient that is watched is no use of it.
    with torch._C.DisableTorchFunctionSubclass():
        return grad.detach().reshape(-1)[:_SAMPLE].clone()
