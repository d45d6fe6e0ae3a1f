"""Whether the gradients of a step have the prior in them already: those of a step that failed, or is repeated."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor

from bayesreg._support.sharding import local
from bayesreg.routes.planning.plan import GroupPlan

__all__ = ["Freshness"]

_SAMPLE = 16


class Freshness:
    """Remembers one gradient as it was left.

    Args:
        plans: The routes; remembered is the gradient of the smallest parameter that the prior acts on and that has one.
    """

    def __init__(self, plans: Iterable[GroupPlan]) -> None:
        parameters = [m.parameter for plan in plans for m in plan.on("gradient", "native + centre", "decoupled")]
        usable = (p for p in parameters if p.numel() and not p.is_meta)
        self._parameters: list[Tensor] = sorted(usable, key=Tensor.numel)
        self._left: tuple[Tensor, weakref.ref[Tensor], int, Tensor] | None = None

    def note(self) -> None:
        """Remember the gradient as it is now, the prior's among it."""
        self._left = None
        for parameter in self._parameters:
            grad = parameter.grad
            if grad is not None:
                self._left = (parameter, weakref.ref(grad), grad._version, _sample(grad))
                return

    def note_changes(self) -> None:
        """Remember what the step itself made of the gradient."""
        if self._left is not None:
            parameter, kept, version, _ = self._left
            grad = parameter.grad
            if grad is not None and kept() is grad and grad._version != version:
                self._left = (parameter, kept, grad._version, _sample(grad))

    def is_stale(self) -> bool:
        """Return whether it is the same gradient still, to which the prior was added."""
        if self._left is None:
            return False
        parameter, kept, version, sample = self._left
        grad = parameter.grad
        # Through .data values change and the version does not.
        return grad is not None and kept() is grad and grad._version == version and torch.equal(_sample(grad), sample)


def _sample(grad: Tensor) -> Tensor:
    # Looking at a gradient that is watched is no use of it; of a sharded one this process looks at its own part.
    with torch._C.DisableTorchFunctionSubclass():
        return local(grad).detach().reshape(-1)[:_SAMPLE].clone()
