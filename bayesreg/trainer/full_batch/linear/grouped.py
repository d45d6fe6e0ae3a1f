"""A parabola with norms of groups, to its minimum: Newton steps over the groups that are off their centre."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack

__all__ = ["minimise_grouped"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Of the rates, or of the slope at the start: what of a slope is rounding.
_ROUNDING = 1e-13
# Elements off their centre at most, whose system is solved.
_LARGEST = 2000
_HALVINGS, _STALLED = 40, 3
# Of the curvature of a norm to that of the parabola: from there on a system of both keeps too few digits.
_NEAR = 1e6


def minimise_grouped(
    hessians: Array, slope: Array, rates: Array, groups: npt.NDArray[np.intp], start: Array, max_steps: int
) -> Array | None:
    """Minimise Σ_j ½(x_j − start_j)ᵀH_j(x_j − start_j) + ⟨slope, x − start⟩ + Σ_g rates_g·‖x_g‖₂ over x, (k, d).

    An active-set method: Newton steps on what is off 0, where the norms are smooth; a group that a step would turn
    around and that is best at 0 comes to rest there; then groups whose slope is steeper than their rate leave it.

    Args:
        hessians: H, (k, d, d), or (1, d, d) for one that all rows have in common; positive semidefinite.
        slope: The gradient of the parabola at the start, (k, d).
        rates: One per group, >= 0.
        groups: The group of each element, (k, d), from 0.
        start: (k, d).
        max_steps: Systems that are solved at most.

    Returns:
        The minimiser, with groups that are exactly 0; None where too many elements are not.

    References:
        Tseng and Yun (2009), A coordinate gradient descent method for nonsmooth separable minimization, whose descent
        directions these are, over all groups at once.
    """
    problem = _Grouped(hessians, slope, rates, groups, start)
    least, stalled = np.inf, 0
    for _ in range(max_steps):
        # Where only rounding moves the value, slopes are as small as they become.
        stalled = 0 if problem.value < least - problem.rounding else stalled + 1
        least = min(least, problem.value)
        if problem.steepest() <= problem.close or stalled == _STALLED:
            if not problem.enter():
                break
            stalled = 0
        if int(problem.free.sum()) > _LARGEST:
            return None
        problem.step()
    return problem.x


class _Grouped:
    """The parabola, the place, and which groups are off 0."""

    def __init__(self, hessians: Array, slope: Array, rates: Array, groups: npt.NDArray[np.intp], start: Array) -> None:
        self.hessians, self.slope, self.rates, self.groups, self.start = hessians, slope, rates, groups, start
        self.close = _ROUNDING * max(float(np.abs(slope).max(initial=0.0)), float(rates.max(initial=0.0)))
        self.stiffness = self._stiffness()
        self._at(start.copy())

    # -- the function ------------------------------------------------------------------------------------

    def _at(self, x: Array) -> None:
        self.x, self.norms = x, self._norms(x)
        moved = x - self.start
        image = self._image(moved)
        self.grad = self.slope + image
        held = float(self.rates @ self.norms)
        self.value = float((moved * (self.slope + 0.5 * image)).sum()) + held
        # Of the sums that it is made of.
        self.rounding = 1e-15 * (float(np.abs(moved * self.slope).sum()) + held)
        self.off = self.norms > 0.0
        self.free = self.off[self.groups]

    def _image(self, x: Array) -> Array:
        found: Array = x @ self.hessians[0] if len(self.hessians) == 1 else np.einsum("kd,kde->ke", x, self.hessians)
        return found

    def _norms(self, x: Array) -> Array:
        return np.sqrt(np.bincount(self.groups.ravel(), (x * x).ravel(), len(self.rates)))

    def _pull(self) -> Array:
        """Return the slope of the whole where it has one, 0 elsewhere."""
        force = self.rates / np.where(self.norms > 0.0, self.norms, 1.0)
        return np.where(self.free, self.grad + force[self.groups] * self.x, 0.0)

    def _move(self, way: Array, slope: float) -> None:
        """Go along a direction of descent, as far as the function falls by enough."""
        curvature, length = float((way * self._image(way)).sum()), 1.0
        for _ in range(_HALVINGS):
            new = self.x + length * way
            rise = float(self.rates @ (self._norms(new) - self.norms))
            rise += length * float((self.grad * way).sum()) + 0.5 * length**2 * curvature
            if rise <= 1e-4 * length * slope + self.rounding:
                self._at(new)
                return
            length *= 0.5

    # -- steps -------------------------------------------------------------------------------------------

    def steepest(self) -> float:
        """Return the largest slope of what is off 0."""
        return float(np.abs(self._pull()).max(initial=0.0))

    def enter(self) -> bool:
        """Let the groups leave 0 whose slope is the steepest beyond their rate; return whether there are any."""
        steepness = self._norms(self.grad)
        beyond = np.where(self.off, 0.0, steepness - self.rates)
        most = float(beyond.max(initial=0.0))
        if most <= self.close:
            return False
        share = np.where(beyond > 0.5 * most, beyond / np.where(steepness > 0.0, steepness, 1.0), 0.0)
        way = -(share / self.stiffness)[self.groups] * self.grad
        self._move(way, -float((share * beyond * steepness / self.stiffness).sum()))
        return True

    def _stiffness(self) -> Array:
        """Return what the curvature within a group is at most."""
        diagonal = np.broadcast_to(np.diagonal(self.hessians, axis1=1, axis2=2), self.start.shape)
        found = np.zeros(len(self.rates))
        # Outputs do not meet: in each of them the trace, of all of them the largest.
        for groups, row in zip(self.groups, diagonal, strict=True):
            np.maximum(found, np.bincount(groups, row, len(found)), out=found)
        return np.where(found > 0.0, found, 1.0)

    def step(self) -> None:
        """Take a Newton step over what is off 0; what it would turn around goes to 0, or on by itself."""
        way = self._newton(self.free)
        ahead = np.bincount(self.groups.ravel(), (self.x * (self.x + way)).ravel(), len(self.rates))
        squares = self.norms**2
        turned = (self.norms > 0.0) & (self.rates > 0.0) & (ahead <= 0.0)
        if turned.any():
            # How much of the way it is to where each is turned around.
            reached = np.where(turned, squares / np.where(turned, squares - ahead, 1.0), np.inf)
            if self._rest(way, 1.0, turned) or self._rest(way, float(reached.min()), reached <= reached.min()):
                return
        # Beside 0 a norm is no parabola.
        alone = turned | ((self.norms > 0.0) & (self.rates > _NEAR * self.norms * self.stiffness))
        if alone.any():
            way = self._newton(self.free & ~alone[self.groups])
        self._move(way, float((self._pull() * way).sum()))
        for group in alone.nonzero()[0]:
            self._alone(self.groups == group, float(self.rates[group]), float(self.stiffness[group]))

    def _rest(self, way: Array, length: float, resting: Mask) -> bool:
        """Go along a direction with groups that come to rest at 0, if the function falls; return whether it does."""
        before, value, rounding = self.x, self.value, self.rounding
        self._at(np.where(resting[self.groups], 0.0, self.x + length * way))
        if self.value < value - rounding:
            return True
        self._at(before)
        return False

    def _newton(self, free: Mask) -> Array:
        way = np.zeros_like(self.x)
        rows, columns = free.nonzero()
        if len(rows):
            way[rows, columns] = _solved(self._matrix(rows, columns), -self._pull()[rows, columns])
        return way

    def _alone(self, inside: Mask, rate: float, stiffness: float) -> None:
        """Bring a group to 0 if it is best there while all others stay, or take a proximal step with it."""
        here = self.x[inside]
        without = self.grad - self._image(np.where(inside, self.x, 0.0))
        new = np.zeros_like(here)
        if np.sqrt((without[inside] ** 2).sum()) > rate:
            ahead = here - self.grad[inside] / stiffness
            size = float(np.sqrt((ahead**2).sum()))
            new = ahead * max(0.0, 1.0 - rate / (stiffness * size)) if size > 0.0 else new
        x = self.x.copy()
        x[inside] = new
        self._at(x)

    def _matrix(self, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> Array:
        groups = self.groups[rows, columns]
        same_group = groups[:, None] == groups
        norms = np.where(self.norms > 0.0, self.norms, 1.0)[groups]
        unit, force = self.x[rows, columns] / norms, self.rates[groups] / norms
        matrix = np.where(same_group, -force[:, None] * unit[:, None] * unit, 0.0)
        matrix.reshape(-1)[:: len(rows) + 1] += force
        for row in np.unique(rows):
            at = (rows == row).nonzero()[0]
            hessian = self.hessians[row if len(self.hessians) > 1 else 0]
            matrix[at[:, None], at] += hessian[columns[at][:, None], columns[at]]
        return matrix


def _solved(matrix: Array, goal: Array) -> Array:
    """Return the way to the minimum of a parabola; where it is flat, down the slope that there is."""
    _, found, failed = lapack.dposv(matrix, goal, lower=1)
    if failed == 0:
        return np.asarray(found)
    values, vectors = np.linalg.eigh(matrix)
    kept = values > max(float(values[-1]), 1e-300) * len(values) * np.finfo(np.float64).eps
    along = vectors.T @ goal
    result: Array = vectors @ np.where(
        kept, along / np.where(kept, values, 1.0), along / max(float(values[-1]), 1e-300)
    )
    return result
