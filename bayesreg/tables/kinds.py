"""What a column holds: numbers, words, dates, one value only, or another one in every row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from bayesreg.errors import DataError
from bayesreg.tables.decimals import require_points
from bayesreg.tables.table import NUMBER, Table

__all__ = ["Column", "Kind", "kind_of_column", "numbers_in"]

Kind = Literal["number", "text", "date", "constant", "id"]

# 2024-05-01, 2024/5/1 14:30, 01.05.2024, 5/1/24, and with a time behind.
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2}))([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?"
    r"( ?(Z|UTC|[+-]\d{2}:?\d{2}))?",
    re.ASCII,
)
_ID = re.compile(r"(.*[ _-])?(id|uuid|guid|key|index|no|nr|number|row)", re.IGNORECASE)
# Words of which each is met fewer times than this, on average, say nothing about rows that are new.
_TIMES = 2.0
_FEW_ROWS = 10


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: Its name.
        kind: What it holds.
        why: In words, where it is left out or refused, or looks odd; empty for most.
        missing: How many values are missing.
    """

    name: str
    kind: Kind
    why: str
    missing: int


def kind_of_column(name: str, values: Sequence[str]) -> Column:
    """Return what a column holds.

    Args:
        name: Its name.
        values: Its values, "" where one is missing.

    Returns:
        Its kind: of a number or a text, or why it is no feature.
    """
    there = [value for value in values if value]
    missing, different = len(values) - len(there), set(there)
    if len(different) <= 1 and not (missing and different):
        return Column(name, "constant", f"{name!r} has one value only", missing)
    if all(map(NUMBER.fullmatch, there)):
        whole = _whole(there) if len(different) == len(there) and len(there) >= _FEW_ROWS else []
        if whole and _ID.fullmatch(name.strip()):
            return Column(name, "id", f"{name!r} has another whole number in every row, and the name of one", missing)
        counts = bool(whole) and all(b - a == 1 for a, b in pairwise(whole))
        return Column(name, "number", f"{name!r} counts the rows" if counts else "", missing)
    if all(map(_DATE.fullmatch, there)):
        return Column(name, "date", f"{name!r} is of dates such as {there[0]!r}", missing)
    if len(there) >= _FEW_ROWS and len(there) < _TIMES * len(different):
        return Column(
            name, "id", f"{name!r} has {len(different)} different texts in {len(there)} rows, like a name", missing
        )
    return Column(name, "text", "", missing)


def _whole(texts: Sequence[str]) -> list[int]:
    """Return whole numbers; none where one is not."""
    return [int(text) for text in texts] if all(text.lstrip("+-").isdigit() for text in texts) else []


def numbers_in(table: Table, name: str) -> list[float]:
    """Return a column of numbers, NaN where one is missing.

    Args:
        table: The table.
        name: Of the column.

    Returns:
        The numbers.

    Raises:
        DataError: If a value is no number, infinite or beyond what a square can hold.
    """
    found = []
    for line, text in zip(table.lines, table.column(name), strict=True):
        # float() reads 1_000 and digits of other scripts too, which are slips more often than numbers.
        if text and not NUMBER.fullmatch(text):
            require_points(table, name)
            raise DataError(f"{table.path}, line {line}, column {name!r}: expected a number, got {text!r}.")
        value = float(text or "nan")
        if text and not abs(value) <= 1e150:
            raise DataError(
                f"{table.path}, line {line}, column {name!r}: expected a number whose square is one, got {text!r}; use "
                f"another unit."
            )
        found.append(value)
    return found
