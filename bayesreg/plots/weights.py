"""All weights of one prior against its density."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bayesreg._support.calls import answering
from bayesreg._support.optional import require
from bayesreg.plots.canvas import DATA, PRIOR, bare, on, require_model_prior
from bayesreg.priors import Prior
from bayesreg.priors.contract.tensors import as_number
from bayesreg.priors.located.located import about_zero

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayesreg.model_prior import ModelPrior

__all__ = ["plot_weights"]


@answering
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

    Example:
        >>> import bayesreg as br
        >>> plot_weights(br.ModelPrior(torch.nn.Linear(30, 10), br.Laplace(0.1))).get_xlabel()
        'weight − centre of its prior'
    """
    require("matplotlib", "viz", "plots")
    require_model_prior(prior)
    ax = on(ax)
    groups: dict[str, tuple[Prior, list[torch.Tensor]]] = {}
    for entry, p in prior.active():
        variance = as_number(p.variance())
        if isinstance(p, Prior) and p.traits.proper and p.traits.elementwise and isinstance(variance, float):
            offset = (entry.parameter.detach() - p.centre().to(entry.parameter)).reshape(-1).double().cpu()
            groups.setdefault(f"{p.family} {variance:.6g}", (p, []))[1].append(offset)
    ax.set_xlabel("weight − centre of its prior")
    ax.set_ylabel("density")
    bare(ax)
    if not groups:
        ax.text(0.5, 0.5, "no weights under a proper prior of one scale", ha="center", transform=ax.transAxes)
        return ax
    shown, parts = max(groups.values(), key=lambda group: sum(len(part) for part in group[1]))
    offsets = torch.cat(parts)
    variance = as_number(shown.variance())
    assert isinstance(variance, float)
    reach = max(float(offsets.abs().max()), 3.0 * variance**0.5)
    ax.hist(offsets.numpy(), bins=51, range=(-reach, reach), density=True, color=DATA, alpha=0.55, label="weights")
    grid = torch.linspace(-reach, reach, 401, dtype=torch.float64)
    # Of a prior with a centre for every weight any one centre will do: the curve is that of the offset.
    # Of a prior with a centre for every weight any one centre will do: the curve is that of the offset.
    one, centre = about_zero(shown)
    density = torch.stack([one.log_prob(point + centre) for point in grid]).exp().detach()
    ax.plot(grid.numpy(), density.numpy(), color=PRIOR, lw=2, label=f"{shown.family} prior, std {variance**0.5:.3g}")
    zeros = float((offsets == 0).double().mean())
    if zeros > 0:
        ax.set_title(f"{zeros:.0%} of {len(offsets):,} weights are exactly at the centre", fontsize=10)
    ax.legend(frameon=False)
    return ax
