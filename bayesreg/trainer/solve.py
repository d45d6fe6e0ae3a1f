"""Fitting to optimality with a full-batch solver."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg._support.tables import Table
from bayesreg.data import whole
from bayesreg.priors import Belief
from bayesreg.priors.contract.asking import is_flat
from bayesreg.routes.report import describe_routes
from bayesreg.trainer.checkpoint.keeper import Keeper
from bayesreg.trainer.full_batch.lbfgs import minimise_lbfgs
from bayesreg.trainer.full_batch.linear import LinearProblem, linear_view, minimise_newton
from bayesreg.trainer.full_batch.problem import FullBatchProblem
from bayesreg.trainer.full_batch.proximal import minimise_proximal
from bayesreg.trainer.modes import Mode, Modes, draw_start
from bayesreg.trainer.result import FitResult, History
from bayesreg.trainer.stepping.guard import Snapshot, stop
from bayesreg.trainer.task import Task

__all__ = ["FullBatchFit", "SolveSettings", "Solver", "solver_route"]

Solver = Literal["lbfgs", "proximal"]

# Between two checkpoints of a solver at least, unless another interval was asked for.
_SECONDS = 10.0


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


class FullBatchFit:
    """One minimisation of the objective over the whole data set, from one starting point or several.

    Args:
        task: What to train.
        solver: "lbfgs" or "proximal".
        settings: The KKT residual to stop at, per example; iterations at most, from each start; how many starting
            points: the weights as they are, then draws.
        generator: Source of the draws.
        keep: Makes what keeps the run's state; None: nobody keeps it.

    Raises:
        UnsupportedError: If the solver cannot serve a prior or the model.
        CheckpointError: If the run that is resumed is another one.
    """

    def __init__(
        self,
        task: Task,
        solver: str,
        settings: SolveSettings,
        generator: torch.Generator,
        keep: Callable[[bool], Keeper] | None = None,
    ) -> None:
        device = next(task.model.parameters()).device
        task.likelihood.to(device)
        task.prior.to(device)
        task.model.eval()
        self.task, self.solver, self.settings, self.generator = task, solver, settings, generator
        self.batches = whole(task.loader, device, task.reading.form)
        self.keeper = None if keep is None else keep(True)
        if self.keeper is not None:
            self.keeper.restore_prior()
        objective = (task.model, task.prior, task.reading, self.batches, task.loss_scale)
        view = linear_view(task.model, task.prior, task.reading, self.batches)
        self.problem = FullBatchProblem(*objective) if view is None else LinearProblem(view, *objective)
        self.tolerance = max(settings.tolerance, 50 * torch.finfo(self.problem.dtype).eps)
        self.modes, self.history = Modes(), History()
        #: What there was when an error or an interrupt ended it.
        self.partial: FitResult | None = None
        # Weights outside their bounds have no finite objective to start from.
        self.beginning = self.best = self.problem.inside(self.problem.get())
        self._start, self._kept_at = 0, time.monotonic()
        self._left_off: dict[str, Any] | None = None
        self._reached: Tensor | None = None
        self._written = 0
        self._last: tuple[int, Mapping[str, Any]] | None = None
        self._run_history = History()
        self._go_on(None if self.keeper is None else self.keeper.found)

    def fit(self) -> FitResult:
        """Minimise.

        Returns:
            The outcome, with the best of the points that were reached.

        Raises:
            NonFiniteObjectiveError: If the objective is not finite at the start.
        """
        try:
            return self._fit()
        except BaseException as error:
            self.partial = self._stopped(error)
            raise

    def _fit(self) -> FitResult:
        task, problem = self.task, self.problem
        with torch.no_grad():
            first = float(problem.mean_nll())
        if not abs(first) < float("inf"):
            good = Snapshot(task.model, task.likelihood)
            stop(task.model.named_parameters(), good, epoch=1, batch=1, loss=first)
        for start in range(self._start, self.settings.starts):
            self._solve(start)
        _, grad = problem.value_and_grad(self.best)
        residual = problem.residual(self.best, grad)
        if residual > self.tolerance:
            warnings.warn(
                f"optimizer={self.solver!r} stopped at a KKT residual of {residual:.1e} (asked for "
                f"{self.tolerance:.1e}){self._advice()}",
                RuntimeWarning,
                stacklevel=5,  # the caller of MAPTrainer.fit, which `answering` wraps
            )
        return task.result(
            self.history,
            self._routes(),
            self.batches,
            converged=residual <= self.tolerance,
            kkt_residual=residual,
            modes=self.modes if self.settings.starts > 1 else None,
        )

    def _advice(self) -> str:
        limit = self.settings.max_iterations
        if any(record["iteration"] >= limit for record in self.history):
            return f", after {limit:,} iterations: raise max_iterations."
        double = "" if self.problem.dtype == torch.float64 else "use model.double(); "
        return (
            f", where the objective fell no further: {double}check that a minimum exists (without a prior it may lie "
            f"at infinity); with units that have a kink (ReLU) it may lie on one, where no gradient vanishes."
        )

    def _stopped(self, error: BaseException) -> FitResult:
        """Return what there is after an error or an interrupt: the lowest point reached is in the model.

        Args:
            error: What stopped the solver.

        Returns:
            The outcome; the mean NLL is NaN.
        """
        history = self._run_history or self.history
        # Between two reports the model holds whatever the line search tried last.
        points = [self.best, *([] if self._reached is None else [self._reached])]
        self.problem.set(min(points, key=lambda flat: self.problem.value(flat) + self.problem.kinked_value(flat)))
        why = f"{type(error).__name__} after {history[-1]['iteration'] if history else 0} iterations"
        return self.task.unmeasured(history, self._routes(), interrupted=why)

    def _routes(self) -> Table:
        members = [(entry.name, prior, solver_route(prior)) for entry, prior in self.task.prior.active()]
        return describe_routes(f"Prior with the {self.solver} solver", members, self.task.loss_scale)

    def _solve(self, start: int) -> None:
        problem, minimise = self.problem, minimise_lbfgs if self.solver == "lbfgs" else minimise_proximal
        left_off, self._left_off, self._start = self._left_off, None, start
        if left_off is None:
            problem.set(self.beginning)
            if start:
                draw_start(self.task.prior, self.generator)
            self._run_history = History()
        limit = self.settings.max_iterations
        label = self.solver if self.settings.starts == 1 else f"{self.solver}, start {start + 1}"
        run = _Run(self.task, problem, limit, label, self._run_history, self._keep)
        if left_off is None:
            run.begin()
        flat, residual = None, float("inf")
        if isinstance(problem, LinearProblem) and left_off is None:
            flat, residual = minimise_newton(problem, self.tolerance, limit, run.report)
        if flat is None or residual > self.tolerance:
            flat = minimise(problem, self.tolerance, limit, run.report, left_off)
        run.bar.close()
        if self._last is not None:
            self._write(*self._last)
        residual = problem.residual(flat, problem.value_and_grad(flat)[1])
        objective = problem.value(flat) + problem.kinked_value(flat)
        found = Mode(objective, 1, residual, int((~problem.free(flat)).sum()))
        if self.modes.add(flat, found, converged=residual <= self.tolerance) or not start:
            self.best, self.history = flat, self._run_history

    # -- checkpoints -------------------------------------------------------------------------------------

    def _keep(self, iteration: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint: now and then, as a round may take less time than that."""
        self._reached = state["flat"].detach().clone()
        if self.keeper is None:
            return
        self._last = (iteration, state)
        if self.keeper.every is not None or time.monotonic() - self._kept_at >= _SECONDS:
            self._write(iteration, state)

    def _write(self, iteration: int, state: Mapping[str, Any]) -> None:
        assert self.keeper is not None
        self._last, self._kept_at, self._written = None, time.monotonic(), self._written + 1
        self.keeper.save(
            self._written,
            {
                "written": self._written,
                "iteration": iteration,
                "start": self._start,
                "left_off": dict(state),
                "history": [dict(record) for record in self._run_history],
                "beginning": self.beginning,
                "best": self.best,
                "best_history": [dict(record) for record in self.history],
                "modes": self.modes.state(),
                "generator": self.generator.get_state(),
            },
        )

    def _go_on(self, state: Mapping[str, Any] | None) -> None:
        if state is None:
            return
        device = self.beginning.device
        self._start, self._written = state["start"], state["written"]
        self._left_off = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in state["left_off"].items()}
        self._run_history[:] = state["history"]
        self.beginning, self.best = state["beginning"].to(device), state["best"].to(device)
        self.history = self._run_history if not self._start else History(state["best_history"])
        self.modes = Modes.of(state["modes"], device)
        self.generator.set_state(state["generator"])


class _Run:
    """The report of one minimisation: its records and its progress bar."""

    def __init__(
        self,
        task: Task,
        problem: FullBatchProblem,
        max_iterations: int,
        label: str,
        history: History,
        keep: Callable[[int, Mapping[str, Any]], None],
    ) -> None:
        self.task, self.problem, self.max_iterations = task, problem, max_iterations
        self.history, self.keep = history, keep
        self.bar = task.bar(max_iterations, label)

    def begin(self) -> None:
        """Note where the solver begins."""
        flat = self.problem.get()
        self._note(0, flat, self.problem.residual(flat, self.problem.value_and_grad(flat)[1]))

    def report(self, iteration: int, flat: Tensor, residual: float, state: Mapping[str, Any]) -> None:
        """Note where the solver is, and keep it."""
        self._note(iteration, flat, residual)
        self.keep(iteration, state)

    def _note(self, iteration: int, flat: Tensor, residual: float) -> None:
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


def solver_route(prior: Belief) -> str:
    """Return how a solver on all data takes a prior in."""
    if is_flat(prior):
        return "none"
    return "loss" if prior.traits.smooth else "proximal"
