"""The learning rates of a run, step by step, from whatever says how they go."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.optim import Optimizer

from bayesreg._support.calls import TELLING
from bayesreg.errors import InvalidArgumentError, kind_of
from bayesreg.horizon.schedules import check_schedule

__all__ = ["Rates", "ScheduleLike", "as_rates", "rates_over", "shape_by_name"]

Rates: TypeAlias = npt.NDArray[np.float64]
#: A name, a factory optimizer → torch scheduler, or learning rates: T of them, or (T, groups).
ScheduleLike: TypeAlias = "str | Callable[[Optimizer], Any] | Sequence[float] | npt.NDArray[Any] | torch.Tensor"


def shape_by_name(name: str, steps: int, warmup: float | None = None) -> Rates:
    """Return a schedule by name as shares of its peak, as `bayesreg.MAPTrainer` and most libraries have it.

    Args:
        name: "constant", "linear" or "cosine".
        steps: T.
        warmup: Steps, or a share of all; from 1/warmup up in equal parts.

    Returns:
        (T,), from 0 to 1.

    Raises:
        InvalidArgumentError: If the warm-up leaves no step.
    """
    rising = round(warmup * steps) if isinstance(warmup, float) else int(warmup or 0)
    if rising >= steps:
        raise InvalidArgumentError(f"warmup: expected fewer steps than the {steps:,} of the run, got {rising:,}.")
    left = np.arange(steps - rising) / (steps - rising)
    falling = {"constant": np.ones_like(left), "linear": 1.0 - left, "cosine": 0.5 * (1.0 + np.cos(np.pi * left))}
    return np.concatenate([np.arange(1, rising + 1) / max(rising, 1), falling[name]])


def rates_over(
    schedule: ScheduleLike | None,
    peaks: Sequence[float],
    steps: int,
    warmup: float | None = None,
    groups: Sequence[Mapping[str, Any]] | None = None,
) -> list[Rates]:
    """Return the learning rate of each param group at each step.

    Args:
        schedule: How they go; None: constant.
        peaks: The learning rate of each group.
        steps: T.
        warmup: Of a schedule by name.
        groups: Settings of the groups, for factories that look at more than the learning rate.

    Returns:
        (T,) for each group.

    Raises:
        InvalidArgumentError: If it is none of these, or does not fit the run.
    """
    check_schedule(schedule if isinstance(schedule, str) or callable(schedule) else None, warmup, "schedule")
    if schedule is None or isinstance(schedule, str):
        shape = shape_by_name(schedule or "constant", steps, warmup)
        return [peak * shape for peak in peaks]
    if warmup is not None:
        raise InvalidArgumentError("warmup: is for the schedules by name; one of your own has its own.")
    if callable(schedule):
        return _by_factory(schedule, peaks, steps, groups or [{} for _ in peaks])
    return _as_given(schedule, peaks, steps)


def as_rates(schedule: object) -> Rates:
    """Return learning rates that were given one by one.

    Args:
        schedule: A list, an array or a tensor of them.

    Returns:
        (T,) or (T, groups).

    Raises:
        InvalidArgumentError: If they are none.
    """
    try:
        given = np.array(schedule.tolist() if isinstance(schedule, torch.Tensor) else schedule, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
        raise InvalidArgumentError(
            f"schedule: expected 'constant', 'linear', 'cosine', a factory optimizer -> scheduler or learning rates, "
            f"got {kind_of(schedule)}."
        ) from error
    if given.ndim not in (1, 2) or not given.size:
        raise InvalidArgumentError(f"schedule: expected learning rates, one per step, got shape {given.shape}.")
    if not np.isfinite(given).all() or (given < 0.0).any():
        raise InvalidArgumentError("schedule: expected learning rates >= 0, got NaN, infinity or numbers below 0.")
    return given


def _as_given(schedule: object, peaks: Sequence[float], steps: int) -> list[Rates]:
    given = as_rates(schedule)
    if given.shape not in ((steps,), (steps, len(peaks))):
        raise InvalidArgumentError(
            f"schedule: expected {steps:,} learning rates, one per step, or {(steps, len(peaks))} of them, got shape "
            f"{given.shape}."
        )
    if given.ndim == 2:
        return list(given.T)
    largest = max(peaks, default=0.0)
    # Those of the fastest group; the others go with it.
    return [given * (peak / largest if largest else 1.0) for peak in peaks]


class _Still(Optimizer):
    """An optimizer for schedulers to act on, whose steps do nothing."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Do nothing."""


def _by_factory(
    factory: Callable[[Optimizer], Any], peaks: Sequence[float], steps: int, groups: Sequence[Mapping[str, Any]]
) -> list[Rates]:
    own = [
        {**{k: v for k, v in group.items() if k not in ("params", "initial_lr")}, "lr": peak, "params": [_weight()]}
        for peak, group in zip(peaks, groups, strict=True)
    ]
    still = _Still(own, {"lr": 0.0, "momentum": 0.0, "betas": (0.9, 0.999)})
    try:
        scheduler = factory(still)
    except TELLING as error:
        raise InvalidArgumentError(
            f"schedule: expected a factory optimizer -> scheduler, got {getattr(factory, '__name__', factory)}, which "
            f"raised {type(error).__name__}: {error}."
        ) from error
    if isinstance(scheduler, Optimizer) or not callable(getattr(scheduler, "step", None)):
        raise InvalidArgumentError(
            f"schedule: expected a factory optimizer -> scheduler, which has step(), got one that returns "
            f"{kind_of(scheduler)}."
        )
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise InvalidArgumentError(
            "schedule: ReduceLROnPlateau goes by what a run measures; pass the learning rates that it took."
        )
    found = np.empty((steps, len(peaks)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(steps):
            found[step] = [float(group["lr"]) for group in still.param_groups]
            still.step()
            if step + 1 < steps:
                scheduler.step()
    if not np.isfinite(found).all():
        raise InvalidArgumentError("schedule: expected learning rates that are numbers, got NaN or infinity.")
    return list(found.T)


def _weight() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(1))
