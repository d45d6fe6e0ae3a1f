"""What a prior can do."""

from __future__ import annotations

from dataclasses import dataclass

from bayesreg._support.calls import answering_class

__all__ = ["Traits"]


@answering_class
@dataclass(frozen=True)
class Traits:
    """What a prior can do; routes and solvers ask here instead of guessing.

    Attributes:
        proper: The density integrates to 1, so `log_prob` is normalised and `sample` works.
        convex: −log p is convex.
        smooth: −log p has a gradient everywhere (no kink, no boundary), so the gradient route is exact.
        elementwise: −log p is a sum over elements.
        has_prox: `prox` is defined.
        gaussian: −log p is quadratic, with whatever precision: its covariance can be rescaled. Default False.
        has_slope: −log p has a slope off its kinks, so that autograd finds something to follow. Default True.
    """

    proper: bool
    convex: bool
    smooth: bool
    elementwise: bool
    has_prox: bool
    gaussian: bool = False
    has_slope: bool = True
