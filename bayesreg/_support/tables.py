"""Tables that are rich in a terminal, plain in a log, HTML in a notebook and data for machines."""

from __future__ import annotations

import html
import json
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bayesreg._text import json_safe, printable

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["Shown", "Table", "Tabled", "for_json", "in_short", "number"]


def for_json(data: Any) -> str:
    """Return JSON; what JSON cannot hold becomes a string: "inf", "-inf", "nan"."""
    return json_safe(json.dumps(_plain(data), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class Shown(ABC):
    """What is rich in a terminal, plain in a log, HTML in a notebook and data for machines."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""

    @abstractmethod
    def __rich__(self) -> Group: ...

    def to_json(self) -> str:
        """Return `to_dict()` as JSON; what JSON cannot hold becomes a string: "inf", "-inf", "nan"."""
        return for_json(self.to_dict())

    def show(self) -> None:
        """Print it: in colours where standard output is a terminal, as plain text elsewhere."""
        if sys.stdout.isatty():
            from rich.console import Console

            Console().print(self)
        else:
            sys.stdout.write(f"{self}\n")

    def __repr__(self) -> str:
        return str(self)


def number(value: object) -> str:
    """Return a cell's text: floats in four significant digits, nothing for None.

    Example:
        >>> number(0.000512345), number(3), number(None), number(float("nan"))
        ('0.0005123', '3', '', 'nan')
    """
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


@dataclass(frozen=True, repr=False)
class Table(Shown):
    """A titled table with notes.

    Attributes:
        title: The heading.
        columns: Column names.
        rows: One tuple per row, raw values.
        notes: Sentences printed under the table.

    Example:
        >>> print(Table("Priors", ("prior", "std"), [("Gaussian", 0.2)], ("flat: biases",)))
        Priors
        prior     std
        --------  ---
        Gaussian  0.2
        flat: biases
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    notes: tuple[str, ...] = ()

    def _cells(self) -> list[list[str]]:
        return [[number(cell) for cell in row] for row in self.rows]

    def __str__(self) -> str:
        cells = self._cells()
        widths = [max(len(row[i]) for row in [list(self.columns), *cells]) for i in range(len(self.columns))]

        def line(row: Sequence[str]) -> str:
            return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

        rule = ["-" * width for width in widths]
        head = [printable(self.title), line(self.columns), line(rule)]
        return "\n".join([*head, *map(line, cells), *map(printable, self.notes)])

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=Text(printable(self.title)), title_justify="left")
        for index, column in enumerate(self.columns):
            numeric = all(isinstance(row[index], int | float | None) for row in self.rows)
            table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
        for row in self._cells():
            table.add_row(*map(Text, row))
        return Group(table, *(Text(printable(note)) for note in self.notes))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(c)}</th>" for c in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in self._cells())
        notes = "".join(f"<p>{html.escape(n)}</p>" for n in self.notes)
        return f"<table><caption>{html.escape(self.title)}</caption><tr>{head}</tr>{body}</table>{notes}"

    def to_dict(self) -> dict[str, Any]:
        """Return title, rows (one dict per row) and notes, ready for JSON."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}


class Tabled(Shown):
    """What is shown as its table."""

    @abstractmethod
    def table(self) -> Table:
        """Return it as a table."""

    def __str__(self) -> str:
        return str(self.table())

    def __rich__(self) -> Group:
        return self.table().__rich__()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def in_short(names: Sequence[str]) -> str:
    """Return a few names for a cell: the first three, what they have in common written once, and how many more."""
    shown = ", ".join(names[:3])
    if len(shown) > 80 and len(names) > 1:
        shown = _factored(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _factored(names: Sequence[str]) -> str:
    """Return names with what they begin and end with in common written once: `encoder.{0.query, 1.key}.weight`."""
    parts = [name.split(".") for name in names]
    shortest = min(map(len, parts)) - 1
    begin = next((i for i in range(shortest) if len({p[i] for p in parts}) > 1), shortest)
    end = next((i for i in range(shortest - begin) if len({p[-1 - i] for p in parts}) > 1), shortest - begin)
    inner = ", ".join(".".join(p[begin : len(p) - end]) for p in parts)
    head, tail = ".".join(parts[0][:begin]), ".".join(parts[0][len(parts[0]) - end :])
    return f"{head}{'.' if head else ''}{{{inner}}}{'.' if tail else ''}{tail}" if begin or end else ", ".join(names)
