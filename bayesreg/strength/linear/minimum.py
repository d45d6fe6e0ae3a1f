"""The lowest place of a smooth function of one number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

__all__ = ["crossing", "lowest"]

Objective = Callable[[Tensor], Tensor]


# Chebyshev points of a bracket. What is looked at here is smooth over several times its width, and then the polynomial
# through so many slopes is as good as the slopes.
_NODES = np.polynomial.chebyshev.chebpts2(14)
_CLOSE = 1e-9


def _slopes(objective: Objective, places: Tensor) -> Tensor:
    with torch.enable_grad():
        places = places.detach().requires_grad_()
        (slopes,) = torch.autograd.grad(objective(places).sum(), places)
    return slopes


def _slope(objective: Objective, at: float) -> float:
    return float(_slopes(objective, torch.tensor([at], dtype=torch.float64)))


def _rest(objective: Objective, low: float, high: float) -> float | None:
    """Return where the slope is 0, to the last digits; None where it does not go from below to above."""
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    slopes = _slopes(objective, torch.from_numpy(middle + half * _NODES)).numpy()
    if not slopes[0] < 0.0 < slopes[-1]:
        return None
    series = np.polynomial.chebyshev.Chebyshev.fit(_NODES, slopes, len(_NODES) - 1)
    found = middle + half * float(brentq(series, -1.0, 1.0, xtol=1e-14))
    if abs(_slope(objective, found)) <= _CLOSE * (slopes[-1] - slopes[0]):
        return found
    return float(brentq(lambda at: _slope(objective, at), low, high, xtol=1e-13, rtol=1e-14))


def lowest(objective: Objective, grid: Tensor, many: int = 1000) -> tuple[Tensor, Tensor, bool]:
    """Return the lowest place, to the last digits: where the derivative is 0.

    Args:
        objective: Of a float64 scalar, or of each of many; differentiable.
        grid: Increasing places that bracket it.
        many: How many to look at in one go.

    Returns:
        The place, the values on the grid, and whether it is inside the grid.
    """
    with torch.no_grad():
        values = torch.cat([objective(part) for part in grid.split(many)])
    best = int(values.argmin())
    if best in (0, len(grid) - 1):
        return grid[best], values, False
    low, high = float(grid[best - 1]), float(grid[best + 1])
    found = _rest(objective, low, high)
    return grid[best] if found is None else torch.tensor(found, dtype=torch.float64), values, True


def crossing(limit: float, at: Tensor, grid: Tensor, values: Tensor, way: int) -> Tensor | None:
    """Return the first place at which an objective reaches a limit, between the grid's by a line; None if nowhere.

    Args:
        limit: The value.
        at: Where it is lowest.
        grid: Increasing places.
        values: The objective there.
        way: 1 for larger places, −1 for smaller ones.

    Returns:
        The place.
    """
    beyond = torch.nonzero((way * (grid - at) > 0.0) & (values >= limit)).flatten()
    if not len(beyond):
        return None
    outer = int(beyond[0] if way > 0 else beyond[-1])
    inner = outer - way
    if float(values[inner]) >= limit or way * float(grid[inner] - at) < 0.0:
        return grid[outer]
    share = (limit - values[inner]) / (values[outer] - values[inner])
    return grid[inner] + share * (grid[outer] - grid[inner])
