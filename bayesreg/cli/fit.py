"""`bayesreg fit`: a MAP model from a table, in a run folder."""

from __future__ import annotations

import math
import shutil
import tempfile
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesreg._support import checks
from bayesreg.cli._output import for_json, say, show
from bayesreg.errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch import nn

    from bayesreg.cli.tabular import Tabular
    from bayesreg.likelihoods import Likelihood
    from bayesreg.model_prior import ModelPrior
    from bayesreg.priors import Belief
    from bayesreg.trainer import FitResult, MAPTrainer

__all__ = ["fit"]


class TaskName(StrEnum):
    """What kind of target it is."""

    classification = "classification"
    regression = "regression"


class OptimizerName(StrEnum):
    """How to train."""

    auto = "auto"
    lbfgs = "lbfgs"
    proximal = "proximal"
    adam = "adam"
    sgd = "sgd"


def fit(
    data: Annotated[str, typer.Argument(help="A .csv or .npz file, or breast_cancer, diabetes, digits, iris, wine.")],
    target: Annotated[str | None, typer.Option(help="Target column of a CSV; default the last.")] = None,
    task: Annotated[TaskName | None, typer.Option(help="Default: by looking at the target.")] = None,
    model: Annotated[str, typer.Option(help="linear, mlp, or module:function (inputs, outputs) -> module.")] = "linear",
    hidden: Annotated[int, typer.Option(min=1, help="Hidden units of --model mlp.")] = 32,
    prior: Annotated[str, typer.Option(help="In words: gaussian(0.1), laplace(0.1), flat().")] = "gaussian(1.0)",
    noise_std: Annotated[str, typer.Option(help="Regression: noise std in target units, or learned.")] = "learned",
    optimizer: Annotated[OptimizerName, typer.Option(help="auto: lbfgs or proximal if linear, else adam.")] = (
        OptimizerName.auto
    ),
    lr: Annotated[float, typer.Option(help="Learning rate of adam and sgd.")] = 1e-2,
    epochs: Annotated[int, typer.Option(help="Epochs of adam and sgd.")] = 100,
    batch_size: Annotated[int, typer.Option(help="Batch size of adam and sgd.")] = 32,
    val_fraction: Annotated[float, typer.Option(help="Share of the rows held out for validation.")] = 0.2,
    starts: Annotated[
        int, typer.Option(min=1, help="Starting points of lbfgs and proximal; for priors that are not convex.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the initial weights and the order.")] = 0,
    keep_last: Annotated[
        bool, typer.Option("--keep-last", help="Keep the last epoch, not the best on validation.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Run folder to create; must not exist.")] = Path("runs/fit"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """MAP-train a model on a table; write model, prior, metrics and plots to a run folder."""
    import torch

    import bayesreg as br
    from bayesreg.cli.tabular import load_tabular
    from bayesreg.runs import build_network, standardise

    if output.exists():
        raise InvalidArgumentError(f"--output: {output} exists already; name another folder or remove it.")
    if not 0.0 <= val_fraction < 1.0:
        raise InvalidArgumentError(f"--val-fraction: expected a share in [0, 1), got {val_fraction:g}.")
    checks.positive("--lr", lr)
    table = load_tabular(data, target, task.value if task else None)
    train, val = _split(table, val_fraction, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(model, len(table.names), _outputs(table), hidden, table.task == "regression")
        standardise(network, *train)
    likelihood: Likelihood = br.likelihoods.Categorical()
    if table.task == "classification" and noise_std != "learned":
        raise InvalidArgumentError("--noise-std: a classification has no noise std; leave it out.")
    if table.task == "regression":
        likelihood = _gaussian_noise(noise_std, train[1])
    family = br.prior_from_words(prior, len(train[1]))
    chosen = _optimizer(optimizer, model, family.traits.smooth, lr)
    how: dict[str, Any] = {"max_epochs": epochs, "batch_size": batch_size, "restore_best": not keep_last}
    if isinstance(chosen, str):
        how = {"starts": starts}
    elif starts > 1:
        raise InvalidArgumentError(
            f"--starts: several starting points need a full-batch solver, --optimizer lbfgs or proximal, got "
            f"{optimizer.value}."
        )
    trainer = br.MAPTrainer(
        network,
        family,
        likelihood,
        optimizer=chosen,
        seed=seed,
        **how,
    )
    _start_at_centre(family, trainer.prior)
    result = trainer.fit(train, val)
    metrics = _metrics(table, data, model, prior, seed, trainer, result)
    metrics["build"] = {"model": model, "inputs": len(table.names), "outputs": _outputs(table), "hidden": hidden}
    metrics["architecture"] = str(network)
    _write(output, network, trainer, result, metrics)
    if as_json:
        say(for_json(metrics))
        return
    show(trainer.prior.describe(result.num_data))
    show(result.summary())
    if result.modes is not None:
        show(result.modes.table)
    say("Features (and a regression target) are standardised inside the model; the prior's scale is in those units.")
    say(f"Run folder: {output} (model, prior = br.load_run({str(output)!r}) reads it back)")


def _split(table: Tabular, val_fraction: float, seed: int) -> tuple[tuple[Any, Any], tuple[Any, Any] | None]:
    """Split at random; every class keeps at least its place in the target, not in each part."""
    import numpy as np

    n = len(table.target)
    held = round(n * val_fraction)
    if n - held < 2:
        raise InvalidArgumentError(f"--val-fraction: {n - held} of {n} rows are left to train on, 2 are needed.")
    order = np.random.default_rng(seed).permutation(n)
    rest, kept = order[:held], order[held:]
    train = (table.features[kept], table.target[kept])
    return train, (table.features[rest], table.target[rest]) if held else None


def _gaussian_noise(noise_std: str, targets: Any) -> Likelihood:
    from bayesreg.likelihoods import Gaussian

    if noise_std != "learned":
        return Gaussian(noise_std=_float(noise_std))
    likelihood = Gaussian(noise_std="learned")
    likelihood.log_noise_std.data.fill_(math.log(max(float(targets.std()), 1e-12)))
    return likelihood


def _outputs(table: Tabular) -> int:
    return max(len(table.classes), 1)


def _start_at_centre(family: Belief, prior: ModelPrior) -> None:
    """Begin at the weights a prior is centred on, biases too: far from them the first steps would only lead back."""
    import torch

    if family.reference is None:
        return
    for entry in prior:
        if entry.name in family.reference:
            with torch.no_grad():
                entry.parameter.copy_(family.reference[entry.name])


def _optimizer(name: OptimizerName, model: str, smooth: bool, lr: float) -> Any:
    import torch

    if name is OptimizerName.auto:
        name = OptimizerName.adam if model != "linear" else OptimizerName.lbfgs if smooth else OptimizerName.proximal
    if name is OptimizerName.adam:
        return partial(torch.optim.Adam, lr=lr)
    if name is OptimizerName.sgd:
        return partial(torch.optim.SGD, lr=lr, momentum=0.9)
    return name.value


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidArgumentError(f"--noise-std: expected a number or 'learned', got {text!r}.") from None


def _metrics(
    table: Tabular, data: str, model: str, prior: str, seed: int, trainer: MAPTrainer, result: FitResult
) -> dict[str, Any]:
    from bayesreg._version import __version__

    return {
        "bayesreg": __version__,
        "data": data,
        "task": table.task,
        "features": table.names,
        "classes": table.classes,
        "model": model,
        "prior": prior,
        "likelihood": trainer.likelihood.describe(),
        "seed": seed,
        **result.to_dict(),
        "routes": result.routes.to_dict()["rows"],
        "priors": trainer.prior.describe(result.num_data).to_dict()["rows"],
    }


def _write(output: Path, network: nn.Module, trainer: MAPTrainer, result: FitResult, metrics: dict[str, Any]) -> None:
    """Write the run folder whole or not at all."""
    from safetensors.torch import save_model

    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}-"))
    try:
        save_model(network, str(temporary / "model.safetensors"))
        trainer.prior.save(temporary / "prior.safetensors")
        (temporary / "metrics.json").write_text(for_json(metrics) + "\n", encoding="utf-8")
        (temporary / "history.json").write_text(for_json(list(result.history)) + "\n", encoding="utf-8")
        _plots(temporary, trainer, result)
        temporary.chmod(0o755)
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _plots(folder: Path, trainer: MAPTrainer, result: FitResult) -> None:
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        typer.echo("no pictures: pip install 'bayesreg[viz]' for them.", err=True)
        return
    from matplotlib.figure import Figure

    from bayesreg.plots import plot_history, plot_weights, save

    # Figures of their own: pyplot would look for a screen.
    for name, draw in (
        ("history.png", partial(plot_history, result)),
        ("weights.png", partial(plot_weights, trainer.prior)),
    ):
        save(draw(Figure(figsize=(6.4, 4.0), layout="constrained").add_subplot()), folder / name)
