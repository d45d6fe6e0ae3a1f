"""`bayesreg prior`: look into prior files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayesreg.cli._output import for_json, say, show
from bayesreg.prior_file import describe_file

__all__ = ["prior"]

prior = typer.Typer(help="Look into prior files.", no_args_is_help=True)


@prior.command("show", epilog="Example: bayesreg prior show prior.safetensors")
def show_file(
    file: Annotated[Path, typer.Argument(help="What ModelPrior.save or `bayesreg fit` wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which parameter has which prior, where it comes from, and when it was written."""
    table = describe_file(file)
    if as_json:
        say(for_json(table.to_dict()))
    else:
        show(table)
