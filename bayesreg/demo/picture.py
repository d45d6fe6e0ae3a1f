"""The demo's figure."""

from __future__ import annotations

import os

from bayesreg._support.optional import require
from bayesreg.demo.experiment import METHODS, SIZES, DemoResult
from bayesreg.plots import plot_accuracy, save

__all__ = ["draw_accuracy"]


def draw_accuracy(result: DemoResult, path: str | os.PathLike[str]) -> None:
    """Draw accuracy against n, mean and standard deviation over seeds, and write it.

    Args:
        result: What `run_demo` returned.
        path: Where to; `.png`, `.pdf` or `.svg`.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    require("matplotlib", "demo", "the pictures of the demo")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    scores = {method: {n: result.cells(method, n, "accuracy") for n in SIZES} for method in METHODS}
    ax = plot_accuracy(scores, figure.add_subplot(), ylabel="accuracy on the target test set")
    ax.axhline(result.zero_shot["accuracy"], color="black", lw=1, ls=(0, (1, 3)))
    ax.annotate(
        "source model, no training",
        (SIZES[1], result.zero_shot["accuracy"]),
        xytext=(0, 4),
        textcoords="offset points",
        ha="left",
        fontsize=9,
    )
    ax.set_xlabel("target training examples n")
    ax.set_title("Rotated digits: MAP estimates from n examples", fontsize=11)
    save(ax, path)
