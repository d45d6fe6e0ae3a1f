"""The step size each optimizer really takes, for proximal steps that share its metric.

A proximal step after the optimizer's own must use the step that a constant gradient would meet in the long run: with
another one, the fixed point is the MAP of another prior. The same number tells what a decoupled decay amounts to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from bayesreg._support.sharding import local
from bayesreg.errors import UnsupportedError
from bayesreg.optimizers.decay import steady_gain

__all__ = ["check_metric", "effective_step", "has_metric", "steady_step"]

State: TypeAlias = Mapping[str, Any]
Group: TypeAlias = Mapping[str, Any]
Step: TypeAlias = float | Tensor


def _sgd(_state: State, group: Group) -> Any:
    return float(group["lr"]) * steady_gain(group)


def _root(state: State, group: Group) -> Any:
    """Return √v̂ + ε."""
    second: Tensor = local(state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"])
    # A tensor on an accelerator is not read: that would wait for the device at every step.
    root = (second / (1.0 - group["betas"][1] ** _count(state))).sqrt_()
    return root.add_(group["eps"])


def _over(rate: Any, root: Tensor) -> Tensor:
    """Return rate / root, in root's memory."""
    return root.reciprocal_().mul_(rate)


def _count(state: State) -> Any:
    step = state["step"]
    return float(step) if not isinstance(step, Tensor) or step.device.type == "cpu" else step


def _adam(state: State, group: Group) -> Any:
    return _over(group["lr"], _root(state, group))


def _nadam(state: State, group: Group) -> Any:
    # The gradient and its average each bring a share of the step; both point along a steady gradient.
    beta1, step, decay = group["betas"][0], float(state["step"]), group["momentum_decay"]
    now, soon = (beta1 * (1.0 - 0.5 * 0.96 ** (t * decay)) for t in (step, step + 1.0))
    product = float(state["mu_product"])
    gain = (1.0 - now) / (1.0 - product) + soon * (1.0 - beta1**step) / (1.0 - product * soon)
    return _over(float(group["lr"]) * gain, _root(state, group))


def _radam(state: State, group: Group) -> Any:
    beta2, step = group["betas"][1], float(state["step"])
    longest = 2.0 / (1.0 - beta2) - 1.0
    length = longest - 2.0 * step * beta2**step / (1.0 - beta2**step)
    if length <= 5.0:
        return float(group["lr"])
    rectified = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
    # Its ε is added before the bias correction.
    unbiased = math.sqrt(1.0 - beta2**step)
    return _over(float(group["lr"]) * rectified * unbiased, local(state["exp_avg_sq"]).sqrt().add_(group["eps"]))


def _rmsprop(state: State, group: Group) -> Any:
    rate = group["lr"] / (1.0 - group["momentum"])
    return _over(rate, local(state["square_avg"]).sqrt().add_(group["eps"]))


def _adagrad(state: State, group: Group) -> Any:
    rate = group["lr"] / (1.0 + (_count(state) - 1.0) * group["lr_decay"])
    return _over(rate, local(state["sum"]).sqrt().add_(group["eps"]))


def _adamax(state: State, group: Group) -> Any:
    return group["lr"] / local(state["exp_inf"])


_STEPS: dict[type[Optimizer], Callable[[State, Group], Any]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.NAdam: _nadam,
    torch.optim.RAdam: _radam,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
    torch.optim.Adamax: _adamax,
}

_REASONS = {
    "Adadelta": "its step size follows from updates that it does not keep",
    "ASGD": "its step size shrinks by a rule of its own",
    "Rprop": "it uses the signs of gradients only",
    "LBFGS": "it mixes coordinates",
    "Adafactor": "its step size depends on the weights themselves",
    "Muon": "it mixes coordinates",
}


def has_metric(cls: type[Optimizer] | None, group: Group) -> bool:
    """Return whether the step size in the long run is known."""
    return cls in _STEPS and not group.get("centered")


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
        why = f" ({name}: {_REASONS[name]})" if name in _REASONS else ""
        raise UnsupportedError(
            f"{name}: a prior with a kink needs proximal steps in the optimizer's own metric, which is known for "
            f"{known}{why}; use one of those, or optimizer='proximal' in br.MAPTrainer."
        )
    if any(group.get("centered") for group in optimizer.param_groups):
        raise UnsupportedError(f"{name}(centered=True): its proximal steps would miss the MAP; use centered=False.")
    if any(float(group.get("momentum") or 0.0) >= 1.0 for group in optimizer.param_groups):
        raise UnsupportedError(f"{name}: with momentum >= 1 steps never end, and so no proximal step has a size.")


def steady_step(cls: type[Optimizer], state: State, group: Group) -> Step:
    """Return the step size along a steady gradient: a float, or one per coordinate of the local shard.

    Args:
        cls: The optimizer's class, one that `has_metric`.
        state: Its state of one parameter, after at least one step (SGD needs none).
        group: The parameter's group.

    Returns:
        The step size.
    """
    step: Step = _STEPS[cls](state, group)
    return step


def effective_step(optimizer: Optimizer, parameter: Tensor, group: Group) -> Step:
    """Return the step size that the last update took along a steady gradient."""
    return steady_step(type(optimizer), optimizer.state.get(parameter, {}), group)
