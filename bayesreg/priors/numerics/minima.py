"""The lowest of several minima of a function of one number, elementwise."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bayesreg.priors.numerics.roots import Function, increasing_root

__all__ = ["lowest_minimum"]

# Numbers looked at at once.
_AT_ONCE = 2_000_000


@torch.no_grad()
def lowest_minimum(
    objective: Callable[[Tensor], Tensor],
    slope: Function,
    places: Callable[[Tensor], Tensor],
    shares: Tensor,
    numel: int,
) -> Tensor:
    """Return the lowest minimum between the first and the last place.

    Every cell between two places in which the slope turns positive is taken to hold one minimum.

    Args:
        objective: What to minimise; like `slope` it takes several points per element, stacked first.
        slope: x -> (its derivative times a positive number, the derivative of that), in units of x.
        places: From increasing numbers to as many increasing points per element; the slope is taken to rise after
            the last.
        shares: Those numbers.
        numel: Number of elements.

    Returns:
        The minimisers.
    """
    block = max(2, min(len(shares), _AT_ONCE // max(numel, 1)))
    left = right = best = None
    for start in range(0, len(shares) - 1, block - 1):
        x = places(shares[start : start + block])
        rises = slope(x)[0] > 0
        if start + len(x) == len(shares):
            rises[-1] = True
        heights = objective(x)
        cells = torch.where(~rises[:-1] & rises[1:], torch.minimum(heights[:-1], heights[1:]), math.inf)
        lowest, where = cells.min(0, keepdim=True)
        here = lowest[0], x[:-1].gather(0, where)[0], x[1:].gather(0, where)[0]
        if best is None or left is None or right is None:
            best, left, right = here
            continue
        better = here[0] < best
        best, left, right = (torch.where(better, new, old) for new, old in zip(here, (best, left, right), strict=True))
    assert left is not None
    assert right is not None
    # Where the slope rises from the first place on, that is the minimum.
    right = torch.where(slope(left)[0] >= 0, left, right)
    return increasing_root(slope, left, right)
