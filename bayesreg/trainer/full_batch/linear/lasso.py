"""A parabola with L1 terms, to its minimum in a finite number of steps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack

__all__ = ["minimise_lasso"]

Vector = npt.NDArray[np.float64]

# Of the rates, or of the slope at the start: what of a slope is rounding.
_ROUNDING = 1e-13
# Of a slope: from how much of it on a direction without curvature is gone along.
_FLAT = 1e-10


def minimise_lasso(hessian: Vector, slope: Vector, rates: Vector, start: Vector, max_steps: int) -> Vector:
    """Minimise ½(x − start)ᵀH(x − start) + slopeᵀ(x − start) + Σ rates·|x|.

    An active-set method: the minimum for the signs as they are, approached as far as the objective falls on the way,
    on which coordinates come to rest at exactly 0; then those whose slope is beyond their rate may leave it.

    Args:
        hessian: H, (d, d), positive semidefinite.
        slope: The gradient of the parabola at the start, (d,).
        rates: (d,), >= 0.
        start: (d,).
        max_steps: Systems that are solved at most.

    Returns:
        The minimiser, with exact zeros.

    References:
        Lee, Battle, Raina and Ng (2006), Efficient Sparse Coding Algorithms, algorithm 1.
    """
    x, grad = start.copy(), slope.copy()
    close = _ROUNDING * max(_largest(slope), _largest(rates))
    loose = rates == 0.0
    signs = np.sign(x)
    signs[loose] = 0.0
    free = (x != 0.0) | loose
    fresh = np.zeros_like(free)
    for _ in range(max_steps):
        pull = grad + rates * signs
        if _largest(pull[free]) <= close:
            beyond = np.abs(grad) - rates
            beyond[free] = 0.0
            most = beyond.max(initial=0.0)
            if most <= close:
                break
            fresh = beyond > max(close, 0.5 * most)
            signs[fresh] = -np.sign(grad[fresh])
            pull = grad + rates * signs
            free |= fresh
        at = free.nonzero()[0]
        goal, matrix = -pull[at], hessian[at[:, None], at]
        way, curved = _solved(matrix, goal)
        # One that has just left 0 must go where its slope sends it; the steepest always does.
        astray = fresh[at] & (way * signs[at] < 0.0)
        if astray.any() and not astray[fresh[at]].all():
            back = at[astray]
            free[back], signs[back], fresh[back] = False, 0.0, False
            continue
        here = x[at]
        length, stops = _along(here, way, rates[at], goal @ way, way @ matrix @ way if curved else 0.0)
        moved = here + length * way
        moved[stops] = 0.0
        x[at] = moved
        signs = np.sign(x)
        signs[loose] = 0.0
        free = (x != 0.0) | loose
        fresh[:] = False
        grad = slope + hessian @ (x - start)
    return x


def _largest(values: Vector) -> float:
    return float(np.abs(values).max()) if len(values) else 0.0


def _along(x: Vector, way: Vector, rates: Vector, drop: float, curvature: float) -> tuple[float, npt.NDArray[np.bool_]]:
    """Return how much of a way to go for the lowest value, and which coordinates are 0 there.

    Args:
        x: Where the way begins.
        way: A direction in which the value falls.
        rates: Of the L1 terms.
        drop: Minus the slope along the way at its beginning.
        curvature: Of the parabola along the way; 0 where it is straight, and the L1 terms alone end it.
    """
    turning = (x * way < 0.0) & (rates > 0.0)
    reached = np.full(len(x), np.inf)
    reached[turning] = -x[turning] / way[turning]
    if curvature > 0.0 and drop / curvature <= reached.min():
        return drop / curvature, np.zeros(len(x), dtype=bool)
    order = np.argsort(reached)
    order = order[np.isfinite(reached[order])]
    # The slope just after each of the places where a sign turns.
    turns = np.cumsum(2.0 * (rates * np.abs(way))[order])
    after = curvature * reached[order] - drop + turns
    first = int(np.argmax(after >= 0.0)) if (after >= 0.0).any() else len(order)
    before = turns[first - 1] if first else 0.0
    if curvature > 0.0:
        length = (drop - before) / curvature
        if first == len(order) or length < reached[order[first]]:
            return length, np.zeros(len(x), dtype=bool)
    if first == len(order):
        return 0.0, np.zeros(len(x), dtype=bool)
    length = float(reached[order[first]])
    return length, reached == length


def _solved(matrix: Vector, goal: Vector) -> tuple[Vector, bool]:
    """Return the way to the minimum; where the parabola is flat in a direction that falls that one, and False."""
    _, found, info = lapack.dposv(matrix, goal, lower=1)
    if info == 0:
        return found, True
    values, vectors = np.linalg.eigh(matrix)
    kept = values > max(float(values[-1]), 1e-300) * len(values) * np.finfo(np.float64).eps
    straight = vectors[:, ~kept] @ (vectors[:, ~kept].T @ goal)
    if np.abs(straight).max() > _FLAT * np.abs(goal).max():
        return straight, False
    inside = vectors[:, kept]
    return inside @ ((inside.T @ goal) / values[kept]), True
