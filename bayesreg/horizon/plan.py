"""How long a run is, and how its learning rates go."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bayesreg._support import checks
from bayesreg.errors import InvalidArgumentError
from bayesreg.horizon.rates import Rates, ScheduleLike, as_rates, rates_over

__all__ = ["MOST", "Plan", "Shape", "plan_of"]

#: Steps of a run: the learning rates of all are held at once.
MOST = 20_000_000


@dataclass(frozen=True)
class Shape:
    """A schedule that settings name, as shares of the learning rate.

    Attributes:
        of: From the number of steps to the shares.
    """

    of: Callable[[int], Rates]


@dataclass(frozen=True)
class Plan:
    """A run before it ran.

    Attributes:
        steps: T, of the optimizer.
        epochs: Passes over the data; None where they are not known.
        schedule: How the learning rates go; None: they stay.
        warmup: Of a schedule by name.
    """

    steps: int
    epochs: float | None = None
    schedule: ScheduleLike | Shape | None = None
    warmup: float | None = None

    def rates(self, peaks: Sequence[float], groups: Sequence[Mapping[str, Any]]) -> list[Rates]:
        """Return the learning rate of each group at each step.

        Args:
            peaks: The learning rate of each group.
            groups: Their settings.
        """
        if isinstance(self.schedule, Shape):
            shape = self.schedule.of(self.steps)
            return [peak * shape for peak in peaks]
        return rates_over(self.schedule, peaks, self.steps, self.warmup, groups)


def plan_of(
    num_data: int | None,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    schedule: ScheduleLike | Shape | None = None,
    warmup: float | None = None,
    drop_last: bool = False,
) -> Plan | None:
    """Return the plan that arguments say; None where they say no length.

    Args:
        num_data: n, where it is known.
        batch_size: Examples per optimizer step, over all devices and accumulated batches.
        steps: Optimizer steps in all.
        epochs: Passes over the data, in place of steps.
        schedule: How the learning rates go; T of them also say how many steps there are.
        warmup: Of a schedule by name.
        drop_last: Whether the last, smaller batch of an epoch takes no step.

    Returns:
        The plan.

    Raises:
        InvalidArgumentError: If the arguments do not fit together.
    """
    if steps is not None and epochs is not None:
        raise InvalidArgumentError("steps: pass steps or epochs, not both.")
    if batch_size is not None:
        checks.positive_int("batch_size", batch_size)
    if epochs is not None:
        passes = checks.positive_float("epochs", epochs)
        if batch_size is None or num_data is None:
            missing = "batch_size=" if batch_size is None else "num_data= as a number"
            raise InvalidArgumentError(f"epochs: needs {missing} to be counted in steps; or pass steps=.")
        each = num_data // batch_size if drop_last else -(-num_data // batch_size)
        length = max(1, math.ceil(passes * each - 1e-9))
    elif steps is not None:
        length = checks.positive_int("steps", steps)
    else:
        if schedule is not None and not isinstance(schedule, str | Shape) and not callable(schedule):
            length = len(as_rates(schedule))
        else:
            said = {"batch_size": batch_size, "schedule": schedule, "warmup": warmup}
            given = next((name for name, value in said.items() if value is not None), None)
            if given is not None:
                raise InvalidArgumentError(f"{given}: plays no part without the length of the run; pass steps= too.")
            return None
    if length > MOST:
        raise InvalidArgumentError(
            f"steps: expected at most {MOST:,} for a run, got {length if length < 10**15 else 'more'}."
        )
    if epochs is None and batch_size is not None and num_data is not None:
        epochs = length * batch_size / num_data
    return Plan(length, epochs, schedule, warmup)
