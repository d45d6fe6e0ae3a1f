"""Fitting to optimality with a full-batch solver."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.data import whole
from bayesreg.priors import Belief
from bayesreg.priors.contract.asking import is_flat
from bayesreg.routes.report import describe_routes
from bayesreg.trainer.full_batch.lbfgs import minimise_lbfgs
from bayesreg.trainer.full_batch.problem import FullBatchProblem
from bayesreg.trainer.full_batch.proximal import minimise_proximal
from bayesreg.trainer.guard import Snapshot, stop
from bayesreg.trainer.modes import Mode, Modes, draw_start
from bayesreg.trainer.result import FitResult, History
from bayesreg.trainer.task import Task

__all__ = ["Solver", "fit_full_batch"]

Solver = Literal["lbfgs", "proximal"]


@dataclass(frozen=True)
class SolveSettings:
    """How far to go and from where; the fields are `MAPTrainer`'s arguments.

    Raises:
        InvalidArgumentError: If a number is out of range.
    """

    tolerance: float = 1e-9
    max_iterations: int = 10_000
    starts: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "tolerance", checks.positive_float("tolerance", self.tolerance))
        checks.positive_int("max_iterations", self.max_iterations)
        checks.positive_int("starts", self.starts)


def fit_full_batch(task: Task, solver: str, settings: SolveSettings, generator: torch.Generator) -> FitResult:
    """Minimise the objective over the whole data set.

    Args:
        task: What to train.
        solver: "lbfgs" or "proximal".
        settings: The KKT residual to stop at, per example; iterations at most, from each start; how many starting
            points: the weights as they are, then draws.
        generator: Source of the draws.

    Returns:
        The outcome, with the best of the points that were reached.

    Raises:
        NonFiniteObjectiveError: If the objective is not finite at the start.
        UnsupportedError: If the solver cannot serve a prior or the model.
    """
    device = next(task.model.parameters()).device
    task.likelihood.to(device)
    task.prior.to(device)
    task.model.eval()
    batches = whole(task.loader, device)
    problem = FullBatchProblem(task.model, task.prior, task.likelihood, batches, task.loss_scale)
    tolerance = max(settings.tolerance, 50 * torch.finfo(problem.dtype).eps)
    max_iterations, starts = settings.max_iterations, settings.starts
    with torch.no_grad():
        first = float(problem.mean_nll())
    if not abs(first) < float("inf"):
        good = Snapshot(task.model, task.likelihood)
        stop(task.model.named_parameters(), good, epoch=1, batch=1, loss=first)
    minimise = minimise_lbfgs if solver == "lbfgs" else minimise_proximal
    modes, history = Modes(), History()
    # Weights outside their bounds have no finite objective to start from.
    best = beginning = problem.inside(problem.get())
    for start in range(starts):
        problem.set(beginning)
        if start:
            draw_start(task.prior, generator)
        run = _Run(task, problem, max_iterations, solver if starts == 1 else f"{solver}, start {start + 1}")
        flat = minimise(problem, tolerance, max_iterations, run.report)
        run.bar.close()
        residual = problem.residual(flat, problem.value_and_grad(flat)[1])
        objective = problem.value(flat) + problem.kinked_value(flat)
        found = Mode(objective, 1, residual, int((~problem.free(flat)).sum()))
        if modes.add(flat, found, converged=residual <= tolerance) or not start:
            best, history = flat, run.history
    _, grad = problem.value_and_grad(best)
    residual = problem.residual(best, grad)
    if residual > tolerance:
        warnings.warn(
            f"optimizer={solver!r} stopped at a KKT residual of {residual:.1e} (asked for {tolerance:.1e}): raise "
            f"max_iterations, use model.double(), or check that a minimum exists (without a prior it may lie at "
            f"infinity).",
            RuntimeWarning,
            stacklevel=4,  # the caller of fit, which `answering` wraps
        )
    members = [(entry.name, prior, _route(prior)) for entry, prior in task.prior.active()]
    routes = describe_routes(f"Prior with the {solver} solver", members, task.loss_scale)
    return task.result(
        batches,
        history,
        routes,
        converged=residual <= tolerance,
        kkt_residual=residual,
        modes=modes if starts > 1 else None,
    )


class _Run:
    """The report of one minimisation: its records and its progress bar."""

    def __init__(self, task: Task, problem: FullBatchProblem, max_iterations: int, label: str) -> None:
        self.task, self.problem, self.max_iterations = task, problem, max_iterations
        self.history = History()
        self.bar = task.bar(max_iterations, label)
        flat = problem.get()
        self.report(0, flat, problem.residual(flat, problem.value_and_grad(flat)[1]))

    def report(self, iteration: int, flat: Tensor, residual: float) -> None:
        objective = self.problem.value(flat) + self.problem.kinked_value(flat)
        penalty, constant = self.task.prior_terms()
        nll = objective - self.task.loss_scale.value * penalty
        self.history.append({
            "iteration": iteration,
            "mean_nll": nll,
            "log_prior": constant - penalty,
            "objective": objective,
            "kkt_residual": residual,
        })
        self.bar.n = min(iteration, self.max_iterations)
        self.bar.set_postfix_str(f"NLL {nll:.4f}, log prior {constant - penalty:.4g}, KKT {residual:.1e}")


def _route(prior: Belief) -> str:
    if is_flat(prior):
        return "none"
    return "loss" if prior.traits.smooth else "proximal"
