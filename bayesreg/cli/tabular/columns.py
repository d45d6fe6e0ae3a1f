"""Which columns of a table are features, and what is said of those that are not."""

from __future__ import annotations

from collections.abc import Sequence

from bayesreg.errors import DataError
from bayesreg.tables import Table, kind_of_column
from bayesreg.tables.decimals import MOSTLY, require_points
from bayesreg.tables.read import require_column
from bayesreg.tables.table import NUMBER

__all__ = ["chosen_kinds"]


def chosen_kinds(
    table: Table, target: str, features: Sequence[str] | None, drop: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Return the columns that are features, and sentences on what was left out.

    Args:
        table: The table.
        target: Its target column.
        features: The columns that were asked for; None: all that can be used.
        drop: Those that were not wanted.

    Returns:
        "number" or "text" by name, in order.

    Raises:
        DataError: If a column is not there, is of dates, or is of numbers but for a few; or if none is left.
    """
    for option, names in (("--features", features or ()), ("--drop", drop)):
        for name in names:
            require_column(table, name, option)
            if name == target:
                raise DataError(f"{option}: {name!r} is the target.")
    if both := [name for name in drop if name in (features or ())]:
        raise DataError(f"--drop: {both[0]!r} is one of --features too; leave one of them out.")
    kinds: dict[str, str] = {}
    notes = []
    for name in features or [name for name in table.names if name not in (target, *drop)]:
        column = kind_of_column(name, table.column(name))
        if column.kind == "date":
            raise DataError(
                f"{table.path}: column {column.why}: a date is no feature; make numbers of it (a year, an age in days, "
                f"a weekday) or leave it out, --drop {name!r}."
            )
        if column.kind in ("text", "id"):
            require_points(table, name)
            _require_clean(table, name)
        if column.kind in ("number", "text"):
            kinds[name] = column.kind
            if column.why and features is None:
                notes.append(f"Column {column.why}; it is taken as a number (--drop {name!r} leaves it out).")
        elif features is not None:
            kinds[name] = "number" if all(NUMBER.fullmatch(text) for text in table.column(name) if text) else "text"
        else:
            notes.append(f"Column {column.why}; it is left out (--features {name!r} keeps it).")
    if not kinds:
        raise DataError(f"{table.path}: expected at least one feature column besides the target, got none."
                        f"{' ' + notes[0] if notes else ''}")  # fmt: skip
    return kinds, notes


def _require_clean(table: Table, name: str) -> None:
    """Raise where all values but a few are numbers: a slip in one would make words of all."""
    there = [(line, text) for line, text in zip(table.lines, table.column(name), strict=True) if text]
    odd = [(line, text) for line, text in there if not NUMBER.fullmatch(text)]
    if not odd or len(there) - len(odd) < MOSTLY * len(there):
        return
    line, text = odd[0]
    raise DataError(
        f"{table.path}, line {line}, column {name!r}: expected a number as in {len(there) - len(odd)} of {len(there)} "
        f"rows, got {text!r}; mend it, or leave it empty where it is missing."
    )
