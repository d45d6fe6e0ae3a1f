"""The models of `bayesreg fit`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bayesreg.data.scaling import Standardize, Unstandardize
from bayesreg.errors import InvalidArgumentError, kind_of, nearest

__all__ = ["Standardize", "Unstandardize", "build_network", "imported", "standardise"]


def build_network(net: str | nn.Module, inputs: int, outputs: int, hidden: int, regression: bool) -> nn.Sequential:
    """Build a network between layers that standardise features and, for regression, the target.

    Args:
        net: "linear", "mlp" (one hidden ReLU layer), or a module that takes (n, inputs) to (n, outputs).
        inputs: Features.
        outputs: Classes; 1 for two classes, and for a number.
        hidden: Hidden units of "mlp".
        regression: Whether the target is a number.

    Returns:
        The network, in float64, its standardising layers neutral.

    Raises:
        InvalidArgumentError: If the name is none of these, or there is no memory for so large a network.
    """
    if isinstance(net, str) and net not in ("linear", "mlp"):
        raise InvalidArgumentError(
            f"--model: expected linear, mlp or module:function, got {net!r}{nearest(net, ['linear', 'mlp'])}"
        )
    try:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            standardize=Standardize(torch.zeros(2, inputs)), net=_made(net, inputs, outputs, hidden)
        )
        if regression:
            layers["unstandardize"] = Unstandardize(torch.zeros(2))
        return nn.Sequential(layers).double()
    # What torch says where it cannot have the memory, or counts beyond 2^63.
    except (MemoryError, RuntimeError, OverflowError) as error:
        raise InvalidArgumentError(
            f"--model {net}: a network of {inputs} inputs, {hidden} hidden units and {outputs} outputs cannot be made "
            f"({error})."
        ) from error


def _made(net: str | nn.Module, inputs: int, outputs: int, hidden: int) -> nn.Module:
    if isinstance(net, nn.Module):
        return net
    if net == "linear":
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def imported(name: str, inputs: int, outputs: int) -> nn.Module:
    """Call the function that "module:function" names, found from the current folder too. This executes code.

    Args:
        name: Its name.
        inputs: What it is called with.
        outputs: The same.

    Returns:
        The module that it returned.

    Raises:
        InvalidArgumentError: If it cannot be imported, or returns something else. What it raises itself passes.
    """
    where, _, function = name.partition(":")
    sys.path.insert(0, "")
    try:
        build = getattr(importlib.import_module(where), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidArgumentError(f"--model {name}: cannot be imported ({error}).") from error
    finally:
        sys.path.remove("")
    if not callable(build):
        raise InvalidArgumentError(f"--model {name}: expected a function of (inputs, outputs), got {kind_of(build)}.")
    try:
        inspect.signature(build).bind(inputs, outputs)
    except TypeError as error:
        raise InvalidArgumentError(f"--model {name}: cannot be called with (inputs, outputs) ({error}).") from error
    except ValueError:
        pass  # written in C, without a signature
    built = build(inputs, outputs)
    if not isinstance(built, nn.Module):
        raise InvalidArgumentError(f"--model {name}: expected a torch module, got {kind_of(built)}.")
    return built


def standardise(network: nn.Sequential, features: Any, targets: Any, measured: Sequence[bool] | None = None) -> None:
    """Give the standardising layers the mean and standard deviation of the training data, in place.

    Args:
        network: From `build_network`.
        features: (n, d).
        targets: (n,).
        measured: Which features to standardise; the others, 0 or 1, stay as they are. Default: all.
    """
    layer = Standardize(torch.as_tensor(features))
    if measured is not None:
        left = ~torch.as_tensor(list(measured))
        layer.mean[left], layer.std[left] = 0.0, 1.0
    fresh: dict[str, nn.Module] = {"standardize": layer}
    if hasattr(network, "unstandardize"):
        fresh["unstandardize"] = Unstandardize(torch.as_tensor(targets))
    for name, made in fresh.items():
        setattr(network, name, made.double())
