"""What the pictures share: colours, new figures, files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bayesreg._support.calls import answering
from bayesreg._support.files import atomic
from bayesreg._support.optional import require
from bayesreg.errors import InvalidArgumentError, kind_of
from bayesreg.model_prior import ModelPrior

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "DATA", "GUIDE", "PRIOR", "SERIES", "bare", "new_axes", "on", "require_format", "require_model_prior", "save",
    "series",
]  # fmt: skip

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


def on(ax: Axes | None, size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """Return the axes to draw on: those given, or new ones."""
    if ax is None:
        return new_axes(1, size)[0]
    if not hasattr(ax, "spines") or not hasattr(ax, "plot"):
        raise InvalidArgumentError(f"ax: expected axes of matplotlib, got {kind_of(ax)}.")
    return ax


def require_model_prior(prior: object) -> None:
    """Raise unless it is a prior over a model."""
    if not isinstance(prior, ModelPrior):
        raise InvalidArgumentError(f"prior: expected a ModelPrior, br.ModelPrior(model, rules), got {kind_of(prior)}.")


def series(index: int) -> tuple[str, str, str]:
    """Return colour, marker and dashes of a curve; no two of the first 32 agree in all."""
    colour, marker, _ = SERIES[index % len(SERIES)]
    dashes = ("-", "--", "-.", ":")[(index + index // len(SERIES)) % 4]
    return colour, marker, dashes


def bare(ax: Axes) -> None:
    """Take away the lines that bound nothing."""
    ax.spines[["top", "right"]].set_visible(False)


@answering
def save(ax: Axes | Sequence[Axes], path: str | os.PathLike[str]) -> None:
    """Write the figure that the axes belong to, whole or not at all.

    Args:
        ax: The axes, or several of one figure.
        path: Where to; the suffix chooses the format.

    Raises:
        ImportError: If matplotlib is not installed.
        InvalidArgumentError: If matplotlib writes no such format.

    Example:
        >>> import os, tempfile, bayesreg as br
        >>> path = os.path.join(tempfile.mkdtemp(), "laplace.png")
        >>> save(br.Laplace(0.1).plot(), path)
        >>> os.path.exists(path)
        True
    """
    require_format(path)
    from matplotlib.figure import Figure

    figure = (ax[0] if isinstance(ax, Sequence | np.ndarray) else ax).figure
    assert isinstance(figure, Figure)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)


def require_format(path: str | os.PathLike[str]) -> None:
    """Refuse a path of a suffix that no picture has, before there is one.

    Args:
        path: Where to.

    Raises:
        ImportError: If matplotlib is not installed.
        InvalidArgumentError: If matplotlib writes no such format.
    """
    require("matplotlib", "viz", "plots")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    formats = FigureCanvasAgg.get_supported_filetypes()
    if Path(path).suffix.lower().removeprefix(".") not in formats:
        raise InvalidArgumentError(f"path: expected a suffix of {', '.join(sorted(formats))}, got {os.fspath(path)!r}.")
