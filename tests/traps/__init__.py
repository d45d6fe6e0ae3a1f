"""Every trap in the documentation, measured: what a plain attempt does, and what bayesreg does there.

`python -m tests.traps` prints the table of docs/traps.md; `--write` puts it there. Each trap is a function that returns
how strong the prior turned out to be, relative to the one asked for (1 is right, 0 means lost), or another number that
its text names; tests/test_traps.py holds both columns.
"""

# In the order of the page.
from tests.traps import training, arrival  # isort: skip
from tests.traps.base import TRAPS, Measured, Trap

__all__ = ["HEAD", "TRAPS", "arrival", "row", "table", "training"]


def row(one: Trap, found: Measured) -> str:
    """Return one trap's row of the table."""
    with_ = _number(found.with_)
    if found.with_ is None:
        with_ = "warns" if "Warning" in found.raised else "says so" if found.raised.startswith("note") else "raises"
    cells = (f"`{one.identifier}`", one.attempt, one.quantity, _number(found.without), f"{with_}: {one.answer}")
    return f"| {' | '.join(cells)} |"


HEAD = "| identifier | the attempt | measured | without | with bayesreg |\n" + "| -- " * 5 + "|"


def table() -> str:
    """Return the table of docs/traps.md."""
    return "\n".join([HEAD, *(row(one, one.measure()) for one in TRAPS)])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int) or value == int(value):
        return str(int(value))
    if abs(value) < 1e-6:
        return "0"
    return f"{value:.2g}" if abs(value - 1) > 1e-3 else "1"
