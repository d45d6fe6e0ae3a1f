"""Numbers with a decimal comma: read as such where that is said, and never taken for words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bayesreg.errors import DataError
from bayesreg.tables.table import NUMBER, Table

__all__ = ["MOSTLY", "has_comma", "require_points", "with_points"]

#: From this share on of its values a column is of numbers, and what is none is a slip.
MOSTLY = 0.5

# 87,3 and 1.234,5 and -0,5e3.
_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+([eE][+-]?\d+)?", re.ASCII)


def has_comma(text: str) -> bool:
    """Return whether a text is a number with a decimal comma."""
    return _COMMA.fullmatch(text) is not None


def with_points(table: Table) -> Table:
    """Return a table whose numbers have decimal points, of one that has commas.

    Args:
        table: As it was read.

    Returns:
        It; texts stay as they are.

    Raises:
        DataError: If a column has commas and points too, so that the points may part thousands.
    """
    columns = [_of_column(table.path, *parts, table.lines) for parts in zip(table.names, table.columns, strict=True)]
    return Table(table.path, table.names, columns, table.lines)


def _of_column(path: Path, name: str, values: Sequence[str], lines: Sequence[int]) -> list[str]:
    commas = list(map(has_comma, values))
    if any(commas):
        for line, text in zip(lines, values, strict=True):
            if "." in text and NUMBER.fullmatch(text):
                raise DataError(
                    f"{path}, line {line}, column {name!r}: expected a decimal comma as in other rows, got {text!r}; "
                    f"if its point parts thousands, leave it out."
                )
    return [
        text.replace(".", "").replace(",", ".") if comma else text for text, comma in zip(values, commas, strict=True)
    ]


def require_points(table: Table, name: str) -> None:
    """Raise where a column is of numbers with decimal commas, which would be words else.

    Args:
        table: The table.
        name: Of the column.

    Raises:
        DataError: If it is.
    """
    there = [(line, text) for line, text in zip(table.lines, table.column(name), strict=True) if text]
    numbers = [(line, text) for line, text in there if NUMBER.fullmatch(text) or has_comma(text)]
    if len(numbers) < MOSTLY * len(there):
        return
    for line, text in numbers:
        if has_comma(text):
            raise DataError(
                f"{table.path}, line {line}, column {name!r}: {text!r} looks like a number with a decimal comma; say "
                f"--decimal ',' (in Python read it by pandas with decimal=','), or, if the comma parts thousands, "
                f"write it without."
            )
