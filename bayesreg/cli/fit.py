"""`bayesreg fit`: a MAP model from a table, in a run folder."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesreg._support import checks
from bayesreg._support.files import check_writable
from bayesreg.cli._options import (
    DataArgument,
    DecimalOption,
    DropOption,
    FeaturesOption,
    HeaderOption,
    HiddenOption,
    ModelOption,
    NoiseOption,
    SepOption,
    TargetOption,
    TaskOption,
    Word,
    listed,
    whole,
)
from bayesreg.cli._output import for_json, require_no_option, say, show
from bayesreg.errors import InvalidArgumentError

if TYPE_CHECKING:
    from bayesreg.trainer import FitResult, MAPTrainer

__all__ = ["fit"]


class OptimizerName(Word):
    """How to train."""

    auto = "auto"
    lbfgs = "lbfgs"
    proximal = "proximal"
    adam = "adam"
    sgd = "sgd"


def fit(
    data: DataArgument,
    target: TargetOption = None,
    features: FeaturesOption = None,
    drop: DropOption = None,
    sep: SepOption = None,
    decimal: DecimalOption = None,
    header: HeaderOption = None,
    task: TaskOption = None,
    model: ModelOption = "linear",
    hidden: HiddenOption = None,
    prior: Annotated[
        str, typer.Option(help="In words: gaussian(0.1), laplace(auto), flat(). auto: chosen from the data.")
    ] = "gaussian(auto)",
    noise_std: NoiseOption = None,
    optimizer: Annotated[
        OptimizerName,
        OptimizerName.option(
            "auto: lbfgs or proximal if linear, or if auto is in the prior and no --epochs, --lr, --batch-size or "
            "--keep-last is given; else adam."
        ),
    ] = OptimizerName.auto,
    lr: Annotated[float | None, typer.Option(help="Learning rate of adam and sgd.  \\[default: 0.01]")] = None,
    epochs: Annotated[int | None, whole(1, 10_000_000, "Epochs of adam and sgd.  \\[default: 100]")] = None,
    batch_size: Annotated[int | None, whole(1, 2**31 - 1, "Batch size of adam and sgd.  \\[default: 32]")] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the rows held out.  \\[default: 0.2; of a linear model 0, and it is cross-validated]"
        ),
    ] = None,
    starts: Annotated[
        int, whole(1, 100_000, "Starting points of lbfgs and proximal; for priors that are not convex.")
    ] = 1,
    seed: Annotated[int, whole(0, 2**63 - 1, "Of the split, the initial weights and the order.")] = 0,
    keep_last: Annotated[
        bool, typer.Option("--keep-last", help="Keep the last epoch, not the best on validation.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the state in OUTPUT.checkpoint, and go on from it if it is there.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Run folder to create.")] = Path("runs/fit"),
    force: Annotated[bool, typer.Option("--force", help="Replace OUTPUT if it is a run folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """MAP-train a model on a table; write model, prior, metrics and plots to a run folder."""
    from bayesreg.cli.tabular.assess import cross_validated, on_rows
    from bayesreg.cli.tabular.coefficients import table_of
    from bayesreg.cli.tabular.data import load_tabular
    from bayesreg.cli.tabular.folder import metrics_of, require_replaceable, write_folder
    from bayesreg.cli.tabular.procedure import Recipe, fit_rows, split
    from bayesreg.runs.coefficients import coefficients_of

    require_no_option("--output", output)
    if val_fraction is not None and not 0.0 <= val_fraction < 1.0:
        raise InvalidArgumentError(f"--val-fraction: expected a share in [0, 1), got {val_fraction:g}.")
    if lr is not None:
        checks.positive("--lr", lr)
    table = load_tabular(
        data, target, task.value if task else None, header, sep=sep, decimal=decimal, features=listed(features),
        drop=listed(drop) or (),
    )  # fmt: skip
    recipe = Recipe(model, hidden, prior, noise_std, optimizer.value, lr, epochs, batch_size, starts, keep_last, seed)
    # A linear model is solved in a moment: it is measured by fitting it again, and no row is wasted.
    once = model == "linear" and optimizer.value not in ("adam", "sgd")
    share = (0.0 if once else 0.2) if val_fraction is None else val_fraction
    train, val = split(table, share, seed)
    _, solver, _ = recipe.planned(len(train), validated=val is not None)
    # Asked before the work, not after it; and after the options, as another folder would not mend those.
    require_replaceable(output, force=force)
    check_writable(output)
    checkpoint = output.with_name(f"{output.name}.checkpoint") if resume else None
    try:
        fitted = fit_rows(
            table, recipe, train, val, checkpoint=checkpoint,
            trained=lambda trainer, rows, held: _trained(trainer, rows, held, checkpoint, model != "linear"),
        )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo("interrupted before the fit, while its strength was chosen; no run folder was written.", err=True)
        raise typer.Exit(130) from None
    measured = None
    if val is not None:
        measured = on_rows(table, fitted, val)
    elif once and len(train) >= 10:
        measured = cross_validated(table, recipe, fitted)
    found = coefficients_of(fitted.network, fitted.encoded.names)
    metrics = metrics_of(table, data, recipe, fitted, measured, found)
    write_folder(output, table, fitted, measured, found, metrics, force=force)
    if checkpoint is not None:
        # All that it was for is in the run folder now.
        shutil.rmtree(checkpoint)
    if as_json:
        say(for_json(metrics))
        return
    say(f"Task: {table.words}")
    say(f"Optimizer: {solver}, {'by epochs' if solver in ('adam', 'sgd') else 'on all the data at once'}.")
    for note in (*table.notes, *fitted.encoded.notes):
        say(note)
    if fitted.choice is not None:
        show(fitted.choice.summary())
    show(fitted.prior.describe(fitted.result.loss_scale))
    outcome = fitted.result.summary()
    show(replace(outcome, notes=tuple(note.replace("restore_best=False", "--keep-last") for note in outcome.notes)))
    if fitted.result.modes is not None:
        show(fitted.result.modes.table)
    if measured is not None:
        show(measured.table)
    if found is not None:
        show(table_of(*found, table.classes, table.target_name))
    say("Measured features (and a regression target) are standardised inside the model; the prior's scale is in those "
        "units.")  # fmt: skip
    asked = ", trust=True" if ":" in model else ""
    say(f"Run folder: {output} (br.load_run({str(output)!r}{asked}) reads it back; bayesreg predict, bayesreg report)")


def _trained(trainer: MAPTrainer, train: Any, val: Any, checkpoint: Path | None, network: bool) -> FitResult:
    """Train; an interrupt ends the command with a sentence, and the status that shells give to it."""
    try:
        with warnings.catch_warnings():
            if network:
                # Said below, in words that the command line can follow.
                warnings.filterwarnings("ignore", ".*stopped at a KKT residual", RuntimeWarning)
            result = trainer.fit(train, val, resume=checkpoint is not None)
        if network and result.converged is False:
            typer.echo(
                f"note: the training ended at a KKT residual of {result.kkt_residual:.1e}: a network of ReLU units may "
                f"have no smaller one, as its minimum can lie on a kink. The scores are of what was found; --optimizer "
                f"adam trains by epochs instead.",
                err=True,
            )
        return result
    except KeyboardInterrupt:
        where = "" if trainer.result is None else f", {trainer.result.interrupted.removeprefix('KeyboardInterrupt ')}"
        if checkpoint is None:
            kept = "; no run folder was written. With --resume a training is kept, and goes on."
        else:
            kept = f"; its state is in {checkpoint}: the same command goes on from there."
        typer.echo(f"interrupted{where}{kept}", err=True)
        raise typer.Exit(130) from None
