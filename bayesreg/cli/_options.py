"""Options that the commands on a table have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from bayesreg.cli._loss import Word

__all__ = [
    "DataArgument",
    "DropOption",
    "FeaturesOption",
    "HeaderOption",
    "HiddenOption",
    "ModelOption",
    "NoiseOption",
    "SepOption",
    "TargetOption",
    "TaskName",
    "TaskOption",
    "listed",
]


class TaskName(Word):
    """What kind of target it is."""

    classification = "classification"
    regression = "regression"


DataArgument = Annotated[
    str, typer.Argument(help="A .csv, .parquet or .npz file, or breast_cancer, diabetes, digits, iris, wine.")
]
TargetOption = Annotated[str | None, typer.Option(help="Target column of a table; default the last.")]
FeaturesOption = Annotated[
    list[str] | None, typer.Option(help="Columns to use, by commas or one by one.  [default: all that can be]")
]
DropOption = Annotated[list[str] | None, typer.Option(help="Columns to leave out, by commas or one by one.")]
SepOption = Annotated[str | None, typer.Option(help="What separates the columns of a CSV.  [default: a comma]")]
HeaderOption = Annotated[
    bool | None,
    typer.Option("--header/--no-header", help="Whether a CSV begins with names.  [default: yes, unless numbers]"),
]
TaskOption = Annotated[TaskName | None, typer.Option(help="Default: by looking at the target, and said.")]
ModelOption = Annotated[str, typer.Option(help="linear, mlp, or module:function (inputs, outputs) -> module.")]
HiddenOption = Annotated[
    int | None, typer.Option(min=1, max=1_000_000, help="Hidden units of --model mlp.  [default: 32]")
]
NoiseOption = Annotated[
    str | None, typer.Option(help="Regression: noise std in target units, or learned.  [default: learned]")
]


def listed(names: list[str] | None) -> list[str] | None:
    """Return names that were given one by one or by commas; None where none were."""
    return None if not names else [name.strip() for given in names for name in given.split(",") if name.strip()]
