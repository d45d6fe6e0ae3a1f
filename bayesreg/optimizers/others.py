"""Optimizers without a prior that step weights which have one on another optimizer."""

from __future__ import annotations

import sys
import threading
import warnings
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from bayesreg.errors import CoverageError, OtherOptimizerWarning

__all__ = ["disown", "holder_of", "let_be", "own", "seen_holding", "watch_steps"]


@dataclass
class _Owned:
    """A parameter under a prior, and the optimizer that this is attached to; None once that is gone."""

    parameter: weakref.ref[Tensor]
    optimizer: weakref.ref[Optimizer]
    name: str
    owner: str


@dataclass
class _Met:
    """How often an optimizer without the prior stepped, and the attached one in between."""

    others: int = 0
    own: int = 0


_owned: dict[int, _Owned] = {}
# Changes whenever an optimizer's parameters are owned or no longer: what was found before is then looked up again.
_version = [0]
_shared: weakref.WeakKeyDictionary[Optimizer, tuple[tuple[int, ...], list[_Owned]]] = weakref.WeakKeyDictionary()
# By the attached optimizer and the other one; by the other one twice, where the attached one is gone.
_met: weakref.WeakKeyDictionary[Optimizer, weakref.WeakKeyDictionary[Optimizer, _Met]] = weakref.WeakKeyDictionary()
_stepped: weakref.WeakSet[Optimizer] = weakref.WeakSet()
# Optimizers that have a prior of their own.
_owners: weakref.WeakSet[Optimizer] = weakref.WeakSet()
_let_be: weakref.WeakSet[Optimizer] = weakref.WeakSet()
_running = threading.local()
_hooks: list[Any] = []
_DEPTH = 32
_TORCH_FILE = register_optimizer_step_pre_hook.__code__.co_filename


def watch_steps() -> None:
    """Look, from now on, at the steps of all optimizers."""
    if not _hooks:
        _hooks.append(register_optimizer_step_pre_hook(_before))
        _hooks.append(register_optimizer_step_post_hook(_after))


def own(optimizer: Optimizer, parameters: Iterable[tuple[str, Tensor]]) -> None:
    """Note which parameters an attached optimizer steps under their prior.

    Args:
        optimizer: The optimizer.
        parameters: Names and parameters, without those that are flat.
    """
    disown(optimizer)
    _let_be.discard(optimizer)
    _owners.add(optimizer)
    this, owner = weakref.ref(optimizer), type(optimizer).__name__
    for name, parameter in parameters:
        key = id(parameter)
        _owned[key] = _Owned(weakref.ref(parameter, partial(_forget, key)), this, name, owner)


def _forget(key: int, _: object) -> None:
    _owned.pop(key, None)


def let_be(optimizer: Optimizer) -> None:
    """Take note that an optimizer is meant to step without a prior."""
    _let_be.add(optimizer)


def disown(optimizer: Optimizer) -> None:
    """Forget the parameters of an optimizer whose prior was taken off on purpose."""
    for key in [key for key, owned in _owned.items() if owned.optimizer() is optimizer]:
        del _owned[key]
    _owners.discard(optimizer)
    _version[0] += 1


def holder_of(parameter: Tensor) -> Optimizer | None:
    """Return the attached optimizer that holds a parameter under its prior, None if there is none."""
    owned = _owned.get(id(parameter))
    return owned.optimizer() if owned is not None and owned.parameter() is parameter else None


def seen_holding(parameter: Tensor) -> bool:
    """Return whether an optimizer that has stepped in this process holds a parameter."""
    return any(one is parameter for other in list(_stepped) for group in other.param_groups for one in group["params"])


def _open() -> list[tuple[weakref.ref[Optimizer], set[int]]]:
    """Return the steps that have begun in this thread and not ended, each with those that ran inside it."""
    if not hasattr(_running, "steps"):
        _running.steps = []
    found: list[tuple[weakref.ref[Optimizer], set[int]]] = _running.steps
    return found


def _before(optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    if torch.compiler.is_compiling():
        return
    steps = _open()
    if len(steps) > _DEPTH:
        steps.clear()  # steps that were left by exceptions
    for _, inside in steps:
        inside.add(id(optimizer))
    steps.append((weakref.ref(optimizer), set()))


def _after(optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    if torch.compiler.is_compiling():
        return
    steps, inside = _open(), set[int]()
    while steps:
        # What lies above was left by an exception.
        begun, ran = steps.pop()
        inside |= ran
        if begun() is optimizer:
            break
    _stepped.add(optimizer)
    if optimizer in _owners:
        for other in list(_met[optimizer].values()) if optimizer in _met else []:
            other.own += 1
        return
    met: dict[int, _Owned] = {}
    for owned in _shared_by(optimizer) if _owned and optimizer not in _let_be else []:
        parameter = owned.parameter()
        # What only stands in its groups, frozen for the time being, it does not move.
        if parameter is not None and parameter.grad is not None:
            met.setdefault(id(owned.optimizer), owned)
    for owned in met.values():
        owner = owned.optimizer()
        if owner is not None and (id(owner) in inside or _is_stepping(owner)):
            continue  # it wraps the attached one, or is wrapped by it
        _meet(optimizer, owner, owned)


def _shared_by(optimizer: Optimizer) -> list[_Owned]:
    """Return the parameters of this optimizer whose prior is attached to another one."""
    key = (_version[0], len(_owned), *(len(group["params"]) for group in optimizer.param_groups))
    known = _shared.get(optimizer)
    if known is None or known[0] != key:
        found: list[_Owned] = []
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                owned = _owned.get(id(parameter))
                if owned is not None and owned.parameter() is parameter and owned.optimizer() is not optimizer:
                    found.append(owned)
        known = _shared[optimizer] = (key, found)
    return known[1]


def _is_stepping(optimizer: Optimizer) -> bool:
    """Return whether this runs inside a step of an optimizer."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == _TORCH_FILE and frame.f_locals.get("self") is optimizer:
            return True
        frame = frame.f_back
    return False


def _meet(optimizer: Optimizer, owner: Optimizer | None, owned: _Owned) -> None:
    name = type(optimizer).__name__
    met = _met.setdefault(owner or optimizer, weakref.WeakKeyDictionary()).setdefault(optimizer, _Met())
    if owner is None:
        what = f"the {owned.owner} that a prior was attached to is gone (rebuilt by a framework?)"
    else:
        what = f"{owned.name} has its prior on another optimizer ({owned.owner})"
    met.others += 1
    if met.own and met.others > 1:
        raise CoverageError(
            f"{what}, and {name} steps it in between without the prior; attach the prior to both, br.attach([first, "
            f"second], prior, ...), each with its own parameters, or call handle.remove() before the second takes over."
        )
    met.own = 0
    if met.others == 1:
        warnings.warn(
            f"other-optimizer: {what}, and {name} steps {owned.name} without it; attach the prior to this optimizer, "
            f"or call handle.remove() before, or br.detach(optimizer), if it is to go on without.",
            OtherOptimizerWarning,
            stacklevel=4,
        )
