"""Whether `handle.apply_()` was called where it belongs: once per step, on fresh, unscaled gradients."""

from __future__ import annotations

import sys
import weakref

from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState
from torch.optim import Optimizer

from bayesreg.errors import InvalidArgumentError

__all__ = ["Applications"]

# Between the hook and GradScaler.step lie torch's own wrappers only.
_DEPTH = 8


class Applications:
    """What is known of the calls of `apply_` on one optimizer."""

    def __init__(self) -> None:
        self._grad: tuple[Tensor, int] | None = None
        self._scaler: weakref.ref[GradScaler] | None = None

    def check(self, optimizer: Optimizer, applied: bool) -> None:
        """Raise if the prior's gradient would be added to nothing, twice, or to gradients that are still scaled.

        Args:
            optimizer: The optimizer.
            applied: Whether it was added since the last step.

        Raises:
            InvalidArgumentError: If so.
        """
        grad = _first_grad(optimizer)
        if grad is None:
            raise InvalidArgumentError("apply_(): there are no gradients yet; call it after backward().")
        scaler = self._scaler() if self._scaler is not None else None
        # A skipped step leaves its gradients behind, and zero_grad(set_to_none=False) their tensors.
        untouched = scaler is None or (self._grad is not None and self._grad[1] == grad._version)
        if applied and self._grad is not None and self._grad[0] is grad and untouched:
            raise InvalidArgumentError(
                "apply_() was called twice before one step, so the prior would count twice; with gradient accumulation "
                "call it once, after the last backward()."
            )
        if scaler is not None:
            stage = scaler._per_optimizer_states[id(optimizer)]["stage"]
            if stage is not OptState.UNSCALED:
                raise InvalidArgumentError(
                    "apply_(): the gradients are still multiplied by the GradScaler's scale, so the prior would be "
                    "lost; call scaler.unscale_(optimizer) before it."
                )

    def note(self, optimizer: Optimizer) -> None:
        """Remember the gradients that the prior was added to."""
        grad = _first_grad(optimizer)
        self._grad = None if grad is None else (grad, grad._version)

    def forget(self) -> None:
        """Let go of the gradients: their step is taken."""
        self._grad = None

    def find_scaler(self) -> None:
        """Look whether this step is taken by a GradScaler; from the next `apply_` on, its state is checked."""
        if self._scaler is not None and self._scaler() is not None:
            return
        frame = sys._getframe(2)
        for _ in range(_DEPTH):
            scaler = frame.f_locals.get("self") if frame.f_code.co_filename == _SCALER_FILE else None
            if isinstance(scaler, GradScaler) and scaler.is_enabled():
                self._scaler = weakref.ref(scaler)
                return
            if frame.f_back is None:
                return
            frame = frame.f_back


_SCALER_FILE = GradScaler.step.__code__.co_filename


def _first_grad(optimizer: Optimizer) -> Tensor | None:
    return next((p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None), None)
