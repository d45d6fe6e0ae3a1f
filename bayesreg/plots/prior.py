"""Pictures of one prior: its density, its penalty, and what it does to an observed weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg._support.optional import require
from bayesreg.errors import InvalidArgumentError, UnsupportedError, kind_of
from bayesreg.plots.canvas import DATA, GUIDE, PRIOR, bare, new_axes, on
from bayesreg.priors import Gaussian, Prior
from bayesreg.priors.contract.asking import has_one_set
from bayesreg.priors.contract.tensors import as_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_pair", "plot_prior"]

# Told apart without colour by width and dashes.
_PRIOR: dict[str, Any] = {"color": PRIOR, "lw": 2.2}
_GAUSSIAN: dict[str, Any] = {"color": DATA, "lw": 1.4, "ls": "--"}
_GUIDE: dict[str, Any] = {"color": GUIDE, "lw": 1.0, "ls": ":"}


@torch.no_grad()
@answering
def plot_prior(prior: Prior, axes: Sequence[Axes] | None = None, *, reach: float | None = None) -> Sequence[Axes]:
    """Draw density, penalty and shrinkage of a prior on single elements, beside the Gaussian it resembles.

    Shrinkage is the MAP of one weight that was observed once with Gaussian noise: on the diagonal nothing is shrunk,
    on the horizontal line everything. The Gaussian has the prior's variance, or, where that is infinite, its half mass.

    Args:
        prior: A prior on single elements with one set of hyper-parameters.
        axes: Three axes; a new figure by default.
        reach: How far from the centre to draw. Default: where 97.5 % of the mass is; needed of improper priors.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
        UnsupportedError: If the prior is not on single elements, is improper and `reach` not given, or has tensors as
            hyper-parameters.
        InvalidArgumentError: If `axes` are not three, or `reach` is not > 0.

    Example:
        >>> import bayesreg as br
        >>> [ax.get_title() for ax in plot_prior(br.Laplace(0.1))][:2]
        ['density p(w)', 'penalty −log p(w) + const, nats']
    """
    require("matplotlib", "viz", "plots")
    if hasattr(prior, "for_shape"):
        raise UnsupportedError(
            f"{prior.family}: its width depends on a shape; draw prior.for_shape(weight.shape).plot()."
        )
    if not prior.traits.elementwise:
        raise UnsupportedError(f"{prior.family}: it joins its elements; draw two of them, prior.plot(shape=(2,)).")
    if not has_one_set(prior):
        raise UnsupportedError(f"{prior.family}: expected a prior with one set of numbers for all elements.")
    if not prior.traits.proper and reach is None:
        raise UnsupportedError(f"{prior.family}: it is improper, so no mass says how far to draw: plot(reach=...).")
    if axes is None:
        axes = new_axes(3, (9.6, 2.7))
    if not isinstance(axes, Sequence | np.ndarray) or len(axes) != 3 or not all(hasattr(ax, "plot") for ax in axes):
        raise InvalidArgumentError(
            f"axes: expected three axes, for density, penalty and shrinkage, got {kind_of(axes)}."
        )
    if reach is not None:
        reach = checks.positive_float("reach", reach)
    centre = float(prior.centre().reshape(-1)[0])
    curves: list[tuple[Prior, dict[str, Any], str]] = [(prior, _PRIOR, prior.family)]
    far = 0.0 if reach is None else reach
    if prior.traits.proper:
        far, std = _extent(prior, centre, reach)
        if prior.quadratic() is None:
            same = "variance" if isinstance(as_number(prior.variance()), float) else "half mass"
            curves.append((Gaussian(std, loc=centre), _GAUSSIAN, f"Gaussian of its {same}"))
    x = centre + far * torch.linspace(-1.0, 1.0, 801, dtype=torch.float64)
    for drawn, style, label in curves:
        log_p = _log_density(drawn, x)
        if prior.traits.proper:
            axes[0].plot(x, log_p.exp(), **style)
        penalty = torch.stack([drawn.penalty(point) for point in x]).detach()
        axes[1].plot(x, penalty, **style)
        shrunk = drawn.prox(x, (far / 4.0) ** 2) if drawn.traits.has_prox else torch.full_like(x, math.nan)
        axes[2].plot(x, shrunk, **style, label=label)
    axes[2].plot(x, x, **_GUIDE)
    axes[2].axhline(centre, **_GUIDE)
    for ax, title, label in zip(
        axes,
        ("density p(w)", "penalty −log p(w) + const, nats", "shrinkage: MAP of one observed weight"),
        ("w", "w", f"observed w (noise std {far / 4.0:.2g})"),
        strict=True,
    ):
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(label)
        bare(ax)
    if not prior.traits.proper:
        axes[0].text(0.5, 0.5, "improper: no density", ha="center", va="center", transform=axes[0].transAxes)
    # A density that is infinite or nearly so at the centre would flatten all else.
    axes[0].set_ylim(0.0, min(axes[0].get_ylim()[1], 6.0 / (far * math.sqrt(2.0 * math.pi))))
    # Nor need the Gaussian's parabola be seen to its end.
    own = torch.stack([prior.penalty(point) for point in x]).detach()
    top = float(own[own.isfinite()].max())
    axes[1].set_ylim(-0.05 * top, 1.3 * top) if top > 0 else None
    # The corner that no shrinkage curve enters.
    axes[2].legend(frameon=False, fontsize=9, loc="upper left")
    return axes


def _log_density(prior: Prior, x: Tensor) -> Tensor:
    try:
        return torch.stack([prior.log_prob(point) for point in x]).detach()
    except ValueError as error:
        raise UnsupportedError(
            f"{prior.family}: its density is on a part of the line only, and torch refuses the rest: no picture."
        ) from error


def _extent(prior: Prior, centre: float, reach: float | None) -> tuple[float, float]:
    """Return how far to draw a density, and the standard deviation of the Gaussian beside it."""
    draws = prior.sample((20_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    size = (draws - centre).abs()
    far = float(size.quantile(0.975)) if reach is None else reach
    variance = as_number(prior.variance())
    # Half of a Gaussian's mass is within 0.6745 standard deviations.
    std = math.sqrt(variance) if isinstance(variance, float) else float(size.median()) / 0.6745
    if variance is None and reach is None:
        far = min(far, 6.0 * std)
    ends = prior.bounds()
    if ends is not None and reach is None and math.isfinite(width := float(ends[1] - ends[0])):
        far = 1.5 * width / 2
    return far, std


@torch.no_grad()
@answering
def plot_pair(prior: Prior, shape: Sequence[int], ax: Axes | None = None, *, reach: float | None = None) -> Axes:
    """Draw the contours of a prior over two elements, and where it pulls observed pairs.

    An arrow leads from a pair of observed weights to their MAP.

    Args:
        prior: A prior with a proximal operator.
        shape: A shape of two elements that it takes.
        ax: Where to draw; a new figure by default.
        reach: How far from the centre to draw. Default: where 97.5 % of the mass is.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
        InvalidArgumentError: If the shape has not two elements.
        UnsupportedError: If the prior is improper, or has no proximal operator.

    Example:
        >>> import bayesreg as br
        >>> plot_pair(br.GroupLaplace(rate=2.0, group="row"), (1, 2)).get_xlabel()
        'w₁'
    """
    require("matplotlib", "viz", "plots")
    if not isinstance(shape, tuple | list) or math.prod(shape) != 2:
        raise InvalidArgumentError(f"shape: expected a shape of two elements, got {kind_of(shape)} {str(shape)[:60]}.")
    if not prior.traits.proper or not prior.traits.has_prox:
        why = "no density says how far to draw" if not prior.traits.proper else "it has no proximal operator"
        raise UnsupportedError(f"{prior.family}: {why}, so its pull on two elements cannot be drawn.")
    ax = on(ax, (4.2, 4.2))
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([prior.sample(shape, generator=generator, dtype=torch.float64) for _ in range(1000)])
    centre = prior.centre().to(torch.float64).expand(tuple(shape)).reshape(-1)
    offsets = (draws.reshape(len(draws), 2) - centre).abs()
    far = float(offsets.quantile(0.975)) if reach is None else checks.positive_float("reach", reach)
    axis = far * torch.linspace(-1.0, 1.0, 121, dtype=torch.float64)
    first, second = centre[0] + axis, centre[1] + axis
    rows = [[float(prior.penalty(torch.stack([a, b]).reshape(tuple(shape)))) for a in first] for b in second]
    contours = ax.contour(
        first, second, rows, levels=[0.25, 0.5, 1.0, 2.0, 4.0, 8.0], colors=_PRIOR["color"], linewidths=1
    )
    ax.clabel(contours, fmt="%g", fontsize=8)
    ticks = far * torch.linspace(-0.9, 0.9, 7, dtype=torch.float64)
    for a in ticks:
        for b in ticks:
            start = centre + torch.stack([a, b])
            end = prior.prox(start.reshape(tuple(shape)), (far / 3.0) ** 2).reshape(-1)
            ax.annotate(
                "",
                tuple(end.tolist()),
                tuple(start.tolist()),
                arrowprops={"arrowstyle": "->", "color": DATA, "lw": 1.0},
            )
    ax.set_title(f"{prior.family}: penalty in nats, and its pull", fontsize=10)
    ax.set_xlabel("w₁")
    ax.set_ylabel("w₂")
    ax.set_aspect("equal")
    bare(ax)
    return ax
