"""What of a prior has kinks, as the parabolas of a linear layer take it: L1 terms, or norms of groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesreg.priors import Prior
from bayesreg.trainer.full_batch.linear.grouped import minimise_grouped
from bayesreg.trainer.full_batch.linear.lasso import minimise_lasso

__all__ = ["Kinks", "kinks_of", "serves"]

Array = npt.NDArray[np.float64]

# Systems that may be solved, beside some for each weight.
_STEPS, _PER_WEIGHT = 200, 4


@dataclass(frozen=True)
class Kinks:
    """Rates and centre of a prior on the weights of a linear layer, (outputs, d).

    Attributes:
        centre: Of each weight.
        rates: Of the L1 term of each weight; with groups, of each group.
        curvature: Of what is beside them, of each weight.
        groups: The group of each weight; None: none.
    """

    centre: Array
    rates: Array
    curvature: Array
    groups: npt.NDArray[np.intp] | None = None

    def penalty(self, weights: Array) -> float:
        """Return −log p of weights, up to a constant, where there are no groups."""
        offset = weights - self.centre
        return float(np.vdot(self.rates, np.abs(offset)) + 0.5 * np.vdot(self.curvature, offset * offset))

    def distance(self, weights: Array, grad: Array, scale: float) -> Array:
        """Return how far −grad is from the subdifferential of each weight, where there are no groups.

        Args:
            weights: (outputs, d).
            grad: Of the rest of the objective.
            scale: What the prior counts.
        """
        offset = weights - self.centre
        rates = scale * self.rates
        slope = grad + scale * self.curvature * offset
        return np.where(offset == 0.0, np.maximum(np.abs(slope) - rates, 0.0), np.abs(slope + rates * np.sign(offset)))

    def lowest(self, gram: Array, slopes: Array, offset: Array, scale: float) -> Array | None:
        """Return where parabolas and kinks have their minimum, from the centre.

        Args:
            gram: Curvature of the parabolas but for the prior's, (outputs, d, d), or (1, d, d) for all alike.
            slopes: Their gradient at `offset`, (outputs, d).
            offset: Where that is, from the centre.
            scale: What the prior counts.

        Returns:
            The minimum, with exact zeros; None where it is too large a system.
        """
        outputs, columns = offset.shape
        rates = scale * self.rates
        if self.groups is not None:
            return minimise_grouped(gram, slopes, rates, self.groups, offset, _STEPS + _PER_WEIGHT * offset.size)
        found = np.empty(offset.shape)
        for j in range(outputs):
            parabola = gram[j if len(gram) > 1 else 0].copy()
            parabola.reshape(-1)[:: columns + 1] += scale * self.curvature[j]
            found[j] = minimise_lasso(parabola, slopes[j], rates[j], offset[j], _STEPS + _PER_WEIGHT * columns)
        return found


def serves(prior: Prior) -> bool:
    """Return whether the kinks of a prior are of these."""
    return prior._rates() is not None or prior._group_rate() is not None


def kinks_of(prior: Prior, shape: Sequence[int]) -> Kinks:
    """Return what a prior that is served says of weights of this shape."""
    centre = np.array(np.broadcast_to(prior.centre().numpy(force=True), shape), np.float64)
    found, rate = prior._rates(), prior._group_rate()
    if found is not None:
        rates, curvature = (np.array(np.broadcast_to(part.numpy(force=True), shape), np.float64) for part in found)
        return Kinks(centre, rates, curvature)
    assert rate is not None
    inside = prior.groups(shape) or ()
    apart = tuple(1 if dim in inside else size for dim, size in enumerate(shape))
    groups = np.arange(math.prod(apart)).reshape(apart)
    # One rate per group, whatever it was written as.
    each = np.array(np.broadcast_to(rate.numpy(force=True), apart), np.float64).reshape(-1)
    if len(each) == math.prod(shape):
        return Kinks(centre, each.reshape(shape), np.zeros(shape))
    return Kinks(centre, each, np.zeros(shape), np.array(np.broadcast_to(groups, shape)))
