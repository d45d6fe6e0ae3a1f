"""A run in the words of those who had it: batch size, learning rate, data, and how long it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bayesreg._support import checks
from bayesreg.errors import InvalidArgumentError, kind_of, nearest
from bayesreg.horizon.plan import MOST, Plan
from bayesreg.horizon.schedules import SCHEDULES

__all__ = ["Run", "run_of"]

_NEEDED = ("batch_size", "lr", "num_data")
_LENGTHS = ("steps", "epochs")
_COURSE = ("schedule", "warmup")
_KEYS = (*_NEEDED, *_LENGTHS, *_COURSE)


@dataclass(frozen=True)
class Run:
    """What a weight decay is read and moved by.

    Attributes:
        batch_size: Examples per optimizer step.
        lr: The learning rate at its peak.
        num_data: n.
        steps: In all; None where it is not known.
        at_peak: Steps at the peak whose learning rates sum to as much as those of all steps.
        scheduled: Whether they went by a schedule; else each is taken for the peak.
        as_before: Which length it has from another run, "steps" or "epochs"; empty where it has its own, or none.
    """

    batch_size: float
    lr: float
    num_data: float
    steps: float | None
    at_peak: float | None
    scheduled: bool
    as_before: str = ""

    @property
    def epochs(self) -> float | None:
        """Passes over the data; None where the length is not known."""
        return None if self.steps is None else self.steps * self.batch_size / self.num_data


def run_of(name: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Run:
    """Return a run.

    Args:
        name: Of the argument.
        given: What is said of it.
        defaults: Of another run, for what is not.

    Returns:
        It, checked.

    Raises:
        InvalidArgumentError: If it lacks something, or has what it cannot have.
    """
    if not isinstance(given, Mapping):
        raise InvalidArgumentError(f"{name}: expected a mapping such as {{'batch_size': 64}}, got {kind_of(given)}.")
    for key in given:
        if key not in _KEYS:
            raise InvalidArgumentError(f"{name}: expected {', '.join(_KEYS)}, got {key!r}{nearest(str(key), _KEYS)}.")
    if "steps" in given and "epochs" in given:
        raise InvalidArgumentError(f"{name}: pass steps or epochs, not both.")
    own_length = any(key in given for key in _LENGTHS)
    held = {key: value for key, value in defaults.items() if not (own_length and key in _LENGTHS)}
    values = {**held, **given}
    missing = [key for key in _NEEDED if key not in values]
    if missing:
        raise InvalidArgumentError(f"{name}: expected {', '.join(missing)} too, got {', '.join(values) or 'nothing'}.")
    numbers = {
        key: checks.positive_float(f"{name} {key}", value) for key, value in values.items() if key not in _COURSE
    }
    if numbers["batch_size"] > numbers["num_data"]:
        raise InvalidArgumentError(
            f"{name} batch_size: expected at most num_data = {numbers['num_data']:g}, got {numbers['batch_size']:g}."
        )
    steps = numbers.get("steps")
    if "epochs" in numbers:
        steps = numbers["epochs"] * numbers["num_data"] / numbers["batch_size"]
    course = {key: values[key] for key in _COURSE if values.get(key) is not None}
    at_peak = _at_peak(name, numbers["lr"], steps, course) if course else steps
    as_before = "" if own_length else next((key for key in _LENGTHS if key in defaults), "")
    return Run(numbers["batch_size"], numbers["lr"], numbers["num_data"], steps, at_peak, bool(course), as_before)


def _at_peak(name: str, rate: float, steps: float | None, course: Mapping[str, Any]) -> float:
    schedule = course.get("schedule")
    if schedule is not None and not isinstance(schedule, str) and not callable(schedule):
        raise InvalidArgumentError(
            f"{name} schedule: expected {', '.join(map(repr, SCHEDULES))} or a factory optimizer -> scheduler, got "
            f"{kind_of(schedule)}."
        )
    if steps is None:
        raise InvalidArgumentError(f"{name} {next(iter(course))}: plays no part without steps or epochs; pass one too.")
    if not 0.5 <= steps <= MOST:
        raise InvalidArgumentError(f"{name} steps: expected 1 to {MOST:,} with a schedule, got {steps:g}.")
    try:
        [rates] = Plan(round(steps), None, schedule, course.get("warmup")).rates([rate], [{}])
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{name} {error}") from error
    return float(rates.sum() / rate)
