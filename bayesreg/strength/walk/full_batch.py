"""Fits on all data at once, by L-BFGS or proximal gradient, for a walk."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bayesreg.curvature.left_out import LeaveOneOut, held_out
from bayesreg.likelihoods import Likelihood
from bayesreg.likelihoods.output import tensor_output
from bayesreg.model_prior import ModelPrior
from bayesreg.strength.walk.constant import best_constant_nll, saturated_nll
from bayesreg.strength.walk.parts import Part
from bayesreg.strength.walk.points import Measured
from bayesreg.trainer.full_batch.lbfgs import descend
from bayesreg.trainer.full_batch.problem import FullBatchProblem
from bayesreg.trainer.full_batch.proximal import minimise_proximal

__all__ = ["FullBatchGround"]

#: Gradient per example that a fit on the way is taken to.
_TOLERANCE = 1e-5
_FIRST, _NEXT, _LAST = 100, 30, 100
_LEAST_GAIN = 0.05

State = list[Tensor]


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


class FullBatchGround:
    """Fits of a model on tensors in memory.

    Args:
        model: A copy that may be changed; what it computes must not be random.
        prior_at: From a width (log₁₀) to the prior over that copy.
        likelihood: The likelihood; of unit noise where the noise is estimated.
        inputs: All inputs.
        targets: All targets.
        parts: What is fitted and what is held out.
        method: "loo", "split" or "folds".
        hyper: From a scale to −log density of its logarithm, nats.
        noise: Whether the noise is estimated from what is held out; widths are then in units of its std.
        linear: Whether the model is linear in its weights: no fit of it can collapse.
    """

    def __init__(
        self,
        model: nn.Module,
        prior_at: Callable[[float], ModelPrior],
        likelihood: Likelihood,
        inputs: Tensor,
        targets: Tensor,
        parts: Sequence[Part],
        method: str,
        hyper: Callable[[float], float],
        *,
        noise: bool,
        linear: bool,
    ) -> None:
        self.model, self.prior_at, self.likelihood = model, prior_at, likelihood
        self.inputs, self.targets = inputs, targets
        self.parts = [(inside.to(inputs.device), outside.to(inputs.device)) for inside, outside in parts]
        self.method, self.hyper, self.noise, self.linear = method, hyper, noise, linear
        self.examples = sum(len(out) for _, out in parts)
        self.spent = 0.0
        self._initial = self._problem(0.0, 0).get()
        model.eval()
        with torch.no_grad():
            made = tensor_output(model, inputs[:1])
        self._null = best_constant_nll(likelihood, made, targets)
        self._most = self._null - _LEAST_GAIN * (self._null - saturated_nll(likelihood, made, targets))
        self.null_nll = None if noise else self._null
        self._outputs = made[0].numel()

    def _problem(self, at: float, part: int | None) -> _Counted:
        inside = slice(None) if part is None else self.parts[part][0]
        data = [(self.inputs[inside], self.targets[inside])]
        return _Counted(self.model, self.prior_at(at), self.likelihood, data, len(data[0][1]))

    def _solve(
        self, at: float, part: int | None, start: Tensor, iterations: int, tolerance: float = _TOLERANCE
    ) -> Tensor:
        problem = self._problem(at, part)
        problem.set(start)
        if problem.kinked:
            flat = minimise_proximal(problem, tolerance, 2 * iterations, lambda *_: None)
        else:
            flat = start.clone().requires_grad_()
            descend(problem, flat, tolerance, iterations)
            flat = flat.detach()
        self.spent += problem.count * problem.examples / len(self.targets)
        return flat

    def begin(self, at: float) -> State:
        return [self._solve(at, part, self._initial, _FIRST) for part in range(len(self.parts))]

    def go_on(self, at: float, state: State) -> State:
        return [self._solve(at, part, flat, _NEXT) for part, flat in enumerate(state)]

    def finish(self, at: float, state: State, iterations: int = _LAST) -> None:
        """Fit all examples, from a fit near by; the weights are then in the model."""
        self._problem(at, None).set(self._solve(at, None, state[0], iterations, 1e-7))

    def weights(self) -> Tensor:
        """Return the weights that the model has now."""
        return self._problem(0.0, None).get()

    @torch.no_grad()
    def _mean_nll(self, at: float, part: int, state: State, which: Tensor) -> float:
        self._problem(at, part).set(state[part])
        self.model.eval()
        return float(self.likelihood.nll(tensor_output(self.model, self.inputs[which]), self.targets[which]).mean())

    def collapsed(self, state: State) -> bool:
        if self.linear:
            return False
        fitted = [self._mean_nll(0.0, part, state, self.parts[part][0]) for part in range(len(self.parts))]
        return sum(fitted) / len(fitted) > self._most

    def finished_collapsed(self) -> bool:
        """Return whether the fit to all examples, as it is in the model, has lost all that it could say."""
        return (
            not self.linear and self._mean_nll(0.0, 0, [self.weights()], torch.arange(len(self.targets))) > self._most
        )

    def measure(self, at: float, state: State) -> Measured:
        if self.method == "loo":
            return self._leave_one_out(at, state)
        total = sum(len(out) * self._mean_nll(at, part, state, out) for part, (_, out) in enumerate(self.parts))
        mean = total / self.examples
        if not self.noise:
            scale = 10.0**at
            return Measured(scale, mean if math.isfinite(mean) else 1e9, self.hyper(scale))
        return self._with_noise(at, 2.0 * mean / self._outputs - math.log(2.0 * math.pi))

    def _leave_one_out(self, at: float, state: State) -> Measured:
        found = self.left_out(at, state)
        if self.noise:
            assert found.noise_std is not None
            measured = self._with_noise(at, found.noise_std**2)
        else:
            scale = 10.0**at
            mean = found.mean_nll
            measured = Measured(scale, mean if math.isfinite(mean) else 1e9, self.hyper(scale))
        return Measured(
            measured.scale, measured.held_out, measured.hyper, found.effective_parameters, found.gradient, found.error,
            found.warnings,
        )  # fmt: skip

    def left_out(self, at: float, state: State) -> LeaveOneOut:
        """Return the leave-one-out predictions of a fit of all examples."""
        self._problem(at, 0).set(state[0])
        self.spent += self._outputs
        return held_out(self.model, self.prior_at(at), self.likelihood, self.inputs, self.targets)

    def _with_noise(self, at: float, mean_square: float) -> Measured:
        """Return what is found where the noise has the variance that is held out; the prior's scale is in its units."""
        scale = 10.0**at * math.sqrt(mean_square)
        nll = 0.5 * self._outputs * (math.log(2.0 * math.pi * mean_square) + 1.0)
        return Measured(scale, nll, self.hyper(scale))
