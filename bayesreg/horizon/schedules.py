"""Learning-rate schedules by name, with a warm-up, made of torch's own."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, SequentialLR

from bayesreg.errors import InvalidArgumentError

__all__ = ["SCHEDULES", "ScheduleName", "check_schedule", "named_schedule"]

ScheduleName = Literal["constant", "linear", "cosine"]
#: Their names.
SCHEDULES = ("constant", "linear", "cosine")


def check_schedule(scheduler: object, warmup: object, name: str = "scheduler") -> None:
    """Raise if this is no schedule, or the warm-up none that it can have.

    Args:
        scheduler: A name, a factory or None.
        warmup: Steps, a share of all of them, or None.
        name: What the first is called where it was given.

    Raises:
        InvalidArgumentError: If it is.
    """
    if isinstance(scheduler, str) and scheduler not in SCHEDULES:
        raise InvalidArgumentError(
            f"{name}: expected {', '.join(map(repr, SCHEDULES))} or a factory optimizer -> scheduler, got "
            f"{scheduler!r}."
        )
    if warmup is None:
        return
    if scheduler is not None and not isinstance(scheduler, str):
        raise InvalidArgumentError(
            "warmup: is for the schedules by name ('constant', 'linear', 'cosine'); one of your own has its own."
        )
    share = isinstance(warmup, float) and 0.0 <= warmup < 1.0
    if isinstance(warmup, bool) or not (share or (isinstance(warmup, int) and warmup >= 0)):
        raise InvalidArgumentError(f"warmup: expected a number of steps, or a share in [0, 1), got {warmup!r}.")


def named_schedule(optimizer: Optimizer, name: str, warmup: float | None, total: float) -> Any:
    """Return a schedule over all steps: up to the optimizer's learning rate, and as its name says from there to 0.

    Args:
        optimizer: The optimizer.
        name: "constant", "linear" or "cosine".
        warmup: Steps, or a share of all; from lr/warmup up in equal parts.
        total: Optimizer steps in all.

    Returns:
        The scheduler, stepped after each step.

    Raises:
        InvalidArgumentError: If the number of steps is not known, or the warm-up leaves none.
    """
    share = isinstance(warmup, float)
    if math.isinf(total) and (share or name != "constant"):
        raise InvalidArgumentError(
            f"scheduler: {name!r} needs to know how many steps there will be; pass max_steps=, or data whose length is "
            f"known."
        )
    rising = round(warmup * total) if share and warmup else int(warmup or 0)
    if rising >= total:
        raise InvalidArgumentError(f"warmup: expected fewer steps than the {total:g} of the training, got {rising}.")
    left = int(total) - rising if not math.isinf(total) else 0
    main: Any
    if name == "cosine":
        main = CosineAnnealingLR(optimizer, T_max=left)
    elif name == "linear":
        main = LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=left)
    else:
        main = ConstantLR(optimizer, factor=1.0, total_iters=0)
    if not rising:
        return main
    up = LinearLR(optimizer, start_factor=1.0 / rising, total_iters=rising - 1)
    return _InTurn(optimizer, [up, main], milestones=[rising])


class _InTurn(SequentialLR):
    """Torch's own, which up to torch 2.6 warns of itself where one schedule takes over from another."""

    def step(self) -> None:  # type: ignore[override]
        if self.last_epoch + 1 not in self._milestones:
            # Filters are not touched in every step: what was warned of once would be warned of again.
            super().step()
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The epoch parameter in `scheduler.step", UserWarning)
            super().step()
