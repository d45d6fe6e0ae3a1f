"""What must be the same for a run to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bayesreg.data import Arrays
from bayesreg.data.columns import parts
from bayesreg.errors import CheckpointError
from bayesreg.model_prior import ModelPrior
from bayesreg.optimizers.attached import COUPLED, MARK
from bayesreg.optimizers.decay import DECOUPLED

__all__ = ["Changed", "digest", "named", "of_arrays", "of_module", "of_optimizer", "of_prior", "require_same"]


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return a checksum of tensors with their names."""
    found = hashlib.sha256()
    for name, tensor in tensors:
        here = tensor.detach().to("cpu").contiguous()
        found.update(f"{name} {here.dtype} {tuple(here.shape)}".encode())
        found.update(here.reshape(-1).view(torch.uint8).numpy().data if here.numel() else b"")
    return found.hexdigest()


def of_arrays(dataset: Any) -> str | None:
    """Return a checksum of examples that are in memory; None for others."""
    if not isinstance(dataset, Arrays):
        return None
    return digest([*parts("inputs", dataset.inputs), ("targets", dataset.targets), *parts("w", dataset.weights)])


def of_module(module: nn.Module) -> dict[str, Any]:
    """Return shape and dtype of every tensor in a module's state, by name."""
    state = module.state_dict()
    return {name: [list(t.shape), str(t.dtype)] for name, t in state.items() if isinstance(t, Tensor)}


def of_prior(prior: ModelPrior) -> dict[str, str | None]:
    """Return which prior is on which parameter, in words."""
    return {entry.name: None if entry.prior is None else repr(entry.prior) for entry in prior}


def of_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    """Return an optimizer's class and the settings of its groups, the same in another process."""
    # Decay, and the flag that says what it does, are the prior's, which is compared by itself; a schedule has its own
    # rate.
    beside = ("params", "param_names", "initial_lr", "weight_decay", DECOUPLED, "bayesreg_names", MARK, COUPLED)
    found: dict[str, Any] = {"class": type(optimizer).__name__}
    for name in optimizer.param_groups[0]:
        if name not in beside:
            values = [_shown(group.get(name)) for group in optimizer.param_groups]
            found[name] = values[0] if len(set(values)) == 1 else values
    return found


def named(thing: object) -> str | None:
    """Return a name of a scheduler, an output or what makes one, with the settings it was given."""
    if thing is None or isinstance(thing, str):
        return thing
    if isinstance(thing, partial):
        return f"{named(thing.func)}({_plain({**dict(enumerate(thing.args)), **thing.keywords})})"
    return str(thing) if isinstance(thing, int) else getattr(thing, "__qualname__", type(thing).__name__)


def _plain(given: Mapping[Any, Any]) -> str:
    return ", ".join(f"{name}={_shown(value)}" for name, value in given.items())


def _shown(value: Any) -> str:
    """Return what is the same in another process: numbers and words, not where a function is in memory."""
    return str(value if isinstance(value, bool | int | float | str | tuple | None) else type(value).__name__)


def require_same(folder: object, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise if a run was begun with other settings than those it would go on with.

    Args:
        folder: Of the run, for the message.
        saved: What it was begun with.
        now: What there is now.

    Raises:
        CheckpointError: If they differ: where, from what, to what.
    """
    for name in now:
        if saved.get(name) == now[name]:
            continue
        before, after = saved.get(name), now[name]
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            inside = next(key for key in [*after, *before] if before.get(key) != after.get(key))
            where, before, after = f"{name} ({inside})", before.get(inside), after.get(inside)
        else:
            where = name
        said = "they differ" if _is_digest(after) else f"it was {before!r}, and is {after!r}"
        raise CheckpointError(
            f"resume: the run in {folder} was begun with another {where}: {said}. Give what it was begun with, or "
            f"name another folder as checkpoint=."
        )


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64


class Changed:
    """What has changed in a module since this was made: of a prior with large centres, little or nothing.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._begun = {name: (tensor, tensor._version) for name, tensor in self._tensors().items()}

    def _tensors(self) -> dict[str, Tensor]:
        return {name: t for name, t in self._module.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that have changed, by name."""
        found = {}
        for name, tensor in self._tensors().items():
            before, version = self._begun.get(name, (None, -1))
            if tensor is not before or tensor._version != version:
                found[name] = tensor
        return found

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Copy tensors back.

        Args:
            state: What `state` returned.

        Raises:
            CheckpointError: If the module has no such tensor.
        """
        held = self._tensors()
        for name, tensor in state.items():
            if name not in held or held[name].shape != tensor.shape:
                raise CheckpointError(f"resume: the run's prior had a {name}, which this one has not.")
            held[name].copy_(tensor)
