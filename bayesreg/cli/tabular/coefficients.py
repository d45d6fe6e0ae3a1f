"""The coefficients of a linear model as a table, the largest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bayesreg._support.tables import Table
from bayesreg.cli.tabular.numbers import readable
from bayesreg.runs.coefficients import Coefficient

__all__ = ["table_of"]

_SHOWN = 20


def table_of(found: Sequence[Coefficient], intercepts: Sequence[float], classes: Sequence[str], target: str) -> Table:
    """Return the largest coefficients as a table, with those that are exactly 0 by name.

    Args:
        found: All of them.
        intercepts: Of the outputs.
        classes: Labels; empty for regression.
        target: What the target is called.

    Returns:
        The table.
    """
    order = sorted(found, key=lambda one: -one.size)
    zeros = [one.feature for one in found if one.size == 0.0]
    shown = [one for one in order[:_SHOWN] if one.size > 0.0]
    if len(intercepts) == 1:
        what = f"log odds of {classes[1]!r}" if classes else target
        columns: tuple[str, ...] = ("feature", f"{what} per unit", "per std")
        rows: list[tuple[Any, ...]] = [
            (one.feature, readable(one.per_unit[0]), readable(one.per_std[0])) for one in shown
        ]
        rows.append(("(intercept)", readable(intercepts[0]), None))
    else:
        columns = ("feature", *(f"logit of {name!r}" for name in classes[:6]))
        rows = [(one.feature, *map(readable, one.per_unit[:6])) for one in shown]
        rows.append(("(intercept)", *map(readable, intercepts[:6])))
    notes = []
    if len(order) - len(zeros) > len(shown):
        notes.append(f"The {len(shown)} largest of {len(order) - len(zeros)}, by what a standard deviation does.")
    if zeros:
        more = "" if len(zeros) <= 40 else f", ... ({len(zeros)} in all)"
        notes.append(f"Exactly 0, {len(zeros)} of {len(found)}: {', '.join(zeros[:40])}{more}.")
    return Table("Coefficients, in the units of the columns", columns, rows, tuple(notes))
