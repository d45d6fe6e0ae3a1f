"""`bayesreg fit`: a MAP model from a table, in a run folder."""

from __future__ import annotations

import shutil
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesreg._support import checks
from bayesreg._support.files import atomic_folder, check_writable
from bayesreg.cli._network import likelihood_of, network_of
from bayesreg.cli._options import (
    DataArgument,
    HeaderOption,
    HiddenOption,
    ModelOption,
    NoiseOption,
    TargetOption,
    TaskOption,
)
from bayesreg.cli._output import for_json, require_no_option, say, show
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.auto import asks_to_choose, at_scale_one

if TYPE_CHECKING:
    from torch import nn

    from bayesreg.cli.tabular import Tabular
    from bayesreg.likelihoods import Likelihood
    from bayesreg.model_prior import ModelPrior
    from bayesreg.priors import Belief
    from bayesreg.strength import Choice
    from bayesreg.trainer import FitResult, MAPTrainer

__all__ = ["fit"]


class OptimizerName(StrEnum):
    """How to train."""

    auto = "auto"
    lbfgs = "lbfgs"
    proximal = "proximal"
    adam = "adam"
    sgd = "sgd"


def fit(
    data: DataArgument,
    target: TargetOption = None,
    header: HeaderOption = None,
    task: TaskOption = None,
    model: ModelOption = "linear",
    hidden: HiddenOption = None,
    prior: Annotated[str, typer.Option(help="In words: gaussian(0.1), laplace(auto), flat().")] = "gaussian(1.0)",
    noise_std: NoiseOption = None,
    optimizer: Annotated[OptimizerName, typer.Option(help="auto: lbfgs or proximal if linear, else adam.")] = (
        OptimizerName.auto
    ),
    lr: Annotated[float | None, typer.Option(help="Learning rate of adam and sgd.  [default: 0.01]")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=10_000_000, help="Epochs of adam and sgd.  [default: 100]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=2**31 - 1, help="Batch size of adam and sgd.  [default: 32]")
    ] = None,
    val_fraction: Annotated[float, typer.Option(help="Share of the rows held out for validation.")] = 0.2,
    starts: Annotated[
        int,
        typer.Option(min=1, max=100_000, help="Starting points of lbfgs and proximal; for priors that are not convex."),
    ] = 1,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Of the split, the initial weights and the order.")
    ] = 0,
    keep_last: Annotated[
        bool, typer.Option("--keep-last", help="Keep the last epoch, not the best on validation.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep the state in OUTPUT.checkpoint, and go on from it if it is there."),
    ] = False,
    output: Annotated[Path, typer.Option(help="Run folder to create; must not exist.")] = Path("runs/fit"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """MAP-train a model on a table; write model, prior, metrics and plots to a run folder."""
    import bayesreg as br
    from bayesreg.cli.tabular import load_tabular

    require_no_option("--output", output)
    if output.exists():
        raise InvalidArgumentError(f"--output: {output} exists already; name another folder or remove it.")
    # Asked before the work, not after it.
    check_writable(output)
    if not 0.0 <= val_fraction < 1.0:
        raise InvalidArgumentError(f"--val-fraction: expected a share in [0, 1), got {val_fraction:g}.")
    if lr is not None:
        checks.positive("--lr", lr)
    table = load_tabular(data, target, task.value if task else None, header)
    train, val = _split(table, val_fraction, seed)
    network, sizes = network_of(table, train, model, hidden, seed)
    likelihood = likelihood_of(table, train[1], noise_std)
    auto = asks_to_choose(prior)
    family = br.prior_from_words(at_scale_one(prior) if auto else prior, len(train[1]))
    name = _solver(optimizer, "linear" if auto else model, family.traits.smooth)
    chosen = _optimizer(name, 1e-2 if lr is None else lr)
    stochastic = {"--lr": lr, "--epochs": epochs, "--batch-size": batch_size, "--keep-last": keep_last or None}
    given = [option for option, value in stochastic.items() if value is not None]
    how: dict[str, Any]
    if isinstance(chosen, str):
        if given:
            raise InvalidArgumentError(
                f"{', '.join(given)}: {'plays' if len(given) == 1 else 'play'} no part with {chosen}, which solves on "
                f"all the data to optimality; leave it out, or choose --optimizer adam or sgd."
            )
        how = {"starts": starts}
    else:
        if starts > 1:
            raise InvalidArgumentError(
                f"--starts: several starting points need a full-batch solver, --optimizer lbfgs or proximal, got "
                f"{name.value}."
            )
        if keep_last and val is None:
            raise InvalidArgumentError("--keep-last: without validation rows the last epoch is kept; leave it out.")
        how = {"max_epochs": epochs or 100, "batch_size": batch_size or 32, "restore_best": not keep_last}
    choice = None
    rules: Any = family
    if auto:
        if starts > 1:
            raise InvalidArgumentError("--starts: plays no part where the strength is chosen; leave it out.")
        choice = _chosen(network, family, likelihood, train, seed, chosen, how)
        network, rules, likelihood = choice.model, choice.prior, choice.likelihood
        if isinstance(chosen, str) and model != "linear":
            # As far as it is worth to take a network; the residual is in the summary.
            how = {"tolerance": 1e-3}
    checkpoint = output.with_name(f"{output.name}.checkpoint") if resume else None
    trainer = br.MAPTrainer(network, rules, likelihood, optimizer=chosen, seed=seed, checkpoint=checkpoint, **how)
    if choice is None:
        _start_at_centre(family, trainer.prior)
    result = _trained(trainer, train, val, checkpoint)
    metrics = _metrics(table, data, model, prior, seed, trainer, result)
    metrics["build"] = dict(zip(("model", "inputs", "outputs", "hidden"), (model, *sizes), strict=True))
    metrics["architecture"] = str(network)
    metrics["strength"] = None if choice is None else choice.to_dict()
    _write(output, network, trainer, result, metrics, choice)
    if checkpoint is not None:
        # All that it was for is in the run folder now.
        shutil.rmtree(checkpoint)
    if as_json:
        say(for_json(metrics))
        return
    say(f"Task: {table.words}")
    if choice is not None:
        show(choice.summary())
    show(trainer.prior.describe(result.loss_scale))
    show(result.summary())
    if result.modes is not None:
        show(result.modes.table)
    say("Features (and a regression target) are standardised inside the model; the prior's scale is in those units.")
    asked = ", trust=True" if ":" in model else ""
    say(f"Run folder: {output} (model, prior = br.load_run({str(output)!r}{asked}) reads it back)")


def _trained(trainer: MAPTrainer, train: Any, val: Any, checkpoint: Path | None) -> FitResult:
    """Train; an interrupt ends the command with a sentence, and the status that shells give to it."""
    try:
        return trainer.fit(train, val, resume=checkpoint is not None)
    except KeyboardInterrupt:
        where = "" if trainer.result is None else f", {trainer.result.interrupted.removeprefix('KeyboardInterrupt ')}"
        if checkpoint is None:
            kept = "; no run folder was written. With --resume a training is kept, and goes on."
        else:
            kept = f"; its state is in {checkpoint}: the same command goes on from there."
        typer.echo(f"interrupted{where}{kept}", err=True)
        raise typer.Exit(130) from None


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


def _chosen(
    network: nn.Module,
    family: Belief,
    likelihood: Likelihood,
    train: Any,
    seed: int,
    optimizer: Any,
    how: dict[str, Any],
) -> Choice:
    """Choose the strength, with the same solver or optimizer that the fit has."""
    import bayesreg as br

    given: dict[str, Any] = {"optimizer": optimizer}
    if not isinstance(optimizer, str):
        given |= {"max_epochs": how["max_epochs"], "batch_size": how["batch_size"]}
    return br.choose_strength(network, family, likelihood, train, seed=seed, **given)


def _start_at_centre(family: Belief, prior: ModelPrior) -> None:
    """Begin at the weights a prior is centred on, biases too: far from them the first steps would only lead back."""
    import torch

    if family.reference is None:
        return
    for entry in prior:
        if entry.name in family.reference:
            with torch.no_grad():
                entry.parameter.copy_(family.reference[entry.name])


def _solver(name: OptimizerName, model: str, smooth: bool) -> OptimizerName:
    if name is not OptimizerName.auto:
        return name
    return OptimizerName.adam if model != "linear" else OptimizerName.lbfgs if smooth else OptimizerName.proximal


def _optimizer(name: OptimizerName, lr: float) -> Any:
    import torch

    if name is OptimizerName.adam:
        return partial(torch.optim.Adam, lr=lr)
    if name is OptimizerName.sgd:
        return partial(torch.optim.SGD, lr=lr, momentum=0.9)
    return name.value


def _metrics(
    table: Tabular, data: str, model: str, prior: str, seed: int, trainer: MAPTrainer, result: FitResult
) -> dict[str, Any]:
    from bayesreg._version import __version__
    from bayesreg.likelihoods.saved import settings_of

    return {
        "bayesreg": __version__,
        "data": data,
        "task": table.task,
        "task_why": table.why,
        "features": table.names,
        "classes": table.classes,
        "model": model,
        "prior": prior,
        "likelihood": trainer.likelihood.describe(),
        "likelihood_settings": settings_of(trainer.likelihood),
        "seed": seed,
        **result.to_dict(),
        "routes": result.routes.to_dict()["rows"],
        "priors": trainer.prior.describe(result.loss_scale).to_dict()["rows"],
    }


def _write(
    output: Path,
    network: nn.Module,
    trainer: MAPTrainer,
    result: FitResult,
    metrics: dict[str, Any],
    choice: Choice | None,
) -> None:
    """Write the run folder whole or not at all."""
    from bayesreg.runs import write_run

    with atomic_folder(output) as folder:
        write_run(folder, network, trainer.prior, trainer.likelihood, metrics, result.history)
        _plots(folder, trainer, result, choice)


def _plots(folder: Path, trainer: MAPTrainer, result: FitResult, choice: Choice | None) -> None:
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        typer.echo("no pictures: pip install 'bayesreg[viz]' for them.", err=True)
        return
    from matplotlib.figure import Figure

    from bayesreg.plots import plot_history, plot_strength, plot_weights, save

    # Figures of their own: pyplot would look for a screen.
    pictures = {"history.png": partial(plot_history, result), "weights.png": partial(plot_weights, trainer.prior)}
    if choice is not None:
        pictures["strength.png"] = partial(plot_strength, choice)
    for name, draw in pictures.items():
        save(draw(Figure(figsize=(6.4, 4.0), layout="constrained").add_subplot()), folder / name)
