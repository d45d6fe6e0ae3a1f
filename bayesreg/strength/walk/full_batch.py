"""Fits on all data at once, by L-BFGS or proximal gradient, for a walk."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bayesreg.curvature.left_out import LeaveOneOut, held_out
from bayesreg.data import Batch, Reading
from bayesreg.strength.walk.held_out import HeldOut, Task
from bayesreg.strength.walk.points import Measured
from bayesreg.trainer.full_batch.lbfgs import descend
from bayesreg.trainer.full_batch.linear import LinearProblem, linear_view, minimise_newton
from bayesreg.trainer.full_batch.problem import FullBatchProblem
from bayesreg.trainer.full_batch.proximal import minimise_proximal

__all__ = ["FullBatch"]

#: Gradient per example that a fit on the way is taken to, and the last one.
_TOLERANCE, _LAST_TOLERANCE = 1e-4, 1e-6
_FIRST, _NEXT, _LAST = 100, 30, 100
# How often at most a fit is made anew with the noise that it has shown.
_TUNINGS = 6
# Of one linear layer, where Newton's method gets it for nothing.
_LAYER_TOLERANCE = 1e-8


class _Counted(FullBatchProblem):
    """The objective, with a count of how often it was evaluated."""

    count = 0

    def value_and_grad(self, flat: Tensor) -> tuple[float, Tensor]:
        self.count += 1
        return super().value_and_grad(flat)

    def value(self, flat: Tensor) -> float:
        self.count += 1
        return super().value(flat)

    def hessian_times(self, flat: Tensor, direction: Tensor) -> Tensor:
        self.count += 2
        return super().hessian_times(flat, direction)


class _CountedLayer(_Counted, LinearProblem):
    """The same of one linear layer."""


class _Whole:
    """A counted problem as if it had no kinks: its slope where there is one, for a solver that is fast far from them.

    Args:
        problem: The problem.
    """

    def __init__(self, problem: _Counted) -> None:
        self._problem, self.dtype = problem, problem.dtype

    def value_and_grad(self, flat: Tensor) -> tuple[float, Tensor]:
        value, grad = self._problem.value_and_grad(flat)
        return value + self._problem.kinked_value(flat), self._problem.slope(flat, grad)


class FullBatch(HeldOut[Tensor]):
    """Fits of a model on tensors in memory; a fit is its weights as one vector.

    Args:
        task: What is fitted; what its model computes must not be random.
        leave_one_out: Whether fits of all examples are scored by leave-one-out from the fit.
    """

    def __init__(self, task: Task, *, leave_one_out: bool) -> None:
        super().__init__(task)
        self._leave_one_out = leave_one_out
        # The NLL of unit noise is in squared units of the targets.
        self._unit = float(task.targets.to(torch.float64).var()) if task.noise is not None else 1.0
        self._weights = self._problem(0.0, None)
        self._initial = self._weights.get()

    def _problem(self, at: float, part: int | None) -> _Counted:
        task = self.task
        inside = slice(None) if part is None else task.parts[part][0]
        data = [Batch(task.inputs[inside], task.targets[inside])]
        prior, likelihood = self.fitted_with(at)
        reading = Reading(likelihood)
        objective = (task.model, prior, reading, data, len(data[0].target))
        view = linear_view(task.model, prior, reading, data) if task.linear else None
        return _Counted(*objective) if view is None else _CountedLayer(view, *objective)

    def _solve(self, at: float, part: int | None, start: Tensor, iterations: int, tolerance: float) -> Tensor:
        problem = self._problem(at, part)
        problem.set(start)
        tolerance *= self._unit / self.tau**2
        flat = self._newton(problem, iterations)
        if flat is not None:
            pass
        elif problem.kinked:
            rounds = 5 if part is None else 2
            if not self.task.linear and problem.has_no_boundary():
                # Proximal steps alone take thousands of iterations of a network.
                flat = start.clone().requires_grad_()
                descend(_Whole(problem), flat, tolerance, iterations)
                problem.set(flat.detach())
                rounds = 1
            flat = minimise_proximal(problem, tolerance, rounds * iterations, lambda *_: None, polish=part is None)
        else:
            flat = start.clone().requires_grad_()
            descend(problem, flat, tolerance, iterations)
            flat = flat.detach()
        self.spent += problem.count * problem.examples / len(self.task.targets)
        return flat

    def _newton(self, problem: _Counted, iterations: int) -> Tensor | None:
        """Return the minimum for one linear layer, to the last digits at the price of a few steps; None elsewhere."""
        if not isinstance(problem, LinearProblem):
            return None
        goal = _LAYER_TOLERANCE * self._unit / self.tau**2
        flat, residual = minimise_newton(problem, goal, iterations, lambda *_: None)
        return flat if residual <= goal else None

    def begin(self, at: float) -> list[Tensor]:
        """See `Ground`."""
        starts = [self._initial] * len(self.task.parts)
        return self._settled(at, [self._solve(at, k, flat, _FIRST, _TOLERANCE) for k, flat in enumerate(starts)])

    def go_on(self, at: float, state: list[Tensor]) -> list[Tensor]:
        """See `Ground`."""
        return self._settled(at, [self._solve(at, k, flat, _NEXT, _TOLERANCE) for k, flat in enumerate(state)])

    def _settled(self, at: float, state: list[Tensor]) -> list[Tensor]:
        """Fit again, with the noise that the fits show, until it is the one that they were made with."""
        for _ in range(_TUNINGS):
            if not self.tune(self.measure(at, state), at):
                break
            state = [self._solve(at, k, flat, _NEXT, _TOLERANCE) for k, flat in enumerate(state)]
        return state

    def finish(self, at: float, state: list[Tensor]) -> None:
        self.use(self._solve(at, None, state[0], _LAST, _LAST_TOLERANCE))

    def use(self, fit: Tensor) -> None:
        self._weights.set(fit)

    def measure(self, at: float, state: list[Tensor]) -> Measured:
        if not self._leave_one_out:
            return super().measure(at, state)
        self.use(state[0])
        found = self.left_out(at)
        known = self.known(at, found.mean_nll)
        measured = (
            known if found.noise_std is None or self.task.noise is None else self.with_noise(at, found.noise_std**2)
        )
        # In units of the noise, as everything else is.
        unit = measured.scale / 10.0**at / self.tau
        return replace(
            measured, effective_parameters=found.effective_parameters, gradient=found.gradient / unit**2,
            error=found.error, log_evidence=found.log_evidence if self.task.noise is None else None,
            remarks=found.warnings,
        )  # fmt: skip

    def left_out(self, at: float) -> LeaveOneOut:
        """Return the leave-one-out predictions of the fit of all examples that is in the model."""
        task = self.task
        self.spent += self.outputs
        prior, likelihood = self.fitted_with(at)
        return held_out(task.model, prior, likelihood, task.inputs, task.targets)
