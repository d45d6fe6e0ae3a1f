"""Pictures: functions that take and return matplotlib Axes and never show them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from bayesreg._files import atomic
from bayesreg._optional import require
from bayesreg.priors.located import LocatedPrior
from bayesreg.priors.tensors import as_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayesreg.model_prior import ModelPrior
    from bayesreg.priors import Prior
    from bayesreg.trainer.result import FitResult

__all__ = ["plot_history", "plot_weights", "save"]


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
    from matplotlib.ticker import MaxNLocator

    ax = _axes() if ax is None else ax
    history = result.history
    key = "epoch" if any("epoch" in record for record in history) else "iteration"
    steps = history.column(key)
    # Stochastic training keeps running means over each epoch, solvers the exact values.
    nll, objective = ("running_nll", "running_objective") if key == "epoch" else ("mean_nll", "objective")
    marker = "o" if len(steps) < 25 else ""
    ax.plot(steps, history.column(objective), color="#1b3a57", marker=marker, ms=4, label="objective = NLL + penalty")
    ax.plot(steps, history.column(nll), color="#c2571a", ls="--", marker=marker, ms=4, label="mean NLL")
    ax.fill_between(
        steps, history.column(nll), history.column(objective), color="#1b3a57", alpha=0.12, label="penalty / n"
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


def plot_weights(prior: ModelPrior, ax: Axes | None = None) -> Axes:
    """Draw the weights against their prior: a histogram of the values, and the density they were given.

    Weights under proper, elementwise priors of one scale are shown, measured from their centre; where a model has
    several such priors, the one with the most weights is.

    Args:
        prior: The prior over a trained model.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    require("matplotlib", "viz", "plots")
    ax = _axes() if ax is None else ax
    groups: dict[str, tuple[Prior, list[torch.Tensor]]] = {}
    for entry, p in prior.active():
        variance = as_number(p.variance())
        if p.traits.proper and p.traits.elementwise and isinstance(variance, float):
            loc = p.loc.to(entry.parameter.device) if isinstance(p, LocatedPrior) else torch.zeros(())
            offset = (entry.parameter.detach() - loc).reshape(-1).double().cpu()
            groups.setdefault(f"{p.family} {variance:.6g}", (p, []))[1].append(offset)
    ax.set_xlabel("weight − centre of its prior")
    ax.set_ylabel("density")
    ax.spines[["top", "right"]].set_visible(False)
    if not groups:
        ax.text(0.5, 0.5, "no weights under a proper prior of one scale", ha="center", transform=ax.transAxes)
        return ax
    shown, parts = max(groups.values(), key=lambda group: sum(len(part) for part in group[1]))
    offsets = torch.cat(parts)
    variance = as_number(shown.variance())
    assert isinstance(variance, float)
    reach = max(float(offsets.abs().max()), 3.0 * variance**0.5)
    ax.hist(offsets.numpy(), bins=51, range=(-reach, reach), density=True, color="#c2571a", alpha=0.55, label="weights")
    grid = torch.linspace(-reach, reach, 401, dtype=torch.float64)
    # Of a prior with a centre for every weight any one centre will do: the curve is that of the offset.
    centre = shown.loc.reshape(-1)[:1].double().cpu() if isinstance(shown, LocatedPrior) else torch.zeros(1)
    one = type(shown)(**{**shown.hyperparameters(), "loc": float(centre)}) if isinstance(shown, LocatedPrior) else shown
    density = torch.stack([one.log_prob(point + centre[0]) for point in grid]).exp().detach()
    ax.plot(
        grid.numpy(), density.numpy(), color="#1b3a57", lw=2, label=f"{shown.family} prior, std {variance**0.5:.3g}"
    )
    zeros = float((offsets == 0).double().mean())
    if zeros > 0:
        ax.set_title(f"{zeros:.0%} of {len(offsets):,} weights are exactly at the centre", fontsize=10)
    ax.legend(frameon=False)
    return ax


def save(ax: Axes, path: str | os.PathLike[str]) -> None:
    """Write the figure that the axes belong to, whole or not at all.

    Args:
        ax: The axes.
        path: Where to; the suffix chooses the format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = ax.figure
    assert isinstance(figure, Figure)
    FigureCanvasAgg(figure)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _axes() -> Axes:
    # By pyplot, so that a notebook shows the figure at the end of the cell.
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")[1]
