"""Scores of several methods against the number of training examples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from bayesreg._support.calls import answering
from bayesreg._support.optional import require
from bayesreg.errors import InvalidArgumentError
from bayesreg.plots.canvas import bare, on, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_accuracy"]


@answering
def plot_accuracy(
    scores: Mapping[str, Mapping[int, Sequence[float]]],
    ax: Axes | None = None,
    *,
    ylabel: str = "test accuracy",
    spread: Literal["sd", "interval"] = "sd",
) -> Axes:
    """Draw accuracy, or another score, against n for several methods: the mean of repeated runs and their spread.

    Args:
        scores: By method, then by number of training examples, the scores of repeated runs.
        ax: Where to draw; a new figure by default.
        ylabel: What the scores are.
        spread: The error bars: "sd" (default), the runs' standard deviation, or "interval", a 95 % interval of their
            mean by Student's t.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
        InvalidArgumentError: If there is nothing to draw, a number of examples is not > 0, or `spread` is neither.

    Example:
        >>> runs = {"no prior": {10: [0.60, 0.62], 100: [0.86, 0.87]}, "L2": {10: [0.66, 0.68], 100: [0.90, 0.91]}}
        >>> plot_accuracy(runs).get_ylabel()
        'test accuracy'
    """
    require("matplotlib", "viz", "plots")
    from matplotlib.ticker import NullLocator

    scores = _as_numbers(scores)
    cells = [(n, runs) for by_n in scores.values() for n, runs in by_n.items()]
    if spread not in ("sd", "interval"):
        raise InvalidArgumentError(f"spread: expected 'sd' or 'interval', got {spread!r}.")
    ax = on(ax, (7.0, 4.4))
    for index, (method, by_n) in enumerate(scores.items()):
        colour, marker, dashes = series(index)
        sizes = sorted(by_n)
        # Shifted a little sideways, so that error bars do not hide each other.
        where = [n * 1.025 ** (index - (len(scores) - 1) / 2) for n in sizes]
        means = [statistics.fmean(by_n[n]) for n in sizes]
        bars = [_spread(by_n[n], spread) for n in sizes]
        ax.errorbar(where, means, bars, color=colour, marker=marker, ls=dashes, lw=1.8, capsize=3, label=method)
    sizes = sorted({n for n, _ in cells})
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("training examples n")
    ax.set_ylabel(ylabel)
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)
    bare(ax)
    ax.legend(frameon=False, title=_said(spread, {len(runs) for _, runs in cells}), alignment="left")
    return ax


def _as_numbers(scores: Mapping[str, Mapping[int, Sequence[float]]]) -> dict[str, dict[int, list[float]]]:
    try:
        plain = {name: {int(n): [float(v) for v in runs] for n, runs in by.items()} for name, by in scores.items()}
    except (TypeError, ValueError, AttributeError) as error:
        given = f"{scores!r:.80}"
        raise InvalidArgumentError(f"scores: expected {{method: {{n: [score, ...]}}}}, got {given}: {error}") from error
    runs_of = [(n, runs) for by in plain.values() for n, runs in by.items()]
    if not runs_of or any(n <= 0 or not runs for n, runs in runs_of):
        raise InvalidArgumentError("scores: expected {method: {n: [score, ...]}} with n > 0 and at least one score.")
    return plain


def _said(spread: str, counts: set[int]) -> str | None:
    """Return what a point and its bar are."""
    if max(counts) < 2:
        return None
    of = f"{min(counts)} runs" if len(counts) == 1 else f"{min(counts)} to {max(counts)} runs"
    return f"mean ± sd of {of}" if spread == "sd" else f"mean of {of}, 95 % interval"


def _spread(runs: Sequence[float], kind: str) -> float:
    if len(runs) < 2:
        return 0.0
    deviation = statistics.stdev(runs)
    if kind == "sd":
        return deviation
    from scipy import stats

    return float(stats.t.ppf(0.975, len(runs) - 1)) * deviation / math.sqrt(len(runs))
