"""What a prior can do, and refusing what it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bayesreg.errors import UnsupportedError

if TYPE_CHECKING:
    from bayesreg.priors.base import Prior

__all__ = ["Traits", "require_map", "require_proper"]


@dataclass(frozen=True)
class Traits:
    """What a prior can do; routes and solvers ask here instead of guessing.

    Attributes:
        proper: The density integrates to 1, so `log_prob` is normalised and `sample` works.
        convex: −log p is convex.
        smooth: −log p has a gradient everywhere (no kink, no boundary), so the gradient route is exact.
        elementwise: −log p is a sum over elements.
        has_prox: `prox` is defined.
    """

    proper: bool
    convex: bool
    smooth: bool
    elementwise: bool
    has_prox: bool


def require_map(prior: Prior, name: str) -> None:
    """Raise where a prior's −log p has no minimum.

    Args:
        prior: The prior.
        name: The parameter's name.

    Raises:
        UnsupportedError: If it has none; the message says why and what to use.
    """
    why = prior.why_no_map()
    if why is not None:
        raise UnsupportedError(f"{name}: {why}.")


def require_proper(prior: Prior, operation: str) -> None:
    """Raise unless the prior is a density.

    Args:
        prior: The prior.
        operation: What was asked of it.

    Raises:
        UnsupportedError: If it is improper.
    """
    if not prior.traits.proper:
        raise UnsupportedError(f"{prior.family} is improper ({prior.why_improper()}), so {operation} is undefined.")
