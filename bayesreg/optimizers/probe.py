"""What an optimizer nobody knows does with its `weight_decay`, found by a few steps on a toy tensor."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Build", "Examined", "ProbedKind", "drifts", "examine", "probe", "rebuild"]

ProbedKind: TypeAlias = Literal["coupled", "decoupled", "cautious", "none", "other", "unknown"]

_DECAY, _RATE, _STEPS = 0.3, 0.05, 6
# Where a decay is looked for weight by weight.
_CAUTIOUS = 0.3
# What decides how a step is computed, not what it computes.
_EXECUTION = ("foreach", "fused", "capturable", "differentiable", "maximize")

Build: TypeAlias = Callable[[list[nn.Parameter]], Optimizer]


def rebuild(optimizer: Optimizer, group: Mapping[str, Any] | None = None) -> Build:
    """Return a function that builds an optimizer of the same class and settings over other parameters.

    Args:
        optimizer: The optimizer to imitate.
        group: The param group to imitate; the first by default.

    Returns:
        The function.
    """
    cls = type(optimizer)
    parameters = inspect.signature(cls.__init__).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    settings = {k: v for k, v in optimizer.defaults.items() if k not in _EXECUTION and (open_ended or k in parameters)}
    imitated = optimizer.param_groups[0] if group is None else group

    def build(params: list[nn.Parameter]) -> Optimizer:
        # Copies: the toy's steps may change what they find in a group.
        toy = cls(params, **copy.deepcopy(settings))
        for key, value in imitated.items():
            if key != "params" and key not in _EXECUTION and key in toy.param_groups[0]:
                toy.param_groups[0][key] = copy.deepcopy(value)
        return toy

    return build


@dataclass(frozen=True)
class Examined:
    """What was found on a toy tensor.

    Attributes:
        kind: See `probe`.
        drifts: Whether weights moved with a zero gradient and weight_decay = 0: a decay under another name.
        matrix: What was found on a matrix alone.
        vector: The same on a vector.
    """

    kind: ProbedKind
    drifts: bool
    matrix: ProbedKind = "unknown"
    vector: ProbedKind = "unknown"


def examine(build: Build) -> Examined:
    """Compare six steps with native decay to steps with the decay made by hand, on a matrix and on a vector.

    Args:
        build: Builds the optimizer over the given parameters.

    Returns:
        What was found.
    """
    matrix = _attempt(lambda: _compare(build, (3, 3)))
    vector = _attempt(lambda: _compare(build, (4,)))
    drifts = _attempt(lambda: "other" if _drifts(build) else "none") == "other"
    # Some take matrices only.
    kind: ProbedKind = "other" if drifts or vector not in (matrix, "unknown") else matrix
    if kind == "other" and not drifts:
        kind = _attempt(lambda: "cautious" if _is_cautious(build) else "other")
        kind = "other" if kind == "unknown" else kind
    return Examined(kind, drifts, matrix, vector)


def probe(build: Build) -> ProbedKind:
    """Return what an optimizer does with its `weight_decay`.

    Args:
        build: Builds the optimizer over the given parameters.

    Returns:
        "coupled": equal to adding λθ to the gradient; "decoupled": equal to shrinking the weights apart from it;
        "cautious": to shrinking those that the update shrinks too; "none": `weight_decay` changes nothing or is no
        setting; "other": none of these, or not the same for a matrix and a vector, or weights shrink at weight_decay =
        0 too; "unknown": it could not be run, or moves too little to tell.
    """
    return examine(build).kind


def drifts(build: Build) -> bool:
    """Return whether an optimizer moves weights whose gradient is zero, with its weight_decay at 0.

    Args:
        build: Builds the optimizer over the given parameters.

    Returns:
        True if a decay hides under another name; False too if it could not be run.
    """
    return examine(build).drifts


def _attempt(look: Callable[[], ProbedKind]) -> ProbedKind:
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            return look()
    except Exception:  # noqa: BLE001 (third-party code: whatever it raises, nothing was learned about it)
        return "unknown"


def _drifts(build: Build) -> bool:
    """Return whether weights shrink without a gradient and without weight_decay: a decay under another name.

    A decay shrinks all of them, and goes on at every step. Yogi's first moment, or a velocity that is drawn at the
    start, lets some grow; a norm that is fixed at the first step shrinks nothing after it.
    """
    start = torch.tensor([[1.0, -2.0, 0.2], [0.5, -0.1, 3.0], [-0.3, -0.7, 1.5]], dtype=torch.float64)
    weights = nn.Parameter(start.clone())
    optimizer = build([weights])
    optimizer.param_groups[0].update({k: v for k, v in (("lr", _RATE), ("weight_decay", 0.0))
                                      if k in optimizer.param_groups[0]})  # fmt: skip
    sizes = []
    for _ in range(3):
        weights.grad = torch.zeros_like(weights)
        optimizer.step()
        sizes.append(weights.detach().abs())
    return bool((sizes[-1] < sizes[0]).all())


def _compare(build: Build, shape: tuple[int, ...]) -> ProbedKind:
    plain = _run(build, shape, native=0.0)
    if plain is None:
        return "none"
    native = _run(build, shape, native=_DECAY)
    assert native is not None
    if not (native.isfinite().all() and plain.isfinite().all()) or torch.equal(plain, _start(shape)[1]):
        return "unknown"
    if torch.equal(native, plain):
        return "none"
    if _close(native, plain):
        # An effect too small to be told apart, as of one whose rate begins at nearly 0 (Prodigy, D-Adaptation).
        return "unknown"
    # Coupled first: on plain SGD both are the same.
    if _close(native, _run(build, shape, native=0.0, coupled=True)):
        return "coupled"
    if any(_close(native, _run(build, shape, native=0.0, shrink=when)) for when in ("before", "after", "beside")):
        return "decoupled"
    return "other"


def _is_cautious(build: Build) -> bool:
    """Return whether the first step shrinks just the weights that the update shrinks too."""
    generator, start = _start((4, 4))
    grad, ends = torch.randn(start.shape, generator=generator, dtype=torch.float64), []
    for decay in (0.0, _CAUTIOUS):
        weights = nn.Parameter(start.clone())
        optimizer = build([weights])
        optimizer.param_groups[0].update(lr=_RATE, weight_decay=decay)
        weights.grad = grad.clone()
        optimizer.step()
        ends.append(weights.detach())
    along = (start - ends[0]) * start >= 0.0
    expected = torch.where(along, _RATE * _CAUTIOUS * start, 0.0)
    mixed = bool(along.any()) and not bool(along.all())
    return mixed and _close(ends[0] - ends[1], expected)


def _close(one: Tensor, other: Tensor | None) -> bool:
    # Some optimizers compute in single precision whatever the dtype.
    return other is not None and bool(torch.allclose(one, other, rtol=0.0, atol=1e-6))


def _start(shape: tuple[int, ...]) -> tuple[torch.Generator, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return generator, torch.randn(shape, generator=generator, dtype=torch.float64)


def _run(
    build: Build, shape: tuple[int, ...], *, native: float, coupled: bool = False, shrink: str = ""
) -> Tensor | None:
    """Return the weights after the steps; None if the groups have no `weight_decay`."""
    generator, start = _start(shape)
    weights = nn.Parameter(start)
    optimizer = build([weights])
    group: dict[str, Any] = optimizer.param_groups[0]
    if "weight_decay" not in group:
        return None
    group.update(lr=_RATE, weight_decay=native)
    keep = 1.0 - _RATE * _DECAY
    for _ in range(_STEPS):
        weights.grad = torch.randn(shape, generator=generator, dtype=torch.float64)
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
