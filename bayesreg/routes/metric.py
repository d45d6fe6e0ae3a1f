"""The step size each optimizer really takes, for proximal steps that share its metric.

A proximal step after the optimizer's own must use the step that a constant gradient would meet in the long run: with
another one, the fixed point is the MAP of another prior.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bayesreg.errors import UnsupportedError

__all__ = ["check_metric", "effective_step"]

State = dict[str, Any]
Group = dict[str, Any]


def _sgd(_state: State, group: Group) -> float:
    momentum = group["momentum"]
    gain = (1.0 - group["dampening"]) / (1.0 - momentum) if momentum else 1.0
    return float(group["lr"]) * gain


def _adam(state: State, group: Group) -> Any:
    second = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    correction = 1.0 - group["betas"][1] ** float(state["step"])
    return float(group["lr"]) / ((second / correction).sqrt_().add_(group["eps"]))


def _rmsprop(state: State, group: Group) -> Any:
    return float(group["lr"]) / (1.0 - group["momentum"]) / (state["square_avg"].sqrt().add_(group["eps"]))


def _adagrad(state: State, group: Group) -> Any:
    rate = float(group["lr"]) / (1.0 + (float(state["step"]) - 1.0) * group["lr_decay"])
    return rate / (state["sum"].sqrt().add_(group["eps"]))


def _adamax(state: State, group: Group) -> Any:
    return float(group["lr"]) / state["exp_inf"]


_STEPS: dict[type[Optimizer], Callable[[State, Group], float | Tensor]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
    torch.optim.Adamax: _adamax,
}


def check_metric(optimizer: Optimizer) -> None:
    """Raise unless proximal steps are exact with this optimizer.

    Args:
        optimizer: The optimizer.

    Raises:
        UnsupportedError: If its step size in the long run is not known.
    """
    name = type(optimizer).__name__
    if type(optimizer) not in _STEPS:
        known = ", ".join(cls.__name__ for cls in _STEPS)
        raise UnsupportedError(
            f"{name}: a prior with a kink needs proximal steps in the optimizer's own metric, which is known for "
            f"{known}; use one of those, or optimizer='proximal' in br.MAPTrainer."
        )
    if any(group.get("centered") for group in optimizer.param_groups):
        raise UnsupportedError(f"{name}(centered=True): its proximal steps would miss the MAP; use centered=False.")


def effective_step(optimizer: Optimizer, parameter: Tensor, group: Group) -> float | Tensor:
    """Return the step size that the last update took along a steady gradient: a float, or one per coordinate."""
    return _STEPS[type(optimizer)](optimizer.state.get(parameter, {}), group)
