"""Everything of a run by epochs that changes beside weights and records, kept and put back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from bayesreg.data import Batch
from bayesreg.trainer.checkpoint.randomness import Randomness
from bayesreg.trainer.stepping.feed import Feed

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Run"]


class Run:
    """Optimizer, schedule, loss scaler, the order of the examples and all randomness.

    Args:
        accelerator: Processes.
        optimizer: The optimizer.
        scheduler: The schedule, or None.
        scaler: Of the loss, in float16.
        feed: The batches.
    """

    def __init__(
        self, accelerator: Accelerator, optimizer: Optimizer, scheduler: Any | None, scaler: Any, feed: Feed
    ) -> None:
        self._accelerator, self._optimizer, self._scheduler = accelerator, optimizer, scheduler
        self._scaler, self._feed = scaler, feed
        self._random = Randomness(feed.generators)
        self._epoch_began: dict[str, Any] | None = None
        self._left_off: dict[str, Any] | None = None

    def epoch(self, number: int, done: int, *, kept: bool) -> Iterator[Batch]:
        """Begin an epoch, or go on in one.

        Args:
            number: From 1.
            done: Batches of it that were met already.
            kept: Whether checkpoints are made, which need to know how it began.

        Returns:
            The batches that are left.
        """
        left_off, self._left_off = self._left_off, None
        if left_off is None or not done:
            self._epoch_began = self._random.state() if kept else None
            return self._feed.epoch(number)
        self._epoch_began = left_off["epoch_began"]
        self._random.restore(self._epoch_began)
        batches = self._feed.epoch(number, done=done, state=left_off["loader"])
        self._random.restore(self._own(left_off["random"]))
        return batches

    def state(self, within: int) -> dict[str, Any]:
        """Return all of it, in numbers, strings and tensors.

        Args:
            within: Steps done in the epoch at work.
        """
        return {
            "optimizer": self._optimizer.state_dict(),
            "scheduler": None if self._scheduler is None else self._scheduler.state_dict(),
            "scaler": self._scaler.state_dict(),
            "random": self._of_all(self._random.state()),
            "epoch_began": self._epoch_began if within else None,
            "loader": self._feed.state() if within else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put all of it back.

        Args:
            state: What `state` returned.
        """
        self._optimizer.load_state_dict(state["optimizer"])
        _in_full(self._optimizer, state["optimizer"])
        if self._scheduler is not None:
            self._scheduler.load_state_dict(state["scheduler"])
        self._scaler.load_state_dict(state["scaler"])
        self._random.restore(self._own(state["random"]))
        self._left_off = state

    def _of_all(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        if self._accelerator.num_processes == 1:
            return [state]
        from accelerate.utils import gather_object

        return list(gather_object([state]))

    def _own(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        own: dict[str, Any] = states[self._accelerator.process_index]
        return own


def _in_full(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Undo that loading casts states to the dtype of their weights: those of half weights may be in float32."""
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    for parameter, number in zip(held, numbers, strict=True):
        for name, value in state["state"].get(number, {}).items():
            loaded = optimizer.state[parameter].get(name)
            if isinstance(value, Tensor) and isinstance(loaded, Tensor) and loaded.dtype != value.dtype:
                optimizer.state[parameter][name] = value.to(loaded.device, copy=True)
