"""The run folder of a table: numbers, model, pictures."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import typer

from bayesreg._support.files import atomic_folder
from bayesreg._text import printable
from bayesreg._version import __version__
from bayesreg.cli.tabular.assess import Assessment
from bayesreg.cli.tabular.data import Tabular
from bayesreg.cli.tabular.elsewhere import sklearn_setting
from bayesreg.cli.tabular.procedure import Fitted, Recipe
from bayesreg.errors import InvalidArgumentError
from bayesreg.likelihoods.saved import settings_of
from bayesreg.runs import is_run, write_run
from bayesreg.runs.coefficients import Coefficient

__all__ = ["metrics_of", "require_replaceable", "write_folder"]

Coefficients = tuple[Sequence[Coefficient], Sequence[float]]


def require_replaceable(output: Path, *, force: bool) -> None:
    """Raise where there is something already that may not be replaced.

    Args:
        output: The run folder.
        force: Whether one that is there is to be replaced.

    Raises:
        InvalidArgumentError: If it may not.
    """
    if not output.exists():
        return
    if not force:
        raise InvalidArgumentError(f"--output: {output} exists already; name another folder, or replace it by --force.")
    if not is_run(output):
        raise InvalidArgumentError(f"--force: {output} is no run folder, and is left as it is; name another.")


def metrics_of(
    table: Tabular,
    data: str,
    recipe: Recipe,
    fitted: Fitted,
    measured: Assessment | None,
    found: Coefficients | None,
) -> dict[str, Any]:
    """Return all numbers of a run, for its folder and for --json.

    Args:
        table: The table.
        data: Where it is from.
        recipe: How the model was made.
        fitted: The model.
        measured: On rows that it did not see.
        found: Coefficients and intercepts, or None.

    Returns:
        What JSON can hold.
    """
    result, encoder = fitted.result, fitted.encoded.encoder
    return {
        "bayesreg": __version__,
        "data": data,
        "target": table.target_name,
        "task": table.task,
        "task_why": table.why,
        "notes": [*table.notes, *fitted.encoded.notes],
        "features": fitted.encoded.names,
        "columns": None if encoder is None else encoder.to_dict()["columns"],
        "classes": table.classes,
        "model": recipe.model,
        "prior": recipe.prior,
        "likelihood": fitted.likelihood.describe(),
        "likelihood_settings": settings_of(fitted.likelihood),
        "seed": recipe.seed,
        **result.to_dict(),
        "routes": result.routes.to_dict()["rows"],
        "priors": fitted.prior.describe(result.loss_scale).to_dict()["rows"],
        "build": dict(zip(("model", "inputs", "outputs", "hidden"), (recipe.model, *fitted.sizes), strict=True)),
        "architecture": str(fitted.network),
        "strength": None if fitted.choice is None else fitted.choice.to_dict(),
        "assessment": None if measured is None else measured.to_dict(),
        "coefficients": None if found is None else [one.to_dict() for one in found[0]],
        "intercepts": None if found is None else list(found[1]),
        "sklearn": None if found is None else sklearn_setting(fitted),
    }


def write_folder(
    output: Path,
    table: Tabular,
    fitted: Fitted,
    measured: Assessment | None,
    found: Coefficients | None,
    metrics: dict[str, Any],
    *,
    force: bool,
) -> None:
    """Write the run folder whole or not at all; one that it replaces is removed when the new one is there.

    Args:
        output: The folder.
        table: The table.
        fitted: The model.
        measured: On rows that it did not see.
        found: Coefficients and intercepts, or None.
        metrics: The numbers.
        force: Whether a run folder that is there is replaced.
    """
    with atomic_folder(output, replace=force) as folder:
        write_run(folder, fitted.network, fitted.prior, fitted.likelihood, metrics, fitted.result.history)
        _pictures(folder, table, fitted, measured, found)


def _pictures(
    folder: Path, table: Tabular, fitted: Fitted, measured: Assessment | None, found: Coefficients | None
) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        typer.echo("no pictures: pip install 'bayesreg[viz]' for them.", err=True)
        return
    from matplotlib.figure import Figure

    from bayesreg import plots

    drawn: dict[str, Any] = {}
    # A solver's few records are no curve.
    if len(fitted.result.history) > 2:
        drawn["history.png"] = partial(plots.plot_history, fitted.result)
    if found is None:
        drawn["weights.png"] = partial(plots.plot_weights, fitted.prior)
    else:
        # Of several outputs the one that it moves most.
        # What a terminal must not see a font cannot draw.
        largest = {printable(one.feature): max(one.per_std, key=abs) for one in found[0]}
        drawn["coefficients.png"] = partial(plots.plot_coefficients, largest)
    if measured is not None and table.task == "regression":
        observed = table.target[measured.rows].astype(np.float64)
        drawn["predicted.png"] = partial(plots.plot_predicted, measured.predicted[:, 0], observed)
    elif measured is not None:
        happened, shares = _happened(table, measured)
        drawn["calibration.png"] = partial(plots.plot_calibration, shares, happened)
    if fitted.choice is not None:
        drawn["strength.png"] = partial(plots.plot_strength, fitted.choice)
    for name, draw in drawn.items():
        # Figures of their own: pyplot would look for a screen.
        plots.save(draw(Figure(figsize=(6.4, 4.0), layout="constrained").add_subplot()), folder / name)


def _happened(table: Tabular, measured: Assessment) -> tuple[Any, Any]:
    """Return whether it was, and its probability: of the second of two classes, else of the likeliest."""
    target = table.target[measured.rows].astype(int)
    if len(table.classes) == 2:
        return target == 1, measured.predicted[:, 1]
    likeliest = measured.predicted.argmax(1)
    return target == likeliest, measured.predicted.max(1)
