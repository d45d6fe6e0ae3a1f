"""Stopping at the first NaN, with the last good weights back in the model."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from bayesreg.errors import NonFiniteObjectiveError

__all__ = ["Snapshot", "first_non_finite", "stop"]

Named = Iterable[tuple[str, Tensor]]


def _copied(value: object) -> object:
    # A module's extra state need not be a tensor.
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


class Snapshot:
    """A copy of a module's state in memory.

    Args:
        modules: The modules to copy.
    """

    def __init__(self, *modules: torch.nn.Module) -> None:
        self._modules = modules
        self._states: list[dict[str, object]] = [{k: _copied(v) for k, v in m.state_dict().items()} for m in modules]

    @property
    def states(self) -> list[dict[str, object]]:
        """The state of each module."""
        return self._states

    @classmethod
    def of(cls, states: list[dict[str, object]], *modules: torch.nn.Module) -> Snapshot:
        """Return what was kept in another process.

        Args:
            states: The states of a snapshot.
            modules: The modules that they are of.

        Returns:
            A snapshot.
        """
        made = cls()
        made._modules, made._states = modules, states
        return made

    def restore(self) -> None:
        """Copy the state back."""
        for module, state in zip(self._modules, self._states, strict=True):
            module.load_state_dict(state)


def first_non_finite(named: Named) -> str | None:
    """Return the name of the first tensor with a NaN or an infinity."""
    return next((name for name, t in named if not bool(torch.isfinite(t.detach()).all())), None)


def stop(named_parameters: Named, snapshot: Snapshot, *, epoch: int, batch: int, loss: float) -> None:
    """Name the culprit, put the last good weights back and raise.

    Args:
        named_parameters: The parameters, with their gradients.
        snapshot: The last good weights.
        epoch: From 1.
        batch: From 1, within the epoch.
        loss: The value met.

    Raises:
        NonFiniteObjectiveError: Always.
    """
    parameters = list(named_parameters)
    value = first_non_finite(parameters)
    slope = first_non_finite((n, p.grad) for n, p in parameters if p.grad is not None)
    if value is not None:
        where, culprit = f"the weights of {value} are not finite", value
    elif slope is not None:
        where, culprit = f"the gradient of {slope} is not finite", slope
    else:
        where, culprit = "weights and gradients are finite, so the model's output overflowed", None
    snapshot.restore()
    raise NonFiniteObjectiveError(
        f"the objective became {loss} in epoch {epoch}, batch {batch}: {where}. The last good weights are back in the "
        f"model; try a smaller learning rate, clip_norm=1.0, or look for NaN in the data.",
        epoch=epoch,
        batch=batch,
        parameter=culprit,
    )
