"""Fitting to optimality with a full-batch solver."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from bayesreg._describe import describe_routes
from bayesreg.priors import Flat, Prior
from bayesreg.scale import LossScale
from bayesreg.trainer.data import whole
from bayesreg.trainer.full_batch import FullBatchProblem
from bayesreg.trainer.guard import Snapshot, stop
from bayesreg.trainer.lbfgs import minimise_lbfgs
from bayesreg.trainer.proximal import minimise_proximal
from bayesreg.trainer.result import FitResult, History
from bayesreg.trainer.task import Task

__all__ = ["Solver", "fit_full_batch"]

Solver = Literal["lbfgs", "proximal"]


def fit_full_batch(task: Task, solver: str, tolerance: float, max_iterations: int) -> FitResult:
    """Minimise the objective over the whole data set.

    Args:
        task: What to train.
        solver: "lbfgs" or "proximal".
        tolerance: KKT residual to stop at, per example.
        max_iterations: Iterations at most.

    Returns:
        The outcome.

    Raises:
        NonFiniteObjectiveError: If the objective is not finite at the start.
        UnsupportedError: If the solver cannot serve a prior or the model.
    """
    device = next(task.model.parameters()).device
    task.likelihood.to(device)
    task.prior.to(device)
    task.model.eval()
    batches = whole(task.loader, device)
    problem = FullBatchProblem(task.model, task.prior, task.likelihood, batches, task.num_data)
    tolerance = max(tolerance, 50 * torch.finfo(problem.dtype).eps)
    history = History()
    bar = task.bar(max_iterations, solver)

    def report(iteration: int, flat: Tensor, residual: float) -> None:
        objective = problem.value(flat) + problem.kinked_value(flat)
        penalty, constant = task.prior_terms()
        nll = objective - penalty / task.num_data
        history.append({
            "iteration": iteration,
            "mean_nll": nll,
            "log_prior": constant - penalty,
            "objective": objective,
            "kkt_residual": residual,
        })
        bar.n = min(iteration, max_iterations)
        bar.set_postfix_str(f"NLL {nll:.4f}, log prior {constant - penalty:.4g}, KKT {residual:.1e}")

    with torch.no_grad():
        first = float(problem.mean_nll())
    if not abs(first) < float("inf"):
        good = Snapshot(task.model, task.likelihood)
        stop(task.model.named_parameters(), good, epoch=1, batch=1, loss=first)
    beginning = problem.get()
    report(0, beginning, problem.residual(beginning, problem.value_and_grad(beginning)[1]))
    minimise = minimise_lbfgs if solver == "lbfgs" else minimise_proximal
    flat = minimise(problem, tolerance, max_iterations, report)
    bar.close()
    _, grad = problem.value_and_grad(flat)
    residual = problem.residual(flat, grad)
    if residual > tolerance:
        warnings.warn(
            f"optimizer={solver!r} stopped at a KKT residual of {residual:.1e} (asked for {tolerance:.1e}): raise "
            f"max_iterations, use model.double(), or check that a minimum exists (without a prior it may lie at "
            f"infinity).",
            RuntimeWarning,
            stacklevel=3,
        )
    members = [(entry.name, prior, _route(prior)) for entry, prior in task.prior.active()]
    routes = describe_routes(f"Prior with the {solver} solver", members, LossScale.mean(task.num_data))
    return task.result(batches, history, routes, converged=residual <= tolerance, kkt_residual=residual)


def _route(prior: Prior) -> str:
    if isinstance(prior, Flat):
        return "none"
    return "loss" if prior.traits.smooth else "proximal"
