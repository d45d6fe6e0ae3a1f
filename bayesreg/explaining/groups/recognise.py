"""Which of torch's optimizers wrote a state dict: their groups and states have keys of their own."""

from __future__ import annotations

import functools
import inspect
import reprlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bayesreg.errors import InvalidArgumentError, kind_of
from bayesreg.optimizers import OptimizerLike, class_of
from bayesreg.optimizers.attached import COUPLED, MARK
from bayesreg.references import plain_names

__all__ = ["find_state_dict", "recognise", "require_sound", "weights_in"]

# Flags that came to all optimizers with newer versions of torch; an older checkpoint lacks them.
_FLAGS = {"foreach", "fused", "capturable", "differentiable", "maximize", "decoupled_weight_decay"}
# What schedulers, named parameters and bayesreg leave in a group; any other key is another optimizer's.
_COMPANY = {
    "initial_lr",
    "max_lr",
    "min_lr",
    "max_momentum",
    "base_momentum",
    "swa_lr",
    "param_names",
    "name",
    "bayesreg_names",
    MARK,
    COUPLED,
}
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
# By the key of the state where the groups' keys do not tell.
_STATES = {"exp_inf": "Adamax", "mu_product": "NAdam"}


def find_state_dict(content: Any) -> Mapping[str, Any]:
    """Return the optimizer's state dict inside a checkpoint.

    Args:
        content: What a `.pt` file held: the state dict itself, or a mapping that has it under some key.

    Returns:
        The state dict.

    Raises:
        InvalidArgumentError: If there is none, or several.
    """
    if _is_state_dict(content):
        found: Mapping[str, Any] = content
        return found
    if isinstance(content, Mapping):
        places = {str(key): value for key, value in content.items()}
        for key, value in list(places.items()):
            # Lightning keeps a list of them.
            if isinstance(value, list) and len(value) == 1:
                places[key] = value[0]
        hits = {key: value for key, value in places.items() if _is_state_dict(value)}
        if len(hits) == 1:
            return next(iter(hits.values()))
        if hits:
            raise InvalidArgumentError(
                f"checkpoint: expected one optimizer state, got several under {', '.join(hits)}; save the one you mean "
                f"by itself."
            )
        shown = ", ".join(list(places)[:8])
        raise InvalidArgumentError(
            f"checkpoint: expected an optimizer's state_dict() or a mapping with one in it, or settings of Hugging "
            f"Face (learning_rate, weight_decay), timm (opt, weight_decay) or Keras (class_name, config), got "
            f"{f'the keys {shown}' if shown else 'an empty mapping'}."
        )
    raise InvalidArgumentError(f"checkpoint: expected an optimizer's state_dict(), got {type(content).__name__}.")


def weights_in(content: Any) -> dict[str, Tensor]:
    """Return the parameters of a model whose state dict stands in the same checkpoint, in its order.

    Args:
        content: What the file held.

    Returns:
        Names and tensors without the buffers of normalisation layers; empty if there is no model.
    """
    if not isinstance(content, Mapping):
        return {}
    for key in ("model", "state_dict", "model_state_dict", "net"):
        held = content.get(key)
        if isinstance(held, Mapping) and held and all(isinstance(v, Tensor) for v in held.values()):
            return {
                name: value
                for name, value in plain_names(held).items()
                if value.is_floating_point() and name.rsplit(".", 1)[-1] not in _BUFFERS
            }
    return {}


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get("param_groups"), list) and "state" in content


@functools.cache
def _keys() -> dict[str, frozenset[str]]:
    """Return the distinctive keys of each optimizer's groups."""
    found = {}
    for name, kind in vars(torch.optim).items():
        if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer:
            make: Any = kind
            keys = make([torch.nn.Parameter(torch.zeros(2, 2))]).param_groups[0]
            found[name] = frozenset(keys) - _FLAGS - {"params"}
    return found


# Settings that are numbers >= 0 wherever they occur; what else a group has is not read.
_NUMBERS = ("lr", "weight_decay", "momentum", "dampening", "lambd", "eps", "initial_lr", "max_lr", "rho", "alpha", "t0")


def require_sound(state_dict: Mapping[str, Any]) -> None:
    """Raise where an optimizer's state dict is not of the form that torch writes: a file may hold anything.

    Args:
        state_dict: What has param groups and state.

    Raises:
        InvalidArgumentError: If something in it is of another kind; the message says where and what.
    """
    if not isinstance(state_dict["state"], Mapping):
        raise InvalidArgumentError(f"checkpoint: expected a mapping as state, got {kind_of(state_dict['state'])}.")
    for key, state in state_dict["state"].items():
        if not isinstance(state, Mapping):
            raise InvalidArgumentError(f"checkpoint: state of {key!r}: expected a mapping, got {kind_of(state)}.")
        for name, value in state.items():
            if isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex() or not value.ndim):
                raise InvalidArgumentError(
                    f"checkpoint: state of {key!r}: {name}: expected real numbers, got {value.dtype}."
                )
            if name == "step":
                _number(f"state of {key!r}: step", value)
    if not state_dict["param_groups"]:
        raise InvalidArgumentError("checkpoint: the optimizer state has no param groups.")
    for index, group in enumerate(state_dict["param_groups"]):
        _require_sound_group(f"param_groups[{index}]", group)


def _require_sound_group(where: str, group: Any) -> None:
    if not isinstance(group, Mapping):
        raise InvalidArgumentError(f"checkpoint: {where}: expected a mapping, got {kind_of(group)}.")
    keys = group.get("params")
    if not isinstance(keys, list | tuple) or not all(isinstance(key, int | str) for key in keys):
        raise InvalidArgumentError(f"checkpoint: {where}: params: expected a list of numbers, got {_shown(keys)}.")
    names = group.get("param_names")
    if names is not None and not (
        isinstance(names, list | tuple) and len(names) == len(keys) and all(isinstance(name, str) for name in names)
    ):
        raise InvalidArgumentError(
            f"checkpoint: {where}: param_names: expected {len(keys)} names, got {_shown(names)}."
        )
    for name in _FLAGS & group.keys():
        if not isinstance(group[name], bool | None):
            raise InvalidArgumentError(
                f"checkpoint: {where}: {name}: expected True, False or None, got {_shown(group[name])}."
            )
    for name in _NUMBERS:
        if group.get(name) is not None:
            _number(f"{where}: {name}", group[name])
    if "betas" in group:
        betas = group["betas"]
        if not isinstance(betas, list | tuple) or len(betas) < 2:
            raise InvalidArgumentError(f"checkpoint: {where}: betas: expected two numbers, got {_shown(betas)}.")
        for beta in betas:
            if _number(f"{where}: betas", beta) >= 1:
                raise InvalidArgumentError(
                    f"checkpoint: {where}: betas: expected numbers below 1, got {_shown(betas)}."
                )


def _number(where: str, value: Any) -> float:
    held = value.item() if isinstance(value, Tensor) and value.numel() == 1 and not value.is_meta else value
    if not isinstance(held, int | float) or not 0 <= held < 1e300:
        raise InvalidArgumentError(f"checkpoint: {where}: expected a number >= 0, got {_shown(value)}.")
    return float(held)


def _shown(value: Any) -> str:
    return kind_of(value) if isinstance(value, Tensor) else f"{kind_of(value)} {reprlib.repr(value)}"


def recognise(state_dict: Mapping[str, Any], optimizer: OptimizerLike | None) -> type[Optimizer]:
    """Return the class of the optimizer that wrote a state dict.

    Args:
        state_dict: The state dict.
        optimizer: Its name or class, if the caller knows it.

    Returns:
        The class.

    Raises:
        InvalidArgumentError: If it cannot be told; the message asks for the name.
    """
    names = _candidates(state_dict)
    if optimizer is not None:
        named = class_of(optimizer)[0]
        if names and named.__name__ not in names and named is getattr(torch.optim, named.__name__, None):
            raise InvalidArgumentError(
                f"checkpoint: its keys are those of {' or '.join(sorted(names))}, not of {named.__name__}."
            )
        return named
    if len(names) == 1:
        return _torch_class(names.pop())
    if names:
        raise InvalidArgumentError(
            f"checkpoint: it does not say which optimizer wrote it (one of {', '.join(sorted(names))}); name it: "
            f"--optimizer on the command line, optimizer_class= in br.explain."
        )
    raise InvalidArgumentError(
        "checkpoint: it does not say which optimizer wrote it, and its keys are those of none of torch's; load it into "
        "that optimizer and ask br.explain(optimizer, model, ...), or name one of torch's that it is like: "
        "--optimizer, optimizer_class=."
    )


def _candidates(state_dict: Mapping[str, Any]) -> set[str]:
    """Return the names of torch's optimizers whose keys these are."""
    group = state_dict["param_groups"][0]
    states = {key for state in state_dict["state"].values() for key in state}
    for key, name in _STATES.items():
        if key in states:
            return {name}
    strange = set(group) - _FLAGS - _COMPANY - {"params"}
    fits = {name: keys for name, keys in _keys().items() if keys <= set(group) and strange <= keys}
    most = max((len(keys) for keys in fits.values()), default=0)
    names = {name for name, keys in fits.items() if len(keys) == most}
    if names == {"Adam", "AdamW"} and "decoupled_weight_decay" in group:
        return {"AdamW" if group["decoupled_weight_decay"] or COUPLED in group else "Adam"}
    if names == {"RAdam", "Adamax"} and "capturable" in group:
        return {"RAdam" if "decoupled_weight_decay" in group else "Adamax"}
    return names


def _torch_class(name: str) -> type[Optimizer]:
    cls: type[Optimizer] = getattr(torch.optim, name)
    return cls
