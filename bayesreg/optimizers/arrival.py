"""Whether a pull that is added to `.grad` before the step reaches the weights, and stays: tried on a toy."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bayesreg.optimizers.decay import each_kind_of_group, own_type
from bayesreg.optimizers.probe import Build, rebuild

__all__ = ["Arrival", "arrival", "arrivals"]

#: "arrives"; "lost": gradients are taken before step(); "held": the norm of the weights is fixed, which undoes a pull
#: toward 0; "unknown": it could not be told.
Arrival: TypeAlias = Literal["arrives", "lost", "held", "unknown"]

_SHAPES = {"matrix": (6, 4), "vector": (5,)}
_STEPS, _RATE, _NOISE = 12, 0.05, 0.3
# Of a norm: by how much it may change where it is held, in single precision.
_HELD = 1e-3
# Seconds: some optimizers compile at their first step.
_PATIENCE = 1.0
_Way: TypeAlias = Literal["none", "hook", "loss"]


def arrivals(optimizer: Optimizer) -> list[dict[str, Arrival]]:
    """Return for each param group of an optimizer whether a pull on a matrix and on a vector arrives.

    Args:
        optimizer: The optimizer; torch's own are known to take `.grad` as it is at the step.

    Returns:
        For each group what holds of a "matrix" and of a "vector".
    """
    if own_type(type(optimizer)) is not None:
        return [dict.fromkeys(_SHAPES, "arrives") for _ in optimizer.param_groups]
    known = _known.setdefault(optimizer, [])
    return each_kind_of_group(optimizer, lambda group: arrival(rebuild(optimizer, group), group), known)


def arrival(build: Build, group: Mapping[str, Any] | None = None) -> dict[str, Arrival]:
    """Try on toys whether a pull that a step hook adds to `.grad` reaches the weights, and stays.

    Twelve steps with the pull are compared with twelve without it: weights that end alike have lost it, if they differ
    with the same pull in the loss; weights whose norm stays while they move undo it. An optimizer that does not move
    the toy at its own learning rate is tried at another.

    Args:
        build: Builds the optimizer over the given parameters.
        group: Its settings, of which the learning rate is asked for.

    Returns:
        What was found, of a "matrix" and of a "vector".

    Example:
        >>> arrival(lambda weights: torch.optim.SGD(weights, lr=0.1))
        {'matrix': 'arrives', 'vector': 'arrives'}
    """
    # The first optimizer of a process imports torch's compiler, which is not this one's time.
    torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.0)
    end = time.monotonic() + _PATIENCE
    found: dict[str, Arrival] = {}
    for name, shape in _SHAPES.items():
        found[name] = "unknown"
        with (
            contextlib.suppress(Exception),  # Third-party code: whatever it raises, nothing was learned about it.
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[]),
            torch.enable_grad(),
        ):
            warnings.simplefilter("ignore")
            found[name] = _tried(build, shape, "lr" in (group or {"lr": None}), end)
    return found


def _tried(build: Build, shape: tuple[int, ...], has_rate: bool, end: float) -> Arrival:
    for rate in (None, _RATE) if has_rate else (None,):
        runs: dict[_Way, tuple[Tensor, Tensor]] = {way: _run(build, shape, way, rate, end) for way in _WAYS[:2]}
        (first, plain), (_, hooked) = runs["none"], runs["hook"]
        if not (plain.isfinite().all() and hooked.isfinite().all()):
            continue
        moved = float((hooked - first).norm() / first.norm())
        if moved < 1e-6:
            continue
        if _alike(plain, hooked, first):
            if not _alike(plain, _run(build, shape, "loss", rate, end)[1], first):
                return "lost"
            continue
        held = max(abs(float(last.norm() / start.norm()) - 1.0) for start, last in runs.values())
        # A walk at right angles to the weights, with no constraint, makes them longer by half the square of its length;
        # one that ends near the norm it began with does so by chance, and not so closely.
        return "held" if moved > 3e-2 and held < min(0.02 * moved**2, _HELD) else "arrives"
    return "unknown"


# A plan is made again when groups are added; what was tried once is kept.
_known: weakref.WeakKeyDictionary[Optimizer, list[tuple[dict[str, Any], dict[str, Arrival]]]] = (
    weakref.WeakKeyDictionary()
)
_WAYS: tuple[_Way, ...] = ("none", "hook", "loss")


def _alike(one: Tensor, other: Tensor, scale: Tensor) -> bool:
    return float((one - other).abs().max()) <= 1e-7 * float(scale.abs().max())


def _run(build: Build, shape: tuple[int, ...], way: _Way, rate: float | None, end: float) -> tuple[Tensor, Tensor]:
    """Return the weights after the first step, in which some normalise them, and after the last."""
    # Of the processor's generator alone: those of accelerators are the user's.
    torch.default_generator.manual_seed(1)
    generator = torch.Generator().manual_seed(0)
    weights = nn.Parameter(torch.randn(shape, generator=generator, device="cpu"))
    target = torch.randn(shape, generator=generator, device="cpu")
    noise = torch.randn((_STEPS, *shape), generator=generator, device="cpu") * _NOISE
    optimizer = build([weights])
    train: Any = getattr(optimizer, "train", None)
    if callable(train):
        train()
    if rate is not None:
        optimizer.param_groups[0]["lr"] = rate
    closure_only = False

    def pull(*_: object) -> None:
        if way == "hook" and not closure_only and weights.grad is not None:
            weights.grad.add_(weights.detach())

    optimizer.register_step_pre_hook(pull)
    first = weights.detach().clone()
    for index in range(_STEPS):
        if time.monotonic() > end:
            raise TimeoutError
        # By autograd: some take the gradient in a hook on its accumulation.
        made = _gradient(weights, target, noise[index], way)
        if closure_only:
            optimizer.step(_with_pull(made, weights, way))
        else:
            made()
            try:
                optimizer.step()
            except Exception:
                if index:
                    raise
                closure_only = True
                optimizer.step(_with_pull(made, weights, way))
        if index == 0:
            first = weights.detach().clone()
    return first, weights.detach().clone()


def _gradient(weights: nn.Parameter, target: Tensor, noise: Tensor, way: _Way) -> Callable[[], float]:
    def backward() -> float:
        with torch.enable_grad():
            loss = 0.25 * (weights - target).square().sum() + (weights * noise).sum()
            if way == "loss":
                loss = loss + 0.5 * weights.square().sum()
            weights.grad = None
            loss.backward()
            return float(loss.detach())

    return backward


def _with_pull(made: Callable[[], float], weights: nn.Parameter, way: _Way) -> Callable[[], float]:
    def closure() -> float:
        loss = made()
        if way == "hook" and weights.grad is not None:
            with torch.no_grad():
                weights.grad.add_(weights.detach())
        return loss

    return closure
