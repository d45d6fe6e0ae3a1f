"""What is known of the step that comes: what the loop has said, whether gradients are the same, whether it moves."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Held", "StepState", "held_gradients", "moves", "same_gradients"]


@dataclass(frozen=True)
class StepState:
    """What the loop has said since the last step; a step ends with a new one.

    Attributes:
        applied: The prior's gradient was added to these gradients.
        in_loss: The prior's value was added to this loss.
        clip_factor: By what the gradients were clipped.
        closure_calls: How often the step has called its closure; None without one.
    """

    applied: bool = False
    in_loss: bool = False
    clip_factor: float | None = None
    closure_calls: int | None = None


Held: TypeAlias = list[tuple[weakref.ref[Tensor], int]]


def held_gradients(optimizer: Optimizer) -> Held:
    """Return the gradients with their versions, without keeping them."""
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return [(weakref.ref(grad), grad._version) for grad in grads]


def same_gradients(before: Held, now: Held) -> bool:
    """Return whether gradients are still the same tensors with the same values."""
    alike = all(old() is new() and a == b for (old, a), (new, b) in zip(before, now, strict=False))
    return alike and len(before) == len(now)


def moves(group: Mapping[str, Any]) -> bool:
    """Return whether a learning rate moves anything; one on an accelerator is not read, one that is not there may."""
    rate: float | Tensor = group.get("lr", 1.0)
    return (isinstance(rate, Tensor) and rate.device.type != "cpu") or float(rate) != 0.0
