"""Read a run folder back."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from bayesreg._support.calls import answering
from bayesreg.data import BatchFormat
from bayesreg.errors import InvalidArgumentError, PriorFileError, kind_of
from bayesreg.likelihoods import Likelihood
from bayesreg.likelihoods.saved import likelihood_from
from bayesreg.model_prior import ModelPrior
from bayesreg.runs.names import names_from
from bayesreg.runs.network import build_network, imported
from bayesreg.runs.run import Run
from bayesreg.tables import Encoder

__all__ = ["load_run"]


@answering
def load_run(
    folder: str | os.PathLike[str],
    model: nn.Module | None = None,
    *,
    likelihood: Likelihood | None = None,
    trust: bool = False,
) -> Run:
    """Read back what `br.save_run` or `bayesreg fit` wrote: the trained model, in evaluation mode, its prior and more.

    The folder's files are data. Of the networks that a folder can name, linear and mlp are rebuilt here; any other is
    yours to give, or was made by a function that the folder names, which is called only if you say that you trust it.

    Args:
        folder: The run folder.
        model: The network that its weights are for: of `save_run` the model, of `bayesreg fit --model
            module:function` what the function returned, without the standardising layers. It is copied. Default:
            linear or mlp is rebuilt.
        likelihood: The likelihood, where only code can make it: a loss, a class of your own.
        trust: Whether the function that the folder names is imported and called instead: it **executes code**, that
            of a file in the current folder too.

    Returns:
        The run: model, prior, likelihood with its noise, names of classes and features, numbers; it unpacks as
        `model, prior`. A model of `bayesreg fit` takes raw features, (n, inputs), and gives logits (one of two
        classes, else one for each) or, for regression, the target.

    Raises:
        PriorFileError: If a file is missing or damaged, or does not fit the model.
        InvalidArgumentError: If the model must be given and is not, or the function cannot be imported.

    Example:
        >>> import bayesreg as br
        >>> model, prior = br.load_run("runs/cancer")  # doctest: +SKIP
        >>> br.load_run("runs/cancer").predict(X, kind="names")[:2]  # doctest: +SKIP
        ['benign', 'malignant']
    """
    where = Path(folder)
    if model is not None and not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model: expected the network of the run, got {kind_of(model)}.")
    if likelihood is not None and not isinstance(likelihood, Likelihood):
        raise InvalidArgumentError(f"likelihood: expected one of br.likelihoods, got {kind_of(likelihood)}.")
    if model is not None and trust:
        raise InvalidArgumentError("trust: plays no part where the model is given; leave it out.")
    metrics = _metrics(where)
    network = _given(where, model, metrics) if metrics.get("build", 0) is None else _built(where, model, metrics, trust)
    prior = ModelPrior.load(where / "prior.safetensors", network)
    return Run(
        network.eval(),
        prior,
        likelihood or _likelihood(where, metrics),
        _names(where, metrics, "classes"),
        _names(where, metrics, "features"),
        metrics.get("output") if isinstance(metrics.get("output"), str | int) else None,
        _form(where, metrics),
        metrics,
        _columns(where, metrics),
    )


def _metrics(where: Path) -> dict[str, Any]:
    path = where / "metrics.json"
    if not path.is_file():
        raise PriorFileError(f"{where}: not a readable run folder of bayesreg fit (it has no metrics.json).")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PriorFileError(f"{where}: not a readable run folder of bayesreg fit ({error}).") from error
    if not isinstance(metrics, dict):
        kind = type(metrics).__name__
        raise PriorFileError(f"{where}: not a readable run folder of bayesreg fit (expected a mapping, got {kind}).")
    return metrics


def _given(where: Path, model: nn.Module | None, metrics: Mapping[str, Any]) -> nn.Module:
    """Return a model of one's own with the weights of the folder."""
    if model is None:
        raise InvalidArgumentError(
            f"{where}: the run's model is a {metrics.get('class')} of your own, which the folder cannot make: pass "
            f"one, load_run(folder, model)."
        )
    network = copy.deepcopy(model)
    _load_weights(network, where / "model.safetensors", type(model).__name__)
    return network


def _built(where: Path, model: nn.Module | None, metrics: Mapping[str, Any], trust: bool) -> nn.Module:
    """Return a network of `bayesreg fit`, between its standardising layers."""
    name, sizes, regression = _recipe(where, metrics)
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
    return network


def _recipe(where: Path, metrics: Mapping[str, Any]) -> tuple[str, tuple[int, int, int], bool]:
    """Return the model's name, its inputs, outputs and hidden units, and whether it is a regression."""
    path = where / "metrics.json"
    try:
        build, task = metrics["build"], metrics["task"]
        name, sizes = build["model"], (build["inputs"], build["outputs"], build["hidden"])
    except (KeyError, TypeError) as error:
        raise PriorFileError(f"{where}: not a readable run folder of bayesreg fit ({error}).") from error
    if not isinstance(name, str) or not all(type(size) is int and 0 < size < 2**31 for size in sizes):
        raise PriorFileError(
            f"{path}: damaged, expected a model's name and three sizes from 1 to 2^31, got {name!r}, "
            f"{', '.join(map(repr, sizes))}."
        )
    if task not in ("classification", "regression"):
        raise PriorFileError(f"{path}: damaged, expected the task classification or regression, got {task!r}.")
    return name, sizes, task == "regression"


def _likelihood(where: Path, metrics: Mapping[str, Any]) -> Likelihood | None:
    settings = metrics.get("likelihood_settings")
    if settings is None:
        return None
    try:
        if not isinstance(settings, dict):
            raise InvalidArgumentError(f"expected a mapping, got {type(settings).__name__}")
        return likelihood_from(settings)
    except InvalidArgumentError as error:
        raise PriorFileError(f"{where / 'metrics.json'}: damaged likelihood_settings ({error}).") from error


def _form(where: Path, metrics: Mapping[str, Any]) -> BatchFormat:
    batch = metrics.get("batch")
    try:
        return BatchFormat() if batch is None else BatchFormat(batch["target"], batch["sample_weight"])
    except (TypeError, KeyError, InvalidArgumentError) as error:
        raise PriorFileError(f"{where / 'metrics.json'}: damaged batch ({error}).") from error


def _names(where: Path, metrics: Mapping[str, Any], which: str) -> tuple[str, ...]:
    given = metrics.get(which)
    try:
        return () if given is None else names_from(which, given)
    except InvalidArgumentError as error:
        raise PriorFileError(f"{where / 'metrics.json'}: damaged {which} ({error}).") from error


def _columns(where: Path, metrics: Mapping[str, Any]) -> Encoder | None:
    if metrics.get("columns") is None:
        return None
    try:
        found = Encoder.from_dict({"columns": metrics["columns"]})
    except InvalidArgumentError as error:
        raise PriorFileError(f"{where / 'metrics.json'}: {error}") from error
    if found.names != metrics.get("features"):
        raise PriorFileError(f"{where / 'metrics.json'}: damaged, its columns do not make its features.")
    return found


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


def _load_weights(network: nn.Module, path: Path, name: str) -> None:
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
