"""Newton steps by conjugate gradients: the last digits that first-order solvers do not reach."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesreg.priors.contract.prior import kept_on_side
from bayesreg.trainer.full_batch.problem import FullBatchProblem

__all__ = ["newton_polish"]

# Curvature along a direction d counts from this many units of rounding of ‖H‖·‖d‖² on: below, it may be rounding alone.
_ROUNDING = 1000.0


def newton_polish(problem: FullBatchProblem, start: Tensor, tolerance: float, max_steps: int = 20) -> Tensor:
    """Take Newton steps over the coordinates off their kinks while each lowers the KKT residual.

    Near a minimum with positive curvature the residual falls quadratically; anywhere else the first step is
    refused and `start` comes back, so the call never makes things worse.

    Args:
        problem: The objective.
        start: Where to begin.
        tolerance: KKT residual to stop at.
        max_steps: Newton steps at most.

    Returns:
        A point whose residual is not larger than that of `start`.
    """
    flat = start
    _, grad = problem.value_and_grad(flat)
    residual = problem.residual(flat, grad)
    for _ in range(max_steps):
        if residual <= tolerance:
            break
        free = problem.free(flat)
        slope = torch.where(free, problem.slope(flat, grad), 0.0)
        direction = _conjugate_gradients(problem, flat, -slope, free)
        if direction is None:
            break
        candidate = _stay_on_side(problem, flat, flat + direction)
        _, new_grad = problem.value_and_grad(candidate)
        new_residual = problem.residual(candidate, new_grad)
        if not new_residual < residual:
            break
        flat, grad, residual = candidate, new_grad, new_residual
    return flat


def _stay_on_side(problem: FullBatchProblem, flat: Tensor, candidate: Tensor) -> Tensor:
    """Put coordinates that would jump over a kink or a boundary onto it."""
    result = candidate.clone()
    for at, prior, part in problem._kinked_slices(flat):
        moved = candidate[at].reshape(part.shape)
        result[at] = kept_on_side(prior, part, moved).reshape(-1)
    return result


def _conjugate_gradients(problem: FullBatchProblem, flat: Tensor, target: Tensor, free: Tensor) -> Tensor | None:
    """Solve H x = target on the free coordinates; None where the curvature is not positive."""
    # A direction in which the objective is flat (the common shift of all biases under a softmax) has a curvature of
    # rounding errors, as often above zero as below: a step over it would go anywhere.
    least = _ROUNDING * torch.finfo(target.dtype).eps
    largest = 0.0
    solution = torch.zeros_like(target)
    rest = target.clone()
    direction = rest.clone()
    norm = float(rest @ rest)
    goal = norm * 1e-20
    best, best_norm = solution, norm
    for _ in range(min(2 * int(free.sum()) + 10, 1000)):
        if norm <= goal or norm == 0.0:
            break
        image = torch.where(free, problem.hessian_times(flat, direction), 0.0)
        curvature, square = float(direction @ image), float(direction @ direction)
        # ‖H‖ from below, by the steepest direction met: the first are the gradient's own.
        largest = max(largest, float(image.norm()) / square**0.5)
        if not curvature > least * largest * square:
            break
        step = norm / curvature
        solution = solution + step * direction
        rest = rest - step * image
        new_norm = float(rest @ rest)
        if new_norm < best_norm:
            best, best_norm = solution, new_norm
        direction = rest + (new_norm / norm) * direction
        norm = new_norm
    return best if best_norm < float(target @ target) else None
