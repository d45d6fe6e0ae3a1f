"""How the fits are made: the arguments of `MAPTrainer` that `choose_strength` takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from bayesreg.errors import InvalidArgumentError, UnsupportedError, nearest
from bayesreg.trainer import MAPTrainer
from bayesreg.trainer.full_batch.problem import refuse_random

__all__ = ["require_settings", "stochastic_settings"]

#: Of a fit from scratch, as `MAPTrainer` takes them.
_TAKEN = (
    "optimizer", "scheduler", "scheduler_interval", "max_epochs", "batch_size", "accumulate", "clip_norm",
    "mixed_precision", "cpu", "progress",
)  # fmt: skip
_SOLVERS = ("lbfgs", "proximal")


def require_settings(settings: Mapping[str, Any], own: tuple[str, ...]) -> None:
    """Refuse what is no argument, or one that makes no sense where many fits are made.

    Args:
        settings: What was given by name.
        own: The other arguments of the call, for the message.

    Raises:
        InvalidArgumentError: If one is unknown, or decided by the choice itself.
    """
    trainer = inspect.signature(MAPTrainer.__init__).parameters
    for name in settings:
        if name in _TAKEN:
            continue
        if name in trainer:
            raise InvalidArgumentError(
                f"{name}: choose_strength sees to it itself; of MAPTrainer's arguments it takes {', '.join(_TAKEN)}."
            )
        raise InvalidArgumentError(
            f"choose_strength: unexpected argument {name!r}; it takes {', '.join((*own, *_TAKEN))}"
            f"{nearest(name, (*own, *_TAKEN))}"
        )
    optimizer = settings.get("optimizer")
    if isinstance(optimizer, Optimizer):
        raise InvalidArgumentError(
            "optimizer: expected a factory such as functools.partial(torch.optim.Adam, lr=1e-3), as every fit takes a "
            "fresh one, got an optimizer."
        )
    if isinstance(optimizer, str) and optimizer not in _SOLVERS:
        raise InvalidArgumentError(
            f"optimizer: expected 'lbfgs', 'proximal' or a factory of a torch optimizer, got {optimizer!r}."
        )


def stochastic_settings(model: nn.Module, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings of training in batches; None where a full-batch solver does the fits.

    Args:
        model: The model.
        settings: As given.

    Returns:
        `MAPTrainer`'s arguments.

    Raises:
        InvalidArgumentError: If a full-batch solver would ignore one.
        UnsupportedError: If one was asked for and the model is random.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    optimizer = given.get("optimizer")
    if isinstance(optimizer, str) or not given.keys() - {"progress", "cpu"}:
        try:
            refuse_random(model)
        except UnsupportedError:
            if optimizer is not None:
                raise
        else:
            rest = [name for name in given if name not in ("optimizer", "progress", "cpu")]
            if rest:
                raise InvalidArgumentError(f"{rest[0]}: optimizer={optimizer!r} is a full-batch solver; leave it out.")
            return None
    return {"optimizer": partial(torch.optim.Adam, lr=1e-3), **given}
