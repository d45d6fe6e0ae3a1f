"""How good each strength of a prior is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesreg._support.calls import answering
from bayesreg._support.optional import require
from bayesreg.errors import InvalidArgumentError
from bayesreg.plots.canvas import DATA, GUIDE, PRIOR, bare, on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayesreg.strength import Choice

__all__ = ["plot_strength"]

# Nats over the best that are shown at most: beyond, all are hopeless alike.
_HEIGHT = 30.0


@answering
def plot_strength(choice: Choice, ax: Axes | None = None) -> Axes:
    """Draw what was minimised over the scale of a prior, in nats over its least, and how much of it is the hyperprior.

    Args:
        choice: What `br.choose_strength` returned.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
        InvalidArgumentError: If nothing was tried.

    Example:
        >>> import torch, bayesreg as br
        >>> X = torch.linspace(-1, 1, 20).double()[:, None]
        >>> noise = br.likelihoods.Gaussian(0.5)
        >>> choice = br.choose_strength(torch.nn.Linear(1, 1).double(), br.Gaussian(1.0), noise, (X, 2 * X + X.sin()))
        >>> plot_strength(choice).get_ylabel()
        'nats over the best'
    """
    require("matplotlib", "viz", "plots")
    if not choice.steps:
        raise InvalidArgumentError("choice: expected one with strengths that were tried, got none.")
    ax = on(ax)
    scales = [step.scale for step in choice.steps]
    least = min(step.objective for step in choice.steps)
    low, high = (
        end if end is not None else far for end, far in zip(choice.interval, (scales[0], scales[-1]), strict=True)
    )
    ax.axvspan(low, high, color=GUIDE, alpha=0.18, lw=0, label="within 2 nats")
    marker = "o" if len(scales) < 20 else ""
    ax.plot(
        scales, [step.objective - least for step in choice.steps], color=DATA, marker=marker, ms=5,
        label=f"{'evidence' if choice.method == 'evidence' else 'held-out score'} and hyperprior",
    )  # fmt: skip
    ax.plot(scales, [step.hyperprior for step in choice.steps], color=PRIOR, ls=":", label="hyperprior alone")
    ax.axvline(choice.scale, color=GUIDE, lw=1, ls="--", zorder=0)
    top = min(_HEIGHT, max(4.0, max(step.objective - least for step in choice.steps)))
    ax.set(
        xscale="log", ylim=(-0.03 * top, 1.05 * top), ylabel="nats over the best",
        xlabel="scale that the prior's widths are multiplied by (stronger to the left)",
    )  # fmt: skip
    ax.annotate(
        f"{choice.scale:.3g}", (choice.scale, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -2),
        textcoords="offset points", va="top", fontsize=9,
    )  # fmt: skip
    ax.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    bare(ax)
    return ax
