"""Pictures: functions that take and return matplotlib Axes and never show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesreg._optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayesreg.trainer.result import FitResult

__all__ = ["plot_history"]


def plot_history(result: FitResult, ax: Axes | None = None) -> Axes:
    """Draw NLL, objective and validation NLL during training; the gap between the first two is the prior's pull.

    Args:
        result: What `MAPTrainer.fit` returned.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    require("matplotlib", "viz", "plots")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if ax is None:
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        ax = figure.add_subplot()
    history = result.history
    key = "epoch" if any("epoch" in record for record in history) else "iteration"
    steps = history.column(key)
    marker = "o" if len(steps) < 25 else ""
    ax.plot(steps, history.column("objective"), color="#1b3a57", marker=marker, ms=4, label="objective = NLL + penalty")
    ax.plot(steps, history.column("mean_nll"), color="#c2571a", ls="--", marker=marker, ms=4, label="mean NLL")
    ax.fill_between(
        steps, history.column("mean_nll"), history.column("objective"), color="#1b3a57", alpha=0.12, label="penalty / n"
    )
    if any("val_nll" in record for record in history):
        ax.plot(steps, history.column("val_nll"), color="#4f7a28", ls=":", lw=2, label="validation NLL")
    if result.best_epoch is not None and key == "epoch":
        ax.axvline(result.best_epoch, color="0.6", lw=1, zorder=0, label="epoch kept")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(key)
    ax.set_ylabel("nats per example")
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
