"""The models of `bayesreg fit`: built, and read back from a run folder."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import os
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError, PriorFileError, kind_of, nearest
from bayesreg.model_prior import ModelPrior

__all__ = ["Standardize", "Unstandardize", "build_network", "imported", "load_run", "standardise"]


class Standardize(nn.Module):
    """(x − mean) / std with the mean and standard deviation of the training features.

    Args:
        features: (n, d) training features; constant columns keep a std of 1.

    Example:
        >>> Standardize(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))(torch.tensor([[2.0, 5.0]]))
        tensor([[0., 0.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        mean, std = features.mean(0), features.std(0, correction=0)
        # A constant column has a std of round-off, not of 0.
        std[std <= 1e-12 * mean.abs().clamp_min(1.0)] = 1.0
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised features."""
        return (x - self.mean) / self.std


class Unstandardize(nn.Module):
    """mean + std · x with the mean and standard deviation of the training targets.

    Args:
        targets: (n,) training targets.

    Example:
        >>> Unstandardize(torch.tensor([1.0, 3.0]))(torch.tensor([[-1.0]]))
        tensor([[1.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, targets: Tensor) -> None:
        super().__init__()
        mean, std = targets.mean(), targets.std(correction=0)
        constant = bool(std <= 1e-12 * mean.abs().clamp_min(1.0))
        self.register_buffer("mean", mean)
        self.register_buffer("std", torch.ones_like(std) if constant else std)

    def forward(self, x: Tensor) -> Tensor:
        """Return the values in units of the target."""
        return self.mean + self.std * x


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


def standardise(network: nn.Sequential, features: Any, targets: Any) -> None:
    """Give the standardising layers the mean and standard deviation of the training data, in place."""
    fresh: dict[str, nn.Module] = {"standardize": Standardize(torch.as_tensor(features))}
    if hasattr(network, "unstandardize"):
        fresh["unstandardize"] = Unstandardize(torch.as_tensor(targets))
    for name, layer in fresh.items():
        setattr(network, name, layer.double())


@answering
def load_run(
    folder: str | os.PathLike[str], model: nn.Module | None = None, *, trust: bool = False
) -> tuple[nn.Sequential, ModelPrior]:
    """Read back what `bayesreg fit` wrote: the trained model, in evaluation mode, and its prior.

    The folder's files are data. Of the networks that it can name, linear and mlp are rebuilt here; any other was made
    by a function that the folder names, which is called only if you say that you trust the folder.

    Args:
        folder: The run folder.
        model: The network that its weights are for, where `bayesreg fit --model module:function` trained one of your
            own: what the function returned, without the standardising layers. Default: linear or mlp is rebuilt.
        trust: Whether the function that the folder names is imported and called instead: it **executes code**, that
            of a file in the current folder too.

    Returns:
        (model, prior). The model takes raw features, (n, inputs), and gives logits (one of two classes, else one for
        each) or, for regression, the target.

    Raises:
        PriorFileError: If a file is missing or damaged, or does not fit the model.
        InvalidArgumentError: If the folder names a function and neither `model` nor `trust` is given; if both are, or
            the function cannot be imported.

    Example:
        >>> import bayesreg as br
        >>> model, prior = br.load_run("runs/cancer")  # doctest: +SKIP
        >>> model(torch.zeros(1, 30).double()).sigmoid()  # doctest: +SKIP
    """
    where = Path(folder)
    if model is not None and not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model: expected the network of the run, got {kind_of(model)}.")
    if model is not None and trust:
        raise InvalidArgumentError("trust: plays no part where the model is given; leave it out.")
    name, sizes, regression = _recipe(where)
    net: str | nn.Module = name if model is None else copy.deepcopy(model)
    if model is None and name not in ("linear", "mlp"):
        if not trust:
            raise InvalidArgumentError(
                f"{where}: the run's model is made by {name}, code that the folder names and that is not called "
                f"unasked: pass the network, load_run(folder, model=...), or load_run(folder, trust=True) to import "
                f"and call it."
            )
        net = imported(name, *sizes[:2])
    _require_room(where / "model.safetensors", name, *sizes)
    network = build_network(net, *sizes, regression)
    _load_weights(network, where / "model.safetensors", name)
    return network.eval(), ModelPrior.load(where / "prior.safetensors", network)


def _recipe(where: Path) -> tuple[str, tuple[int, int, int], bool]:
    """Return the model's name, its inputs, outputs and hidden units, and whether it is a regression."""
    path = where / "metrics.json"
    if not path.is_file():
        raise PriorFileError(f"{where}: not a readable run folder of bayesreg fit (it has no metrics.json).")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        build, task = metrics["build"], metrics["task"]
        name, sizes = build["model"], (build["inputs"], build["outputs"], build["hidden"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PriorFileError(f"{where}: not a readable run folder of bayesreg fit ({error}).") from error
    if not isinstance(name, str) or not all(type(size) is int and 0 < size < 2**31 for size in sizes):
        raise PriorFileError(
            f"{path}: damaged, expected a model's name and three sizes from 1 to 2^31, got {name!r}, "
            f"{', '.join(map(repr, sizes))}."
        )
    if task not in ("classification", "regression"):
        raise PriorFileError(f"{path}: damaged, expected the task classification or regression, got {task!r}.")
    return name, sizes, task == "regression"


def _require_room(path: Path, name: str, inputs: int, outputs: int, hidden: int) -> None:
    """Refuse a network whose weights, eight bytes each, its file is too small to hold, before it is made."""
    if not path.is_file():
        raise PriorFileError(f"{path}: no such file.")
    needed = {"linear": inputs * outputs, "mlp": (inputs + outputs) * hidden}.get(name, inputs)
    if 8 * needed > path.stat().st_size:
        raise PriorFileError(
            f"{path}: does not fit {name}: the run folder speaks of {inputs} inputs, {hidden} hidden units and "
            f"{outputs} outputs, and the file has {path.stat().st_size:,} bytes."
        )


def _load_weights(network: nn.Sequential, path: Path, name: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    own = network.state_dict(keep_vars=True)
    try:
        state = load(path.read_bytes())
        lacking, beyond = network.load_state_dict(state, strict=False)
    except (OSError, SafetensorError, RuntimeError, KeyError, AttributeError) as error:
        raise PriorFileError(f"{path}: does not fit {name} ({error}).") from error
    # A tied parameter is in the file under one of its names.
    held = {id(own[key]) for key in state if key in own}
    lacking = [key for key in lacking if id(own[key]) not in held]
    if lacking or beyond:
        said = [
            f"{word} {', '.join(keys)}" for word, keys in (("it lacks", lacking), ("beyond it has", beyond)) if keys
        ]
        raise PriorFileError(f"{path}: does not fit {name}: {'; '.join(said)}.")
