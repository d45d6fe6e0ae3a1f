"""From what the user gave to an optimizer and a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import LBFGS, Optimizer

from bayesreg.errors import InvalidArgumentError, kind_of
from bayesreg.trainer.task import Task

__all__ = ["OptimizerFactory", "optimizer_with_likelihood", "scheduler_for"]

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]


def _made(name: str, factory: Callable[[Any], Any], given: Any, of: str, is_one: Callable[[Any], bool]) -> Any:
    """Call a factory that the user gave, and make sure of what it returns."""
    shown = getattr(factory, "__name__", type(factory).__name__)
    try:
        made = factory(given)
    except (TypeError, AttributeError, NotImplementedError, InvalidArgumentError) as error:
        raise InvalidArgumentError(f"{name}: expected a factory {of}, got {shown} ({error}).") from error
    if not is_one(made):
        raise InvalidArgumentError(f"{name}: expected a factory {of}, got {shown}, which returns {kind_of(made)}.")
    return made


def scheduler_for(factory: Callable[[Optimizer], Any], optimizer: Optimizer) -> Any:
    """Return what a factory of schedules makes of an optimizer.

    Args:
        factory: The factory.
        optimizer: The optimizer.

    Returns:
        The scheduler.

    Raises:
        InvalidArgumentError: If it makes something else.
    """
    of = "optimizer -> scheduler, which has step()"
    return _made("scheduler", factory, optimizer, of, _is_scheduler)


def _is_scheduler(made: object) -> bool:
    return callable(getattr(made, "step", None)) and not isinstance(made, Optimizer)


def _optimizer(factory: OptimizerFactory, groups: list[dict[str, Any]]) -> Optimizer:
    of = "param groups -> torch optimizer"
    found: Optimizer = _made("optimizer", factory, groups, of, lambda made: isinstance(made, Optimizer))
    return found


def optimizer_with_likelihood(optimizer: Optimizer | OptimizerFactory, task: Task, extra: list[Any]) -> Optimizer:
    """Return the optimizer, holding the likelihood's own parameters too.

    Args:
        optimizer: The optimizer, or what makes one from param groups.
        task: What is trained.
        extra: The likelihood's own parameters.

    Returns:
        The optimizer.

    Raises:
        InvalidArgumentError: If the factory makes something else.
    """
    if not isinstance(optimizer, Optimizer):
        groups = task.prior.param_groups()
        if optimizer is LBFGS or getattr(optimizer, "func", None) is LBFGS:
            # It takes one group only; the prior reaches it through the gradient and the value.
            return _optimizer(optimizer, [{"params": [p for group in groups for p in group["params"]] + extra}])
        return _optimizer(optimizer, [*groups, {"params": extra, "weight_decay": 0.0}] if extra else groups)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [p for p in extra if id(p) not in held]
    if missing:
        optimizer.add_param_group({"params": missing, "weight_decay": 0.0})
    return optimizer
