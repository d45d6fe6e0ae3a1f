"""The command line: `bayesreg convert`, `explain`, `fit`, `predict`, `report`, `strength`, `prior` and `demo`."""

from __future__ import annotations

import sys
import warnings

import typer

from bayesreg._text import one_line
from bayesreg.cli.convert import convert
from bayesreg.cli.demo import demo
from bayesreg.cli.explain import explain, probe
from bayesreg.cli.fit import fit
from bayesreg.cli.predict import predict
from bayesreg.cli.prior import prior
from bayesreg.cli.report import report
from bayesreg.cli.strength import strength
from bayesreg.errors import BayesRegError

__all__ = ["app", "main"]

app = typer.Typer(
    name="bayesreg",
    help="Bayesian priors for PyTorch: convert regularisation constants, fit MAP models, see a prior at work.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog="Example: bayesreg convert 5e-4 --num-data 50000")(convert)
app.command(epilog="Example: bayesreg explain --optimizer adamw --lr 1e-3 --weight-decay 0.01 --num-data 50000")(
    explain
)
app.command(epilog="Example: bayesreg probe torch.optim:AdamW --expect decoupled")(probe)
app.command(epilog="Example: bayesreg fit breast_cancer --prior 'laplace(0.5)' --output runs/cancer")(fit)
app.command(epilog="Example: bayesreg predict runs/cancer new.csv")(predict)
app.command(epilog="Example: bayesreg report runs/cancer")(report)
app.command(epilog="Example: bayesreg strength diabetes --prior 'gaussian(auto)'")(strength)
app.command(epilog="Example: bayesreg demo --output bayesreg-demo")(demo)
app.add_typer(prior, name="prior")


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Show the version and stop.")) -> None:
    if version:
        from bayesreg._version import __version__

        typer.echo(__version__)
        raise typer.Exit


def _one_line(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"warning: {one_line(str(message))}", err=True)


def main() -> None:
    """Run the command line; errors that bayesreg raises on purpose are one line and exit status 1."""
    warnings.showwarning = _one_line
    try:
        app()
    except (BayesRegError, ImportError, OSError) as error:
        # Of bayesreg's own sentence about a file, without the number before it.
        said = error.strerror if isinstance(error, OSError) and error.filename is None else None
        typer.echo(f"error: {one_line(said or str(error))}", err=True)
        sys.exit(1)
