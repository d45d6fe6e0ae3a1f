"""The demo's figure."""

from __future__ import annotations

import os
import statistics

from bayesreg._optional import require
from bayesreg.demo.experiment import METHODS, SIZES, DemoResult
from bayesreg.plots import save

__all__ = ["draw_accuracy"]

# Distinct in lightness, hue, marker and line, so that it reads in black and white and by the colour-blind.
_STYLE = {
    "no prior": ("#9a9a9a", "o", ":"),
    "L2": ("#4477aa", "s", "--"),
    "L1": ("#cc6677", "^", "-."),
    "fine-tuning, no prior": ("#777777", "D", ":"),
    "source prior": ("#117733", "*", "-"),
}


def draw_accuracy(result: DemoResult, path: str | os.PathLike[str]) -> None:
    """Draw accuracy against n, mean and standard deviation over seeds, and write it.

    Args:
        result: What `run_demo` returned.
        path: Where to; `.png`, `.pdf` or `.svg`.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    require("matplotlib", "demo", "the demo's picture")
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    ax = figure.add_subplot()
    for index, method in enumerate(METHODS):
        colour, marker, line = _STYLE[method]
        cells = [result.cells(method, n, "accuracy") for n in SIZES]
        # Shifted a little sideways, so that error bars do not hide each other.
        where = [n * 1.025 ** (index - 2) for n in SIZES]
        ax.errorbar(
            where,
            [statistics.mean(values) for values in cells],
            [statistics.stdev(values) for values in cells],
            color=colour,
            marker=marker,
            ls=line,
            ms=10 if marker == "*" else 6,
            lw=2.4 if method == "source prior" else 1.6,
            capsize=3,
            label=method,
        )
    ax.axhline(result.zero_shot["accuracy"], color="black", lw=1, ls=(0, (1, 3)))
    ax.annotate(
        "source model, no training",
        (SIZES[1], result.zero_shot["accuracy"]),
        xytext=(0, 4),
        textcoords="offset points",
        ha="left",
        fontsize=9,
    )
    ax.set_xscale("log")
    ax.set_xticks(SIZES, [str(n) for n in SIZES])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("target training examples n")
    ax.set_ylabel("accuracy on the target test set")
    ax.set_title("Rotated digits: MAP estimates from n examples (mean ± sd, 5 seeds)", fontsize=11)
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.04))
    save(ax, path)
