"""The weights of every layer against their prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg._support.optional import require
from bayesreg._support.sharding import local
from bayesreg.plots.canvas import DATA, GUIDE, bare, on, require_model_prior
from bayesreg.priors import Belief, Prior
from bayesreg.priors.contract.asking import has_one_set

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayesreg.model_prior import ModelPrior

__all__ = ["plot_layers"]

_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
# Half of a Gaussian's mass is within 0.6745 standard deviations.
_HALF = 0.6745


@dataclass(frozen=True)
class _Row:
    name: str
    prior: tuple[float, ...]
    weights: tuple[float, ...]
    rms: float
    at_centre: float


@answering
def plot_layers(prior: ModelPrior, ax: Axes | None = None, *, limit: int = 40) -> Axes:
    """Draw the weights of every tensor in units of their prior's width, over the band where the prior expects them.

    Grey is the prior: 90 % of its mass, and 50 % darker. A thin line is 90 % of the weights, a thick one 50 %, a dot
    their median, all about the prior's centre. A line much shorter than its band: the prior hardly acts. A line that
    leaves it: prior and data disagree. The number is the weights' root mean square in the same units, and the share of
    weights that are exactly at the centre, where there are any. The unit is the
    width of half the prior's mass, over 0.6745: the standard deviation of a Gaussian.

    Args:
        prior: The prior over a model.
        ax: Where to draw; a new figure by default.
        limit: How many tensors at most, the largest; default 40. Improper priors have no band and are left out.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
        InvalidArgumentError: If `limit` is not > 0.

    Example:
        >>> import bayesreg as br
        >>> model = torch.nn.Sequential(torch.nn.Linear(30, 10), torch.nn.Tanh(), torch.nn.Linear(10, 2))
        >>> [label.get_text() for label in plot_layers(br.ModelPrior(model, br.Gaussian(0.1))).get_yticklabels()]
        ['0.weight', '2.weight']
    """
    require("matplotlib", "viz", "plots")
    checks.positive_int("limit", limit)
    require_model_prior(prior)
    some = any(p.traits.proper for _, p in prior.active())
    drawn = prior.draw(generator=torch.Generator().manual_seed(0)) if some else {}
    shown = [(entry, p) for entry, p in prior.active() if entry.info.raw[0] in drawn]
    largest = sorted(shown, key=lambda pair: -pair[0].parameter.numel())[:limit]
    kept = {entry.name for entry, _ in largest}
    rows = [_row(e.name, p, e.parameter, drawn[e.info.raw[0]]) for e, p in shown if e.name in kept]
    ax = on(ax, (6.8, 1.3 + 0.32 * max(len(rows), 2)))
    bare(ax)
    if not rows:
        ax.text(0.5, 0.5, "no weights under a proper prior", ha="center", transform=ax.transAxes)
        return ax
    reach = min(max(3.0, *(1.1 * max(map(abs, row.weights)) for row in rows)), 12.0)
    for y, row in enumerate(rows):
        low, quarter, _, three_quarters, high = row.prior
        ax.barh(y, high - low, left=low, height=0.62, color="0.9", label=_first(y, "prior, 90 %"))
        ax.barh(y, three_quarters - quarter, left=quarter, height=0.62, color="0.78", label=_first(y, "prior, 50 %"))
        w = row.weights
        ax.plot([w[0], w[4]], [y, y], color=DATA, lw=1.2, label=_first(y, "weights, 90 %"))
        ax.plot([w[1], w[3]], [y, y], color=DATA, lw=4.5, solid_capstyle="butt", label=_first(y, "weights, 50 %"))
        ax.plot(w[2], y, marker="o", ms=4, mfc="white", mec="black", ls="")
        text = f"rms {row.rms:.2g} widths" + (f", {row.at_centre:.0%} at centre" if row.at_centre > 0 else "")
        if max(map(abs, w)) > reach:
            # What lies beyond the axis is not left unseen.
            edge = math.copysign(0.985 * reach, w[4] if abs(w[4]) >= abs(w[0]) else w[0])
            ax.plot(edge, y, marker=">" if edge > 0 else "<", ms=7, color=DATA, ls="")
        ax.annotate(text, (1.01, y), xycoords=ax.get_yaxis_transform(), va="center", fontsize=9)
    ax.axvline(0.0, color=GUIDE, lw=1, ls=":", zorder=0)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=9)
    others = {"flat or improper": len(prior.active()) - len(shown), "smaller ones": len(shown) - len(rows)}
    left = ", ".join(f"{count} {what}" for what, count in others.items() if count)
    note = f"\n(not drawn: {left})" if left else ""
    ax.set_xlabel(f"(weight − centre) / width of its prior{note}")
    ax.legend(frameon=False, ncols=4, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def _first(index: int, label: str) -> str:
    return label if index == 0 else "_"


def _row(name: str, prior: Belief, parameter: Tensor, drawn: Tensor) -> _Row:
    weights = local(parameter).detach().double().cpu()
    centre = prior.centre().double().cpu().broadcast_to(drawn.shape)
    beliefs = (drawn.double().cpu() - centre).reshape(-1)
    # As the parameter's dtype holds the centre: what lies on it is told exactly.
    held = centre.to(parameter.dtype).double()
    offsets = (weights - held).reshape(-1) if weights.shape == centre.shape else weights.reshape(-1)
    # A prior with a width for every weight is one band when each is measured by its own.
    own = prior.variance(tuple(drawn.shape))
    if isinstance(own, Tensor) and own.numel() == beliefs.numel() and bool((own > 0).all() & own.isfinite().all()):
        unit = own.double().cpu().sqrt().reshape(-1)
        beliefs, offsets = beliefs / unit, offsets / unit
    # A tensor with few weights is a small sample of its own prior: the band then is that of many draws.
    if isinstance(prior, Prior) and len(beliefs) < 2000 and prior.traits.elementwise and has_one_set(prior):
        many = prior.sample((20_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        beliefs = many - prior.centre().double().cpu().reshape(-1)[0]
    width = float(_thin(beliefs).abs().quantile(0.5)) / _HALF
    beliefs, offsets = beliefs / width, offsets / width
    levels = torch.tensor(_LEVELS, dtype=torch.float64)
    return _Row(
        name,
        tuple(_thin(beliefs).quantile(levels).tolist()),
        tuple(_thin(offsets).quantile(levels).tolist()),
        math.sqrt(float(offsets.square().mean())),
        float((offsets == 0).double().mean()),
    )


def _thin(values: Tensor, most: int = 200_000) -> Tensor:
    return values[:: max(1, math.ceil(len(values) / most))]
