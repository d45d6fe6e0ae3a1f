"""How to train by epochs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from bayesreg._support import checks
from bayesreg.callbacks import Callback
from bayesreg.errors import InvalidArgumentError, kind_of
from bayesreg.horizon.schedules import check_schedule
from bayesreg.trainer.averaging import WeightAverage

__all__ = ["EpochSettings", "Keeping"]

_EPOCHS = 100
# Which way is better.
_LOWER, _HIGHER = ("val_nll", "val_mse", "val_loss"), ("val_accuracy", "val_token_accuracy")


@dataclass(frozen=True)
class Keeping:
    """Where and how often a run's state is kept; the fields are `MAPTrainer`'s arguments.

    Raises:
        InvalidArgumentError: If one is out of range, or there is no folder.
    """

    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        if self.checkpoint == "" or not (self.checkpoint is None or isinstance(self.checkpoint, str | os.PathLike)):
            given = "''" if self.checkpoint == "" else kind_of(self.checkpoint)
            raise InvalidArgumentError(f"checkpoint: expected the path of a folder, such as 'runs/a', got {given}.")
        if self.checkpoint_every is not None:
            checks.positive_int("checkpoint_every", self.checkpoint_every)
            if self.checkpoint is None:
                raise InvalidArgumentError("checkpoint_every: needs a folder; pass checkpoint='runs/a' too.")


@dataclass(frozen=True)
class EpochSettings:
    """How to train by epochs; the fields are `MAPTrainer`'s arguments.

    Raises:
        InvalidArgumentError: If a number is out of range, or mixed_precision or scheduler_interval not known.
    """

    scheduler: Callable[[Optimizer], Any] | str | None = None
    scheduler_interval: str = "step"
    warmup: float | None = None
    max_epochs: int | None = None
    max_steps: int | None = None
    evaluate_every: int | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    patience: int | None = None
    restore_best: bool = True
    mixed_precision: str = "no"
    cpu: bool = False
    on_epoch_end: Callable[[dict[str, Any]], bool | None] | None = None
    callbacks: Sequence[Callback] = ()
    monitor: str = "val_nll"
    monitor_mode: str | None = None
    average: WeightAverage | str | None = None
    deterministic: bool = False
    measure: bool = True

    def __post_init__(self) -> None:
        check_schedule(self.scheduler, self.warmup)
        if isinstance(self.scheduler, str | None) and self.warmup is not None and self.scheduler is None:
            object.__setattr__(self, "scheduler", "constant")
        if self.scheduler_interval == "epoch" and not callable(self.scheduler):
            why = "there is no scheduler" if self.scheduler is None else f"{self.scheduler!r} goes by steps"
            raise InvalidArgumentError(f"scheduler_interval: {why}; leave it out.")
        object.__setattr__(self, "callbacks", _callbacks(self.callbacks))
        object.__setattr__(self, "average", _average(self.average))
        if self.monitor_mode not in (None, "min", "max"):
            raise InvalidArgumentError(f"monitor_mode: expected 'min' or 'max', got {self.monitor_mode!r}.")
        for name in ("deterministic", "measure", "restore_best", "cpu"):
            checks.flag(name, getattr(self, name))
        for name in ("max_epochs", "max_steps", "evaluate_every", "patience"):
            if getattr(self, name) is not None:
                checks.positive_int(name, getattr(self, name))
        checks.positive_int("accumulate", self.accumulate)
        if self.clip_norm is not None:
            object.__setattr__(self, "clip_norm", checks.positive_float("clip_norm", self.clip_norm))
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise InvalidArgumentError(
                f"mixed_precision: expected 'no', 'bf16' or 'fp16', got {self.mixed_precision!r}."
            )
        if self.scheduler_interval not in ("step", "epoch"):
            raise InvalidArgumentError(
                f"scheduler_interval: expected 'step' or 'epoch', got {self.scheduler_interval!r}."
            )

    @property
    def sign(self) -> float:
        """1 where a lower value of what is monitored is better, −1 where a higher one is."""
        if self.monitor_mode is not None:
            return 1.0 if self.monitor_mode == "min" else -1.0
        if self.monitor in _LOWER:
            return 1.0
        if self.monitor in _HIGHER:
            return -1.0
        raise InvalidArgumentError(
            f"monitor_mode: whether a higher or a lower {self.monitor} is better is not known; pass 'max' or 'min'."
        )

    @property
    def epochs(self) -> float:
        """How many epochs there are at most: as many as the steps need where only those are given."""
        if self.max_epochs is not None:
            return self.max_epochs
        return _EPOCHS if self.max_steps is None else math.inf

    @property
    def steps(self) -> float:
        """How many optimizer steps there are at most."""
        return math.inf if self.max_steps is None else self.max_steps


def _callbacks(given: object) -> tuple[Callback, ...]:
    several = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str | bytes) else (given,)
    for one in several:
        if not isinstance(one, Callback):
            raise InvalidArgumentError(
                f"callbacks: expected objects of br.callbacks.Callback, or of a class made from it, got {kind_of(one)}."
            )
    return several


def _average(given: object) -> WeightAverage | None:
    if given is None or isinstance(given, WeightAverage):
        return given
    if given in ("ema", "swa"):
        return WeightAverage(given)
    raise InvalidArgumentError(f"average: expected 'ema', 'swa' or a br.WeightAverage(...), got {given!r}.")
