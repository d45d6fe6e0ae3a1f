"""The lowest place of a smooth function of one number."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.optimize import brentq
from torch import Tensor

__all__ = ["crossing", "lowest"]

Objective = Callable[[Tensor], Tensor]


def _place(at: float) -> Tensor:
    return torch.tensor(at, dtype=torch.float64)


def _slope(objective: Objective, at: float) -> float:
    with torch.enable_grad():
        place = _place(at).requires_grad_()
        (slope,) = torch.autograd.grad(objective(place), place)
    return float(slope)


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
    if not _slope(objective, low) < 0.0 < _slope(objective, high):
        return grid[best], values, True
    found = brentq(lambda at: _slope(objective, at), low, high, xtol=1e-13, rtol=1e-14)
    return _place(found), values, True


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
