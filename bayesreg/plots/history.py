"""NLL and log-prior during training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesreg._support.calls import answering
from bayesreg._support.optional import require
from bayesreg.plots.canvas import DATA, GUIDE, PRIOR, bare, on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayesreg.trainer.result import FitResult

__all__ = ["plot_history"]


@answering
def plot_history(result: FitResult, ax: Axes | None = None) -> Axes:
    """Draw NLL, objective and validation NLL during training; the gap between the first two is the prior's pull.

    Args:
        result: What `MAPTrainer.fit` returned.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
        >>> import torch, bayesreg as br
        >>> X = torch.randn(20, 3)
        >>> model, noise = torch.nn.Linear(3, 1), br.likelihoods.Gaussian(noise_std=1.0)
        >>> trainer = br.MAPTrainer(model, br.Gaussian(1.0), noise, max_epochs=2, progress=False)
        >>> plot_history(trainer.fit((X, X.sum(1)))).get_ylabel()
        'nats per example'
    """
    require("matplotlib", "viz", "plots")
    from matplotlib.ticker import MaxNLocator

    ax = on(ax)
    history = result.history
    key = "epoch" if any("epoch" in record for record in history) else "iteration"
    steps = history.column(key)
    # Stochastic training keeps running means over each epoch, solvers the exact values.
    nll, objective = ("running_nll", "running_objective") if key == "epoch" else ("mean_nll", "objective")
    marker = "o" if len(steps) < 25 else ""
    ax.plot(steps, history.column(objective), color=PRIOR, marker=marker, ms=4, label="objective = NLL + penalty")
    ax.plot(steps, history.column(nll), color=DATA, ls="--", marker=marker, ms=4, label="mean NLL")
    ax.fill_between(steps, history.column(nll), history.column(objective), color=PRIOR, alpha=0.12, label="penalty / n")
    if any("val_nll" in record for record in history):
        ax.plot(steps, history.column("val_nll"), color="#4f7a28", ls=":", lw=2, label="validation NLL")
    if result.best_epoch is not None and key == "epoch":
        ax.axvline(result.best_epoch, color=GUIDE, lw=1, zorder=0, label="epoch kept")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch (running means over each, as trained)" if key == "epoch" else key)
    ax.set_ylabel(f"nats per {result.unit}")
    ax.legend(frameon=False)
    bare(ax)
    return ax
