"""Every weight at every strength of its prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from bayesreg._support.calls import answering
from bayesreg._support.optional import require
from bayesreg.errors import InvalidArgumentError
from bayesreg.plots.canvas import GUIDE, PRIOR, bare, new_axes, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayesreg.sparsity.path import Path

__all__ = ["plot_path"]


@answering
def plot_path(path: Path, axes: Sequence[Axes] | None = None, *, labels: Sequence[str] | None = None) -> Sequence[Axes]:
    """Draw every weight under a kinked prior against the strength of it, and how many are off their kink.

    Of more than 200 weights the largest are drawn. Up to twelve are named at their line's end. Where the path was
    scored on validation data, the best strength is marked.

    Args:
        path: What `br.sparsity.regularization_path` returned.
        axes: Two axes; a new figure by default.
        labels: A name per weight, in the order of the parameters. Default: parameter and index.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
        InvalidArgumentError: If the path is empty, the axes are not two or the labels not as many as weights.

    Example:
        >>> import bayesreg as br
        >>> X, y = torch.eye(3).double(), torch.tensor([[3.0], [-1.0], [0.5]]).double()
        >>> model = torch.nn.Linear(3, 1, bias=False).double()
        >>> noise, prior = br.likelihoods.Gaussian(noise_std=1.0), br.ModelPrior(model, br.Laplace(1.0))
        >>> path = br.sparsity.regularization_path(model, prior, noise, (X, y), strengths=[4.0, 2.0, 0.7, 0.1])
        >>> [ax.get_ylabel() for ax in plot_path(path)]
        ['weight', 'weights off their kink']
    """
    require("matplotlib", "viz", "plots")
    if not path:
        raise InvalidArgumentError("path: expected at least one point, got none.")
    axes = new_axes(2, (9.6, 3.4)) if axes is None else axes
    if not isinstance(axes, Sequence | np.ndarray) or len(axes) != 2:
        raise InvalidArgumentError("axes: expected two axes, for weights and for how many are left.")
    shown = path[0].kinked or tuple(path[0].weights)
    names = [f"{name}[{i}]" for name in shown for i in range(path[0].weights[name].numel())]
    if labels is not None and len(labels) != len(names):
        raise InvalidArgumentError(f"labels: expected {len(names)}, one per weight, got {len(labels)}.")
    names = list(labels) if labels is not None else names
    x = [point.strength for point in path]
    flat = torch.stack([
        torch.cat([point.weights[name].reshape(-1).double().cpu() for name in shown]) for point in path
    ])
    order = flat.abs().amax(0).argsort(descending=True, stable=True)[:200].tolist()
    named = len(order) <= 12
    for rank, index in enumerate(order):
        colour, _, dashes = series(rank)
        axes[0].plot(x, flat[:, index], color=colour, ls=dashes, lw=1.6 if named else 0.8)
    for axis, label in zip(axes, ("weight", "weights off their kink"), strict=True):
        axis.set(xscale="log", xlabel="strength of the prior (stronger to the left)", ylabel=label)
        axis.invert_xaxis()
        bare(axis)
    if named:
        _name(axes[0], [(float(flat[-1, i]), names[i], series(r)[0]) for r, i in enumerate(order)], x[-1])
    axes[1].plot(x, [point.nonzero for point in path], color=PRIOR, marker="o", ms=3)
    if any(point.validation_nll is not None for point in path):
        best = path.best()
        for axis in axes:
            axis.axvline(best.strength, color=GUIDE, lw=1, ls="--", zorder=0)
        axes[1].annotate(
            f"lowest validation NLL:\n{best.nonzero} weights",
            (best.strength, best.nonzero),
            xytext=(6, -4),
            textcoords="offset points",
            va="top",
            fontsize=9,
        )
    return axes


def _name(ax: Axes, ends: list[tuple[float, str, str]], x: float) -> None:
    """Write names beside the ends of lines, moved apart where they would lie upon each other."""
    low, high = ax.get_ylim()
    gap, below = (high - low) / 19, -np.inf
    for y, name, colour in sorted(ends):
        below = max(y, below + gap)
        ax.annotate(
            name,
            (x, y),
            xytext=(1.02, below),
            textcoords=ax.get_yaxis_transform(),
            fontsize=8,
            color=colour,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )
