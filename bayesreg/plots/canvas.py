"""What the pictures share: colours, new figures, files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bayesreg._files import atomic
from bayesreg._optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DATA", "GUIDE", "PRIOR", "SERIES", "bare", "new_axes", "save"]

# Dark and light in black and white, blue and orange to the colour-blind.
PRIOR = "#1b3a57"
DATA = "#c2571a"
GUIDE = "0.6"

# For curves without a meaning of their own: colour, marker and dashes all differ.
SERIES: tuple[tuple[str, str, str], ...] = (
    ("#1b3a57", "o", "-"),
    ("#c2571a", "s", "--"),
    ("#4f7a28", "^", "-."),
    ("#8a6fae", "D", ":"),
    ("#707070", "v", "-"),
    ("#b8912f", "P", "--"),
    ("#3f9c9c", "X", "-."),
    ("#000000", "*", ":"),
)


def new_axes(count: int = 1, size: tuple[float, float] = (6.4, 4.0)) -> Sequence[Axes]:
    """Return the axes, side by side, of a new figure; made by pyplot, so that a notebook shows it after the cell."""
    require("matplotlib", "viz", "plots")
    from matplotlib import pyplot

    return list(pyplot.subplots(1, count, figsize=size, layout="constrained", squeeze=False)[1][0])


def bare(ax: Axes) -> None:
    """Take away the lines that bound nothing."""
    ax.spines[["top", "right"]].set_visible(False)


def save(ax: Axes, path: str | os.PathLike[str]) -> None:
    """Write the figure that the axes belong to, whole or not at all.

    Args:
        ax: The axes.
        path: Where to; the suffix chooses the format.

    Example:
        >>> import os, tempfile, bayesreg as br
        >>> path = os.path.join(tempfile.mkdtemp(), "laplace.png")
        >>> save(br.Laplace(0.1).plot()[0], path)
        >>> os.path.exists(path)
        True
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = ax.figure
    assert isinstance(figure, Figure)
    FigureCanvasAgg(figure)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)
