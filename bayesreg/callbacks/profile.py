"""A profiler that is told of every step."""

from __future__ import annotations

from typing import Any

from bayesreg._support.calls import answering
from bayesreg.callbacks.base import Callback, Training
from bayesreg.errors import InvalidArgumentError, kind_of

__all__ = ["Profile"]


class Profile(Callback):
    """Run a torch profiler over the training: started before the first step, told of each, stopped at the end.

    Args:
        profiler: A `torch.profiler.profile`, with a schedule of its own; or anything with start, step and stop.

    Raises:
        InvalidArgumentError: If it has no such methods.

    Example:
        >>> import torch, bayesreg as br
        >>> profiler = torch.profiler.profile(schedule=torch.profiler.schedule(wait=1, warmup=1, active=3))
        >>> profile = br.callbacks.Profile(profiler)
    """

    @answering
    def __init__(self, profiler: Any) -> None:
        if not all(callable(getattr(profiler, name, None)) for name in ("start", "step", "stop")):
            raise InvalidArgumentError(
                f"profiler: expected a torch.profiler.profile(...), which has start, step and stop, got "
                f"{kind_of(profiler)}."
            )
        self.profiler = profiler
        self._started = False

    def on_start(self, training: Training) -> None:
        """Start the profiler."""
        self.profiler.start()
        self._started = True

    def on_step(self, training: Training) -> None:
        """Tell it of a step."""
        self.profiler.step()

    def on_end(self, training: Training) -> None:
        """Stop it."""
        if self._started:
            self.profiler.stop()
            self._started = False
