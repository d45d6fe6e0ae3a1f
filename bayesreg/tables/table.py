"""A table: columns of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["MISSING", "NUMBER", "Table", "few", "text_of"]

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.ASCII | re.IGNORECASE)

#: What stands for a value that is not there.
MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


@dataclass(frozen=True)
class Table:
    """Columns of one length, as text.

    Attributes:
        path: Where they are from.
        names: Of the columns, in order.
        columns: The values, stripped; "" where one is missing.
        lines: Of the file, for messages.
    """

    path: Path
    names: list[str]
    columns: list[list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    @classmethod
    def of(cls, frame: Any) -> Self:
        """Return a pandas DataFrame, or a table that answers as one, as columns of text."""
        names = [str(name) for name in frame.columns]
        columns = [
            ["" if gap else text_of(value) for value, gap in zip(frame[name], frame[name].isna(), strict=True)]
            for name in frame.columns
        ]
        return cls(Path("the table"), names, columns, list(range(1, len(frame) + 1)))

    def column(self, name: str) -> list[str]:
        """Return a column by its name."""
        return self.columns[self.names.index(name)]

    def only(self, names: Sequence[str]) -> Table:
        """Return the table with these columns, in this order."""
        return Table(self.path, list(names), [self.column(name) for name in names], self.lines)


def few(names: Sequence[str]) -> str:
    """Return names for a message, not all of many."""
    return ", ".join(names[:6]) + (f", ... ({len(names)})" if len(names) > 6 else "")


def text_of(value: object) -> str:
    """Return a value of a data frame as a file has it; "" for one that is missing."""
    if value is None:
        return ""
    found = repr(value) if isinstance(value, float) else str(value)
    return "" if found.lower() in MISSING else found.strip()
