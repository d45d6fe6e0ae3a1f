"""Full-batch L-BFGS for smooth objectives, finished by Newton steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from bayesreg.errors import UnsupportedError
from bayesreg.trainer.full_batch.newton import newton_polish
from bayesreg.trainer.full_batch.problem import FullBatchProblem

__all__ = ["Report", "descend", "minimise_lbfgs"]

#: (iteration, parameters, residual, what else a solver needs to go on from there).
Report = Callable[[int, Tensor, float, Mapping[str, Any]], None]

# Newton steps pay once the quadratic model holds; they are refused where it does not.
_NEWTON_BELOW = 1e-4
# What a round of up to a hundred iterations must lower the objective by, relative to it.
_PROGRESS = 1e-8


def minimise_lbfgs(
    problem: FullBatchProblem,
    tolerance: float,
    max_iterations: int,
    report: Report,
    left_off: Mapping[str, Any] | None = None,
) -> Tensor:
    """Minimise a smooth objective to a gradient of at most `tolerance`, as far as the dtype goes.

    Args:
        problem: The objective; all priors smooth.
        tolerance: Largest gradient entry to stop at, per example.
        max_iterations: L-BFGS iterations at most.
        report: Called after each round with (iteration, parameters, residual, what else it takes to go on).
        left_off: What `report` was given last, to go on from there.

    Returns:
        The minimiser.

    Raises:
        UnsupportedError: If a prior has a kink.
    """
    if problem.kinked:
        raise UnsupportedError(
            f"optimizer='lbfgs' needs smooth priors, and that of {next(iter(problem.kinked))} has a kink or a "
            f"boundary; use optimizer='proximal'."
        )
    flat = (problem.get() if left_off is None else left_off["flat"]).clone().requires_grad_()
    value, grad = problem.value_and_grad(flat.detach())
    residual = problem.residual(flat.detach(), grad)
    done, stalled = 0, 0
    if left_off is not None:
        done, stalled, value, residual = (left_off[name] for name in ("done", "stalled", "value", "residual"))
    # torch's L-BFGS stops early on round-off; a fresh memory gets further, a Newton step the rest.
    while done < max_iterations and residual > tolerance and stalled < 2:
        done += descend(problem, flat, tolerance, min(100, max_iterations - done))
        new_value, grad = problem.value_and_grad(flat.detach())
        if problem.residual(flat.detach(), grad) < _NEWTON_BELOW:
            flat.data.copy_(newton_polish(problem, flat.detach(), tolerance))
            new_value, grad = problem.value_and_grad(flat.detach())
        new_residual = problem.residual(flat.detach(), grad)
        # Round-off is no progress: where the noise of exact data goes to nought there is always a bit of it.
        lower = value - new_value > _PROGRESS * (1.0 + abs(value))
        stalled = 0 if lower or new_residual < 0.99 * residual else stalled + 1
        value, residual = min(value, new_value), new_residual
        here = flat.detach()
        state = {"flat": here, "done": done, "stalled": stalled, "value": value, "residual": residual}
        report(done, here, residual, state)
    return flat.detach()


class Slope(Protocol):
    """An objective as L-BFGS sees it.

    Attributes:
        dtype: Of its parameters.
    """

    dtype: torch.dtype

    def value_and_grad(self, flat: Tensor) -> tuple[float, Tensor]:
        """Return value and gradient."""


def descend(problem: Slope, flat: Tensor, tolerance: float, iterations: int) -> int:
    """Run L-BFGS in place, with a fresh memory.

    Args:
        problem: The objective; smooth where it goes.
        flat: Where to begin, a leaf that requires a gradient; the end is written into it.
        tolerance: Largest gradient entry to stop at, per example.
        iterations: At most.

    Returns:
        The iterations done.
    """
    solver = torch.optim.LBFGS(
        [flat],
        lr=1.0,
        max_iter=iterations,
        max_eval=2 * iterations,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        value, grad = problem.value_and_grad(flat.detach())
        flat.grad = grad
        return torch.tensor(value, dtype=problem.dtype)

    before = flat.detach().clone()
    solver.step(closure)
    if not bool(torch.isfinite(flat).all()):
        flat.data.copy_(before)
    return max(int(solver.state[flat].get("n_iter", iterations)), 1)
