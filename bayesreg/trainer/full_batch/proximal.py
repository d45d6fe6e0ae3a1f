"""Accelerated proximal gradient with line search and restarts, for priors with kinks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bayesreg.errors import UnsupportedError
from bayesreg.trainer.full_batch.lbfgs import Report
from bayesreg.trainer.full_batch.newton import newton_polish
from bayesreg.trainer.full_batch.problem import FullBatchProblem

__all__ = ["minimise_proximal"]

_POLISH_EVERY, _STALLED = 50, 100
# What it takes to go on.
_STATE = ("flat", "ahead", "momentum", "step", "iteration", "stalled", "residual", "last")


def minimise_proximal(
    problem: FullBatchProblem,
    tolerance: float,
    max_iterations: int,
    report: Report,
    left_off: Mapping[str, Any] | None = None,
    *,
    polish: bool = True,
) -> Tensor:
    """Minimise smooth + kinked to a KKT residual of at most `tolerance`, as far as the dtype goes.

    FISTA (Beck and Teboulle 2009) with backtracking and the gradient restart of O'Donoghue and Candès (2015). Every
    few iterations, Newton steps over the coordinates off their kinks are tried; they are kept only if the KKT
    residual falls, so they cannot change what is solved.

    Args:
        problem: The objective.
        tolerance: KKT residual to stop at, per example.
        max_iterations: Iterations at most.
        report: Called now and then with (iteration, parameters, residual, what else it takes to go on).
        left_off: What `report` was given last, to go on from there.
        polish: Whether Newton steps are tried; without them an inexact fit is cheaper.

    Returns:
        The minimiser.

    Raises:
        UnsupportedError: If a kinked prior has no proximal operator.
    """
    for name, prior in problem.kinked.items():
        if not prior.traits.has_prox:
            raise UnsupportedError(
                f"{name}: {prior.family} has a kink but no proximal operator; use another "
                f"prior (for a family of your own: give it offset_prox and declare has_prox=True)."
            )
    flat = problem.get()
    ahead, momentum, step = flat, 1.0, 1.0
    stalled, begun = 0, 0
    residual = torch.inf
    if left_off is not None:
        flat, ahead, momentum, step, begun, stalled, residual, last = (left_off[name] for name in _STATE)
        if last <= tolerance or stalled >= _STALLED:
            begun = max_iterations
    for iteration in range(begun + 1, max_iterations + 1):
        value, grad = problem.value_and_grad(ahead)
        new, step = _backtrack(problem, ahead, value, grad, step)
        if new is None:
            break
        if float((ahead - new) @ (new - flat)) > 0:
            momentum = 1.0
        grown = 0.5 * (1.0 + (1.0 + 4.0 * momentum**2) ** 0.5)
        ahead = new + ((momentum - 1.0) / grown) * (new - flat)
        flat, momentum = new, grown
        # Longer steps are tried again now and then: the curvature may have fallen.
        step *= 1.1
        if iteration % _POLISH_EVERY == 0 or iteration == max_iterations:
            polished = newton_polish(problem, flat, tolerance) if polish else flat
            if polished is not flat:
                flat = ahead = polished
                momentum = 1.0
            _, grad = problem.value_and_grad(flat)
            new_residual = problem.residual(flat, grad)
            stalled = stalled + 1 if not new_residual < residual else 0
            residual = min(residual, new_residual)
            state = (flat, ahead, momentum, step, iteration, stalled, residual, new_residual)
            report(iteration, flat, new_residual, dict(zip(_STATE, state, strict=True)))
            if new_residual <= tolerance or stalled >= _STALLED:
                break
    problem.set(flat)
    return flat


def _backtrack(
    problem: FullBatchProblem, ahead: Tensor, value: float, grad: Tensor, step: float
) -> tuple[Tensor | None, float]:
    """Return the proximal point for the longest step that the quadratic model allows; None if there is none."""
    # Round-off in the value must not look like a failed decrease.
    slack = 10.0 * torch.finfo(problem.dtype).eps * max(1.0, abs(value))
    for _ in range(80):
        new = problem.prox(ahead - step * grad, step)
        moved = new - ahead
        model = value + float(grad @ moved) + float(moved @ moved) / (2.0 * step)
        if problem.value(new) <= model + slack:
            return new, step
        step *= 0.5
    return None, step
