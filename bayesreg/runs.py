"""The models of `bayesreg fit`: built, and read back from a run folder."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayesreg.errors import InvalidArgumentError, PriorFileError
from bayesreg.model_prior import ModelPrior

__all__ = ["Standardize", "Unstandardize", "build_network", "load_run", "standardise"]


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


def build_network(name: str, inputs: int, outputs: int, hidden: int, regression: bool) -> nn.Sequential:
    """Build a network between layers that standardise features and, for regression, the target.

    Args:
        name: "linear", "mlp" (one hidden ReLU layer) or "module:function", called with (inputs, outputs).
        inputs: Features.
        outputs: Classes, or 1.
        hidden: Hidden units of "mlp".
        regression: Whether the target is a number.

    Returns:
        The network, in float64, its standardising layers neutral.

    Raises:
        InvalidArgumentError: If the name is none of these, or its function cannot be used.
    """
    if name == "linear":
        net: Any = nn.Linear(inputs, outputs)
    elif name == "mlp":
        net = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
    elif ":" in name:
        net = _built(name, inputs, outputs)
        if not isinstance(net, nn.Module):
            raise InvalidArgumentError(f"--model {name}: expected a torch module, got {type(net).__name__}.")
    else:
        raise InvalidArgumentError(f"--model: expected linear, mlp or module:function, got {name!r}.")
    layers: OrderedDict[str, nn.Module] = OrderedDict(standardize=Standardize(torch.zeros(2, inputs)), net=net)
    if regression:
        layers["unstandardize"] = Unstandardize(torch.zeros(2))
    return nn.Sequential(layers).double()


def standardise(network: nn.Sequential, features: Any, targets: Any) -> None:
    """Give the standardising layers the mean and standard deviation of the training data, in place."""
    fresh: dict[str, nn.Module] = {"standardize": Standardize(torch.as_tensor(features))}
    if hasattr(network, "unstandardize"):
        fresh["unstandardize"] = Unstandardize(torch.as_tensor(targets))
    for name, layer in fresh.items():
        setattr(network, name, layer.double())


def load_run(folder: str | os.PathLike[str]) -> tuple[nn.Sequential, ModelPrior]:
    """Read back what `bayesreg fit` wrote: the trained model, in evaluation mode, and its prior.

    Args:
        folder: The run folder. A model given as module:function is imported again.

    Returns:
        (model, prior). The model takes raw features, (n, inputs), and gives logits or, for regression, the target.

    Raises:
        PriorFileError: If a file is missing or damaged.
        InvalidArgumentError: If the model's function cannot be imported.

    Example:
        >>> import bayesreg as br
        >>> model, prior = br.load_run("runs/cancer")  # doctest: +SKIP
        >>> model(torch.zeros(1, 30).double()).softmax(1)  # doctest: +SKIP
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    where = Path(folder)
    try:
        metrics = json.loads((where / "metrics.json").read_text(encoding="utf-8"))
        build, regression = dict(metrics["build"]), metrics["task"] == "regression"
        name = str(build["model"])
        inputs, outputs, hidden = (int(build[key]) for key in ("inputs", "outputs", "hidden"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PriorFileError(f"{where}: not a readable run folder of bayesreg fit ({error}).") from error
    network = build_network(name, inputs, outputs, hidden, regression)
    try:
        load_model(network, str(where / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise PriorFileError(f"{where / 'model.safetensors'}: does not fit {name} ({error}).") from error
    return network.eval(), ModelPrior.load(where / "prior.safetensors", network)


def _built(name: str, inputs: int, outputs: int) -> Tensor | nn.Module:
    module, _, function = name.partition(":")
    sys.path.insert(0, "")
    try:
        built: nn.Module = getattr(importlib.import_module(module), function)(inputs, outputs)
        return built
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidArgumentError(f"--model {name}: cannot be imported ({error}).") from error
    except TypeError as error:
        raise InvalidArgumentError(f"--model {name}: cannot be called with (inputs, outputs) ({error}).") from error
    finally:
        sys.path.remove("")
