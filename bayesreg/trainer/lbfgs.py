"""Full-batch L-BFGS for smooth objectives, finished by Newton steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayesreg.errors import UnsupportedError
from bayesreg.trainer.full_batch import FullBatchProblem
from bayesreg.trainer.newton import newton_polish

__all__ = ["minimise_lbfgs"]

Report = Callable[[int, Tensor, float], None]


def minimise_lbfgs(problem: FullBatchProblem, tolerance: float, max_iterations: int, report: Report) -> Tensor:
    """Minimise a smooth objective to a gradient of at most `tolerance`, as far as the dtype goes.

    Args:
        problem: The objective; all priors smooth.
        tolerance: Largest gradient entry to stop at, per example.
        max_iterations: L-BFGS iterations at most.
        report: Called with (iteration, parameters, residual) after each round.

    Returns:
        The minimiser.

    Raises:
        UnsupportedError: If a prior has a kink.
    """
    if any(problem.kinked):
        names = [n for n, kinked in zip(problem.names, problem.kinked, strict=True) if kinked]
        raise UnsupportedError(
            f"optimizer='lbfgs' needs smooth priors, and that of {names[0]} has a kink or a boundary; use "
            f"optimizer='proximal'."
        )
    flat = problem.get().clone().requires_grad_()
    residual = torch.inf
    done = 0
    # torch's L-BFGS stops early on round-off; a fresh memory gets further, a Newton step the rest.
    while done < max_iterations and residual > tolerance:
        chunk = min(100, max_iterations - done)
        solver = torch.optim.LBFGS(
            [flat],
            lr=1.0,
            max_iter=chunk,
            max_eval=2 * chunk,
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
        done += max(int(solver.state[flat].get("n_iter", chunk)), 1)
        if not bool(torch.isfinite(flat).all()):
            flat.data.copy_(before)
        if residual < 1e-3 or done >= max_iterations or bool((flat == before).all()):
            flat.data.copy_(newton_polish(problem, flat.detach(), tolerance))
        _, grad = problem.value_and_grad(flat.detach())
        new_residual = problem.residual(flat.detach(), grad)
        report(done, flat.detach(), new_residual)
        if not new_residual < residual and residual < torch.inf:
            break
        residual = new_residual
    return flat.detach()
