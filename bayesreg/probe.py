"""What an optimizer nobody knows does with its `weight_decay`, found by a few steps on a toy tensor."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["ProbedKind", "probe", "rebuild"]

ProbedKind: TypeAlias = Literal["coupled", "decoupled", "none", "other", "unknown"]

_DECAY, _RATE, _STEPS = 0.3, 0.05, 6
# What decides how a step is computed, not what it computes.
_EXECUTION = ("foreach", "fused", "capturable", "differentiable", "maximize")

Build: TypeAlias = Callable[[list[nn.Parameter]], Optimizer]


def rebuild(optimizer: Optimizer) -> Build:
    """Return a function that builds an optimizer of the same class and settings over other parameters.

    Args:
        optimizer: The optimizer to imitate.

    Returns:
        The function.
    """
    cls = type(optimizer)
    parameters = inspect.signature(cls.__init__).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    settings = {k: v for k, v in optimizer.defaults.items() if k not in _EXECUTION and (open_ended or k in parameters)}

    def build(params: list[nn.Parameter]) -> Optimizer:
        toy = cls(params, **settings)
        for key, value in optimizer.param_groups[0].items():
            if key != "params" and key not in _EXECUTION and key in toy.param_groups[0]:
                toy.param_groups[0][key] = value
        return toy

    return build


def probe(build: Build) -> ProbedKind:
    """Compare six steps with native decay to steps with the decay made by hand.

    Args:
        build: Builds the optimizer over the given parameters.

    Returns:
        "coupled": equal to adding λθ to the gradient; "decoupled": equal to shrinking the weights apart from it;
        "none": `weight_decay` changes nothing or is no setting; "other": neither; "unknown": it could not be run.
    """
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            return _compare(build)
    except Exception:  # Third-party code: whatever it raises, nothing was learned about it.
        return "unknown"


def _compare(build: Build) -> ProbedKind:
    plain = _run(build, native=0.0)
    if plain is None:
        return "none"
    native = _run(build, native=_DECAY)
    assert native is not None
    if not (native.isfinite().all() and plain.isfinite().all()) or torch.equal(plain, _start()[1]):
        return "unknown"
    if _close(native, plain):
        return "none"
    # Coupled first: on plain SGD both are the same.
    if _close(native, _run(build, native=0.0, coupled=True)):
        return "coupled"
    if any(_close(native, _run(build, native=0.0, shrink=when)) for when in ("before", "after", "beside")):
        return "decoupled"
    return "other"


def _close(one: Tensor, other: Tensor | None) -> bool:
    # Some optimizers compute in single precision whatever the dtype.
    return other is not None and bool(torch.allclose(one, other, rtol=0.0, atol=1e-6))


def _start() -> tuple[torch.Generator, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return generator, torch.randn(3, 3, generator=generator, dtype=torch.float64)


def _run(build: Build, *, native: float, coupled: bool = False, shrink: str = "") -> Tensor | None:
    """Return the weights after the steps; None if the groups have no `weight_decay`."""
    generator, start = _start()
    weights = nn.Parameter(start)
    optimizer = build([weights])
    group: dict[str, Any] = optimizer.param_groups[0]
    if "weight_decay" not in group:
        return None
    group.update(lr=_RATE, weight_decay=native)
    keep = 1.0 - _RATE * _DECAY
    for _ in range(_STEPS):
        weights.grad = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            before = weights.clone()
            if coupled:
                weights.grad.add_(weights, alpha=_DECAY)
            if shrink == "before":
                weights.mul_(keep)
        optimizer.step()
        with torch.no_grad():
            if shrink == "after":
                weights.mul_(keep)
            elif shrink == "beside":
                weights.add_(before, alpha=keep - 1.0)
    return weights.detach()
