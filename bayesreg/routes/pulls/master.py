"""Steps in float32 on weights that the model holds in half precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from bayesreg.errors import UnsupportedError

__all__ = ["MASTER", "Masters"]

#: Key in the state of a parameter, in a saved state dict, that holds its weights in float32.
MASTER = "float32_master"
_HALF = (torch.float16, torch.bfloat16)


class Masters:
    """Copies in float32 that the optimizer steps in place of half-precision weights, which are then rounded from them.

    Between steps the model has its own weights, in the same memory as ever. State that the optimizer keeps is in
    float32 too, and in saved state dicts.

    Args:
        optimizer: The optimizer.

    Raises:
        UnsupportedError: If it is one that evaluates the model within its step.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if isinstance(optimizer, LBFGS):
            raise UnsupportedError("float32_master: LBFGS evaluates the model within its step; use a float32 model.")
        self._optimizer = optimizer
        #: By parameter: the master, and the version of the weights it was last rounded to.
        self._kept: dict[Tensor, tuple[Tensor, int]] = {}
        self._inside: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self._loading: dict[str, Any] | None = None

    def enter(self) -> None:
        """Put the masters in place of the weights, and their gradients in float32."""
        self.leave(rounded=False)
        for parameter in self._halves():
            grad, weights = parameter.grad, parameter.data
            master, version = self._kept.get(parameter, (weights, -1))
            # Weights that were loaded or changed since, also through .data, are the ones that count.
            if version != parameter._version or not torch.equal(master.to(weights.dtype), weights):
                master = weights.float()
            self._inside.append((parameter, weights, grad))
            parameter.grad = None
            parameter.data = master
            parameter.grad = None if grad is None else grad.float()
            state = self._optimizer.state.get(parameter, {})
            for key, held in state.items():
                if isinstance(held, Tensor) and held.dtype in _HALF:
                    state[key] = held.float()

    def leave(self, *, rounded: bool = True) -> None:
        """Put the weights back, rounded from their masters; as they were, after a step that failed."""
        for parameter, weights, grad in self._inside:
            master = parameter.data
            parameter.grad = None
            if rounded:
                weights.copy_(master)
            parameter.data = weights
            parameter.grad = grad
            if rounded:
                self._kept[parameter] = (master, parameter._version)
        self._inside = []

    def saved(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Return a state dict with the masters in it."""
        states = dict(state_dict["state"])
        for key, parameter in _keys(self._optimizer, state_dict):
            if parameter in self._kept and key in states and self._kept[parameter][1] == parameter._version:
                states[key] = {**states[key], MASTER: self._kept[parameter][0]}
        return {**state_dict, "state": states}

    def loading(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Remember a state dict before torch narrows what is in it to the dtype of the weights."""
        self._loading = state_dict
        return state_dict

    def loaded(self) -> None:
        """Take state and masters in float32 out of the state dict that was loaded."""
        if self._loading is None:
            return
        for key, parameter in _keys(self._optimizer, self._loading):
            found = self._loading["state"].get(key, {})
            state = self._optimizer.state.get(parameter, {})
            for name, held in found.items():
                if isinstance(held, Tensor) and held.dtype is torch.float32 and name in state:
                    state[name] = held.detach().clone().to(state[name].device)
            master = state.pop(MASTER, None)
            if isinstance(master, Tensor) and torch.equal(master.to(parameter.dtype), parameter.detach()):
                self._kept[parameter] = (master, parameter._version)
        self._loading = None

    def _halves(self) -> list[Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"] if p.dtype in _HALF]


def _keys(optimizer: Optimizer, state_dict: dict[str, Any]) -> list[tuple[Any, Tensor]]:
    """Return the keys of a state dict with the parameters they stand for, by position."""
    keys = [key for group in state_dict["param_groups"] for key in group["params"]]
    return list(zip(keys, (p for group in optimizer.param_groups for p in group["params"]), strict=True))
