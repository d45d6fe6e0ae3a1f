"""Newton's method for a linear layer; with L1 terms each of its parabolas is minimised as a whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from bayesreg.trainer.full_batch.lbfgs import Report
from bayesreg.trainer.full_batch.linear.blocks import Blocks
from bayesreg.trainer.full_batch.linear.problem import LinearProblem

__all__ = ["minimise_newton"]

_STALLED, _HALVINGS = 3, 40
# How well a system of outputs that meet is solved, of the gradient: the better the nearer the minimum is.
_LOOSE, _ROUNDS = 0.1, 200
# Of the logarithm of the noise: the longest way that is looked at.
_FAR = 40.0


def minimise_newton(
    problem: LinearProblem,
    tolerance: float,
    max_iterations: int,
    report: Report,
    blocks: Blocks | None = None,
    start: Tensor | None = None,
) -> tuple[Tensor, float]:
    """Minimise the objective of a linear layer to a KKT residual of at most `tolerance`, if it gets there.

    Args:
        problem: The objective; its kinks, if any, those of L1 terms (see `Blocks.serves`).
        tolerance: KKT residual to stop at, per example.
        max_iterations: Newton steps at most.
        report: Called at the end with (iteration, parameters, residual, what else it takes to go on).
        blocks: The sums that it takes, where they are wanted afterwards.
        start: Where to begin. Default: where the model is.

    Returns:
        The lowest point found and its KKT residual; where that is too large, the generic solvers go on from there.
    """
    # Not inside any boundary: none of the priors that are served has one.
    flat = problem.get() if start is None else start
    blocks = blocks or Blocks(problem)
    if not blocks.serves():
        return flat, float("inf")
    descent = _Descent(flat, blocks, tolerance, max_iterations)
    try:
        if problem.at_own is None:
            flat = descent(flat)
            residual = descent.residual
        else:
            flat = _with_own(problem, descent, flat)
            residual = problem.residual(flat, problem.value_and_grad(flat)[1])
    except BaseException:
        # An interrupt leaves what was found until then.
        problem.set(descent.here)
        raise
    problem.set(flat)
    report(descent.done, flat, residual, {"flat": flat, "value": descent.value})
    return flat, residual


class _Descent:
    """The minimisation over the weights, at one noise; called again it goes on from another place."""

    def __init__(self, flat: Tensor, blocks: Blocks, tolerance: float, max_iterations: int) -> None:
        self.problem, self.blocks = blocks.problem, blocks
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.done, self.residual, self.value = 0, float("inf"), float("nan")
        #: The last point that was not worse than the one before it.
        self.here = flat

    def __call__(self, flat: Tensor) -> Tensor:
        self.here, stalled = flat, 0
        value, grad = self._at(flat)
        # Hardly a fit begins at its minimum, but for one that goes on from another.
        residual = float("inf") if self.blocks.fresh else self.problem.residual(flat, grad)
        while residual > self.tolerance and self.done < self.max_iterations and stalled < _STALLED:
            self.done += 1
            # Round-off in the value must not look like a rise.
            near = 10.0 * torch.finfo(self.problem.dtype).eps * max(1.0, abs(value))
            try:
                found = self._lower(flat, grad, value + near)
            except (torch.linalg.LinAlgError, np.linalg.LinAlgError):  # type: ignore[attr-defined]
                # Large singular systems, of few examples and no prior: the generic solvers need no factors.
                break
            if found is None:
                break
            new, new_value, new_grad = found
            new_residual = self.problem.residual(new, new_grad)
            stalled = 0 if new_value < value - near or new_residual < residual else stalled + 1
            if not stalled:
                self.here = flat = new
                value, grad, residual = new_value, new_grad, new_residual
        self.residual, self.value = residual, value
        return flat

    def _at(self, flat: Tensor) -> tuple[float, Tensor]:
        value, grad = self.problem.smooth_part(flat)
        if self.problem.at_own is not None:
            grad[self.problem.at_own] = 0.0
        return value + self.problem.kinked_value(flat), grad

    def _lower(self, flat: Tensor, grad: Tensor, limit: float) -> tuple[Tensor, float, Tensor] | None:
        """Return a point at which the objective is at most `limit`, with value and gradient; None if none is found."""
        problem = self.problem
        target = self.blocks.lowest(flat, grad) if problem.kinked else flat + self._direction(flat, -grad)
        if target is None:
            return None
        new = target
        for halving in range(_HALVINGS):
            # With the gradient, as the first of them is as good as always the last.
            value, slope = self._at(new)
            if value <= limit:
                return new, value, slope
            new = torch.lerp(flat, target, 0.5 ** (halving + 1))
        return None

    def _direction(self, flat: Tensor, target: Tensor) -> Tensor:
        solve, exact = self.blocks.solver(flat)
        step = solve(target)
        return step if exact else self._conjugate(flat, target, solve)

    def _conjugate(self, flat: Tensor, target: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        """Solve with the whole Hessian by conjugate gradients, the blocks as preconditioner."""
        found, rest = torch.zeros_like(target), target.clone()
        size = float(target.norm())
        goal = size * min(_LOOSE, size**0.5)
        step = solve(rest)
        way, product = step.clone(), float(rest @ step)
        for _ in range(_ROUNDS):
            image = self.problem.hessian_times(flat, way)
            curvature = float(way @ image)
            # Where the objective is not convex, or flat but for rounding: as far as it goes, or the gradient's way.
            if not curvature > 0.0:
                return found if bool(found.any()) else step
            length = product / curvature
            found += length * way
            rest -= length * image
            if float(rest.norm()) <= goal:
                break
            step = solve(rest)
            new_product = float(rest @ step)
            if not new_product > 0.0:
                break
            way, product = step + (new_product / product) * way, new_product
        return found


def _with_own(problem: LinearProblem, descent: _Descent, flat: Tensor) -> Tensor:
    """Find the likelihood's own parameter: where the slope of the objective in it, at the best weights, is 0."""
    at = problem.at_own
    assert at is not None
    here = [flat]

    def slope(own: float) -> float:
        moved = here[0].clone()
        moved[at] = own
        here[0] = descent(moved)
        return float(problem.value_and_grad(here[0])[1][at])

    first, step = float(flat[at]), 1.0
    way = slope(first)
    if way == 0.0:
        return here[0]
    sign = -1.0 if way > 0.0 else 1.0
    while step < _FAR:
        second = first + sign * step
        if problem.least_own is not None and second < problem.least_own:
            second = problem.least_own
            if slope(second) >= 0.0:
                return here[0]
        if slope(second) * way <= 0.0:
            slope(float(brentq(slope, *sorted((first, second)), xtol=1e-13, rtol=1e-14)))
            return here[0]
        first, step = second, 2.0 * step
    return flat
