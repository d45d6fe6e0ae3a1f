"""The training batches, epoch by epoch, from the beginning or from where a run was killed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from bayesreg.data import Batch, BatchFormat, to_device
from bayesreg.errors import CheckpointError

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Feed"]

# Their order follows from the generators as they are when an epoch begins.
_REPLAYED = (DistributedSampler, RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)


class Feed:
    """A loader that can begin an epoch in its middle.

    Args:
        accelerator: Device and processes.
        given: The batches, as the user gave them.
        loader: The same, as Accelerate prepared it where there are several processes.
        form: How to read them.
    """

    def __init__(
        self, accelerator: Accelerator, given: DataLoader[Any], loader: DataLoader[Any], form: BatchFormat
    ) -> None:
        self.given, self.loader, self.form, self.device = given, loader, form, accelerator.device
        # What Accelerate makes of a loader has such methods whether or not the loader does.
        self._stateful = accelerator.num_processes == 1 and all(
            callable(getattr(given, name, None)) for name in ("state_dict", "load_state_dict")
        )
        why = "" if self._stateful else _why_not(given)
        #: Whether the order of an epoch follows from the generators as they are when it begins.
        self.replays_epochs = not why
        #: Why an epoch cannot be begun in its middle, or nothing.
        self.cannot_resume_within = why or ("several processes share it" if accelerator.num_processes > 1 else "")

    @property
    def generators(self) -> list[torch.Generator | None]:
        """The generators that the order of the examples comes from."""
        given = self.given
        inner = getattr(given.batch_sampler, "sampler", None)
        return [getattr(one, "generator", None) for one in (given, given.sampler, inner)]

    def state(self) -> dict[str, Any] | None:
        """Return where the loader is, if it tells itself."""
        return dict(self.loader.state_dict()) if self._stateful else None  # type: ignore[attr-defined]

    def epoch(self, number: int, *, done: int = 0, state: dict[str, Any] | None = None) -> Iterator[Batch]:
        """Begin an epoch.

        Args:
            number: Of the epoch, from 1.
            done: How many of its batches were met before; the generators are as they were when it began.
            state: Where the loader was, if it tells itself.

        Returns:
            The batches that are left, on the device.

        Raises:
            CheckpointError: If it cannot be begun in its middle, and should be.
        """
        for one in (self.given.dataset, self.given.sampler, self.given.batch_sampler):
            if callable(set_epoch := getattr(one, "set_epoch", None)):
                set_epoch(number - 1)
        loader = self.loader
        if state is not None:
            loader.load_state_dict(state)  # type: ignore[attr-defined]
        elif done and self.cannot_resume_within:
            raise CheckpointError(
                f"resume: the run ended in the middle of an epoch, which cannot be begun there, as "
                f"{self.cannot_resume_within}: it can be looked at, with the same max_steps, and not gone on with."
            )
        elif done and loader.num_workers == 0 and loader.batch_sampler is not None:
            loader, done = _from(loader, done), 0
        batches = iter(loader)
        # The last window may have been shorter than the others: there may be fewer.
        for _ in islice(batches, done if state is None else 0):
            pass
        return self._read(batches)

    def _read(self, batches: Iterator[Any]) -> Iterator[Batch]:
        for batch in batches:
            yield to_device(self.form(batch), self.device)


def _why_not(loader: DataLoader[Any]) -> str:
    """Return why the order of an epoch cannot be replayed, or nothing."""
    if isinstance(loader.dataset, IterableDataset):
        return "a stream has no places to go back to"
    by_batch = loader.batch_sampler
    if by_batch is not None and type(by_batch) is not BatchSampler:
        return f"the order of {type(by_batch).__name__} is its own"
    sampler = loader.sampler if by_batch is None else by_batch.sampler
    if type(sampler) not in _REPLAYED:
        return f"the order of {type(sampler).__name__} is its own"
    if loader.num_workers and loader.persistent_workers:
        return "workers that stay (persistent_workers=True) draw on from epoch to epoch"
    return ""


def _from(loader: DataLoader[Any], done: int) -> DataLoader[Any]:
    """Return the loader without its first batches: none of their examples is read."""
    # What a loader draws for its workers comes before what its sampler draws.
    iter(loader)
    indices = iter(loader.batch_sampler or ())
    for _ in islice(indices, done):
        pass
    return DataLoader(
        loader.dataset, batch_sampler=_Going(indices), collate_fn=loader.collate_fn, pin_memory=loader.pin_memory,
        generator=loader.generator,
    )  # fmt: skip


class _Going(Sampler[list[int]]):
    """A batch sampler that has begun; some draw once more at their end."""

    def __init__(self, indices: Iterator[list[int]]) -> None:
        self._indices = indices

    def __iter__(self) -> Iterator[list[int]]:
        return self._indices
