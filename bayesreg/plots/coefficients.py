"""Coefficients by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg._support.optional import require
from bayesreg.errors import InvalidArgumentError
from bayesreg.plots.canvas import DATA, GUIDE, PRIOR, bare, on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_coefficients"]


@answering
def plot_coefficients(values: Mapping[str, float], ax: Axes | None = None, *, count: int = 20) -> Axes:
    """Draw coefficients as bars beside their names, the largest first; those that are exactly 0 are counted below.

    Args:
        values: By name, in units in which their sizes compare, such as per standard deviation.
        ax: Where to draw; a new figure by default.
        count: How many at most. Default 20.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
        InvalidArgumentError: If there is none.

    Example:
        >>> plot_coefficients({"age": 0.3, "rooms": -1.2, "floor": 0.0}).get_yticklabels()[0].get_text()
        'rooms'
    """
    require("matplotlib", "viz", "plots")
    if not values:
        raise InvalidArgumentError("values: expected at least one coefficient, got none.")
    checks.positive_int("count", count)
    ax = on(ax)
    zeros = sum(value == 0.0 for value in values.values())
    shown = sorted(((name, value) for name, value in values.items() if value != 0.0), key=lambda one: -abs(one[1]))
    shown = shown[:count]
    places = range(len(shown))
    ax.barh(places, [value for _, value in shown], color=[PRIOR if value > 0 else DATA for _, value in shown])
    ax.set_yticks(list(places), [name if len(name) <= 32 else f"{name[:31]}…" for name, _ in shown])
    ax.invert_yaxis()
    ax.axvline(0.0, color=GUIDE, lw=1)
    ax.set_xlabel("coefficient per standard deviation")
    notes = [f"{zeros} of {len(values)} are exactly 0"] if zeros else []
    if len(values) - zeros > len(shown):
        notes.append(f"the {len(shown)} largest of {len(values) - zeros}")
    ax.set_title("; ".join(notes), fontsize=10)
    bare(ax)
    return ax
