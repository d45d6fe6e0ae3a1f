"""Predictions beside what was observed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayesreg._support.calls import answering
from bayesreg._support.optional import require
from bayesreg.errors import InvalidArgumentError
from bayesreg.plots.canvas import DATA, GUIDE, PRIOR, bare, on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_calibration", "plot_predicted"]

_BINS = 10


def _pair(first: str, one: Any, second: str, other: Any) -> tuple[Any, Any]:
    given = [np.asarray(values, dtype=np.float64).reshape(-1) for values in (one, other)]
    if not len(given[0]) or len(given[0]) != len(given[1]) or not all(np.isfinite(values).all() for values in given):
        raise InvalidArgumentError(
            f"{first}, {second}: expected as many finite numbers of both, got {len(given[0])} and {len(given[1])}."
        )
    return given[0], given[1]


@answering
def plot_predicted(predicted: Any, observed: Any, ax: Axes | None = None) -> Axes:
    """Draw what was observed against what was predicted, with the line on which they agree.

    Args:
        predicted: (n,), for rows that were not trained on.
        observed: (n,).
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
        InvalidArgumentError: If they are no numbers, or not as many.

    Example:
        >>> plot_predicted([1.0, 2.0], [1.5, 1.8]).get_xlabel()
        'predicted'
    """
    require("matplotlib", "viz", "plots")
    predicted, observed = _pair("predicted", predicted, "observed", observed)
    ax = on(ax)
    ends = [min(predicted.min(), observed.min()), max(predicted.max(), observed.max())]
    ax.plot(ends, ends, color=GUIDE, lw=1, label="agreement")
    ax.scatter(predicted, observed, s=12, color=PRIOR, alpha=min(1.0, 0.2 + 60.0 / len(predicted)), linewidths=0)
    ax.set_xlabel("predicted")
    ax.set_ylabel("observed")
    ax.legend(frameon=False)
    bare(ax)
    return ax


@answering
def plot_calibration(probabilities: Any, happened: Any, ax: Axes | None = None) -> Axes:
    """Draw how often it happened against the probability that was predicted, in tenths of the rows.

    Args:
        probabilities: (n,), for rows that were not trained on.
        happened: (n,), 0 or 1.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes; bars are two standard errors.

    Raises:
        ImportError: If matplotlib is not installed.
        InvalidArgumentError: If they are no numbers, or not as many.

    Example:
        >>> plot_calibration([0.1, 0.9, 0.8], [0, 1, 1]).get_ylabel()
        'share that it was'
    """
    require("matplotlib", "viz", "plots")
    probabilities, happened = _pair("probabilities", probabilities, "happened", happened)
    ax = on(ax)
    ax.plot([0.0, 1.0], [0.0, 1.0], color=GUIDE, lw=1, label="calibrated")
    parts = np.array_split(np.argsort(probabilities, kind="stable"), min(_BINS, len(probabilities)))
    x = np.array([probabilities[part].mean() for part in parts])
    y = np.array([happened[part].mean() for part in parts])
    # Of a share of 0 or 1 too: as if half a row more had been each.
    counts = np.array([len(part) for part in parts])
    smooth = (y * counts + 0.5) / (counts + 1.0)
    ax.errorbar(
        x, y, yerr=2.0 * np.sqrt(smooth * (1.0 - smooth) / counts), fmt="o-", color=PRIOR, ecolor=DATA, capsize=2,
        label="tenths of the rows",
    )  # fmt: skip
    ax.set_xlabel("probability predicted")
    ax.set_ylabel("share that it was")
    ax.legend(frameon=False)
    bare(ax)
    return ax
