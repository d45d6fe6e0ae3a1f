"""Options that several commands have: numbers as people write them, words, and what says of a table."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, NoReturn, Self

import typer

from bayesreg.errors import nearest

__all__ = [
    "DataArgument",
    "DecimalOption",
    "DropOption",
    "FeaturesOption",
    "HeaderOption",
    "HiddenOption",
    "ModelOption",
    "NoiseOption",
    "NumData",
    "SepOption",
    "Steps",
    "TargetOption",
    "TaskName",
    "TaskOption",
    "Word",
    "listed",
    "whole",
]


def _count(text: str) -> int:
    """Return a number of examples or steps as people write it: 50000, 50_000, 5e4."""
    given = str(text).strip()
    if re.fullmatch(r"[+-]?\d+(_\d+)*", given, re.ASCII):
        return int(given) if len(given) < 400 else _no_count(given)
    if re.fullmatch(r"\+?\d+(\.\d+)?[eE]\+?\d{1,2}", given, re.ASCII) and float(given).is_integer():
        return int(float(given))
    return _no_count(given)


def _no_count(text: str) -> NoReturn:
    raise typer.BadParameter(f"expected a whole number such as 50000, 50_000 or 5e4, got {text[:60]!r}.")


def whole(least: int, most: int, help: str) -> Any:
    """Return typer's option for a whole number within bounds."""

    def parse(text: str) -> int:
        found = _count(text)
        if not least <= found <= most:
            raise typer.BadParameter(f"expected a whole number from {least:,} to {most:,}, got {found:,}.")
        return found

    return typer.Option(parser=parse, metavar="N", help=help)


NumData = Annotated[
    int | None,
    typer.Option(parser=_count, metavar="N", help="Size of the training set (tokens for --loss tokens): 50000 or 5e4."),
]

Steps = Annotated[int | None, typer.Option(parser=_count, metavar="N", help="Optimizer steps of the whole run.")]


class Word(StrEnum):
    """One of several words, as an option of the command line."""

    @classmethod
    def option(cls, help: str) -> Any:
        """Return typer's option for it: the words are shown, and the nearest where one is wrong."""
        return typer.Option(parser=cls.parse, metavar="|".join(cls), help=help)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the word that was typed."""
        given = str(text).lower().replace("_", "-")
        for word in cls:
            if word.value.replace("_", "-") == given:
                return word
        words = [word.value for word in cls]
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(words)}{nearest(given, words) or '.'}")


class TaskName(Word):
    """What kind of target it is."""

    classification = "classification"
    regression = "regression"


DataArgument = Annotated[
    str, typer.Argument(help="A .csv, .parquet or .npz file, or breast_cancer, diabetes, digits, iris, wine.")
]
TargetOption = Annotated[str | None, typer.Option(help="Target column of a table; default the last.")]
FeaturesOption = Annotated[
    list[str] | None, typer.Option(help="Columns to use, by commas or one by one.  \\[default: all that can be]")
]
DropOption = Annotated[list[str] | None, typer.Option(help="Columns to leave out, by commas or one by one.")]
SepOption = Annotated[str | None, typer.Option(help="What separates the columns of a CSV.  \\[default: a comma]")]
DecimalOption = Annotated[
    str | None, typer.Option(help="Decimal sign of the numbers in a CSV: '.' or ','.  \\[default: a point]")
]
HeaderOption = Annotated[
    bool | None,
    typer.Option("--header/--no-header", help="Whether a CSV begins with names.  \\[default: yes, unless numbers]"),
]
TaskOption = Annotated[TaskName | None, TaskName.option("Default: by looking at the target, and said.")]
ModelOption = Annotated[str, typer.Option(help="linear, mlp, or module:function (inputs, outputs) -> module.")]
HiddenOption = Annotated[
    int | None,
    whole(1, 1_000_000, "Hidden units of --model mlp.  \\[default: 32]"),
]
NoiseOption = Annotated[
    str | None, typer.Option(help="Regression: noise std in target units, or learned.  \\[default: learned]")
]


def listed(names: list[str] | None) -> list[str] | None:
    """Return names that were given one by one or by commas; None where none were."""
    return None if not names else [name.strip() for given in names for name in given.split(",") if name.strip()]
