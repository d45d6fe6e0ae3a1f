"""Fits of an estimator: a linear model by its closed derivatives, any other by `MAPTrainer`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bayesreg.conversion import LossScale
from bayesreg.data import Batch, Counting, Reading
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.routes.report import describe_routes
from bayesreg.trainer import FitResult
from bayesreg.trainer.full_batch.lbfgs import minimise_lbfgs
from bayesreg.trainer.full_batch.linear import Blocks, LinearProblem, LinearView, Sums, minimise_newton
from bayesreg.trainer.full_batch.proximal import minimise_proximal
from bayesreg.trainer.result import History
from bayesreg.trainer.solve import solver_route

__all__ = ["LinearFit", "fit_linear"]


@dataclass
class LinearFit:
    """A linear model at its MAP.

    Attributes:
        layer: The model.
        prior: Its prior.
        likelihood: With its noise.
        num_data: n, the sum of the weights.
        iterations: Newton steps, or those of the generic solver.
        residual: The KKT residual.
        tolerance: What was asked for.
        value: Of the objective, nats per example.
        seconds: Wall-clock time.
        interrupted: What stopped it, in words.
        no_noise: Whether a learned noise rests on the least that it may be.
        sums: Over the examples, by their weights; None where the noise is not Gaussian.
    """

    layer: nn.Linear
    prior: ModelPrior
    likelihood: Likelihood
    num_data: float
    iterations: int
    residual: float
    tolerance: float
    value: float
    seconds: float
    interrupted: str = ""
    no_noise: bool = False
    sums: Sums | None = None
    _result: FitResult | None = field(default=None, repr=False)

    @property
    def converged(self) -> bool:
        """Whether the residual is as small as was asked for."""
        return self.residual <= self.tolerance

    def result(self) -> FitResult:
        """Return the outcome as `MAPTrainer.fit` has it; made when it is first asked for."""
        if self._result is None:
            self._result = self._described()
        return self._result

    @torch.no_grad()
    def _described(self) -> FitResult:
        own = self.likelihood.penalty()
        penalty = float(self.prior.penalty()) + (0.0 if own is None else float(own))
        constant = float(self.prior.log_constant())
        scale = LossScale(1.0 / self.num_data, origin=f"mean NLL over {self.num_data:g} examples")
        mean_nll = self.value - scale.value * penalty
        kinked = [(entry.parameter, part) for entry, part in self.prior.kinked() if part.traits.has_prox]
        resting = sum(int(part.at_kink(parameter).sum()) for parameter, part in kinked)
        record = {
            "iteration": self.iterations, "mean_nll": mean_nll, "log_prior": constant - penalty,
            "objective": self.value, "kkt_residual": self.residual,
        }  # fmt: skip
        members = [(entry.name, belief, solver_route(belief)) for entry, belief in self.prior.active()]
        return FitResult(
            mean_nll=mean_nll,
            log_prior=constant - penalty,
            log_prior_constant=constant,
            objective=self.value,
            num_data=self.num_data,
            history=History([record]),
            routes=describe_routes("Prior of a linear model", members, scale),
            converged=self.converged,
            kkt_residual=self.residual,
            exact_zeros=resting / sum(parameter.numel() for parameter, _ in kinked) if kinked else None,
            multimodal=tuple(entry.name for entry, belief in self.prior.active() if not belief.traits.convex),
            metric_name=self.likelihood.metric_name,
            seconds=self.seconds,
            loss_scale=scale,
            interrupted=self.interrupted,
        )


def fit_linear(
    layer: nn.Linear,
    prior: ModelPrior,
    likelihood: Likelihood,
    features: Tensor,
    target: Tensor,
    weight: Tensor | None,
    *,
    tolerance: float,
    max_iterations: int,
    least_noise: float | None = None,
) -> LinearFit:
    """Take a linear layer to its MAP.

    Args:
        layer: Trained in place.
        prior: Its prior.
        likelihood: With closed derivatives; a learned noise is trained in place.
        features: (n, d).
        target: As the likelihood takes it.
        weight: (n,), how often each example counts, or None.
        tolerance: KKT residual to stop at, per example.
        max_iterations: At most.
        least_noise: The least that a learned noise may become; None: anything.

    Returns:
        The fit.

    Raises:
        UnsupportedError: If a prior has no MAP, or no solver serves it.
    """
    start = time.perf_counter()
    batch = Batch(features, target, weight)
    reading = Reading(likelihood, counting=Counting(None))
    count = float(len(target)) if weight is None else float(weight.sum())
    objective = (layer, prior, reading, [batch], LossScale(1.0 / count))
    least = None if least_noise is None else math.log(least_noise)
    problem = LinearProblem(LinearView(features, target, weight, layer), *objective, least_own=least)
    blocks = Blocks(problem)
    made = LinearFit(layer, prior, likelihood, count, 0, float("inf"), tolerance, float("nan"), 0.0)

    def note(iteration: int, _: Tensor, residual: float, state: Mapping[str, Any]) -> None:
        made.iterations, made.residual, made.value = iteration, residual, state.get("value", float("nan"))

    residual = float("inf")
    try:
        flat, residual = minimise_newton(problem, tolerance, max_iterations, note, blocks)
        if residual > tolerance:
            generic = minimise_proximal if problem.kinked else minimise_lbfgs
            problem.set(problem.inside(flat))
            flat = generic(problem, tolerance, max_iterations, note)
    except KeyboardInterrupt as error:
        made.interrupted = f"{type(error).__name__} after {made.iterations} iterations"
        flat = problem.get()
    problem.set(flat)
    if made.interrupted or residual > tolerance:
        value, grad = problem.value_and_grad(flat)
        made.value, made.residual = value + problem.kinked_value(flat), problem.residual(flat, grad)
    sums = blocks.shared(flat)
    made.sums = None if sums is None else sums.times(count)
    made.no_noise = problem.at_least_own(flat)
    made.seconds = time.perf_counter() - start
    return made
