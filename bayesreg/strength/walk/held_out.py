"""What all walks have in common: parts of the data, and scores of fits on what they have not seen."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from bayesreg.likelihoods import Gaussian, Likelihood
from bayesreg.likelihoods.output import tensor_output
from bayesreg.model_prior import ModelPrior
from bayesreg.strength.walk.constant import best_constant_nll, saturated_nll
from bayesreg.strength.walk.parts import Part
from bayesreg.strength.walk.points import Measured

__all__ = ["HeldOut", "Task"]

#: Fits that gain less than this share of what could be gained over a constant have collapsed.
_LEAST_GAIN = 0.05
# In place of a NaN: no strength is worse.
_HOPELESS = 1e9
# Of the noise's logarithm: a fit with one so near need not be made again.
_TUNED, _LEAST_TAU = 0.05, 1e-100

Fit = TypeVar("Fit")


@dataclass(frozen=True)
class Task:
    """What is fitted, and how it is divided.

    Attributes:
        model: A copy that may be changed.
        prior_at: From a width (log₁₀), and a unit that all widths are multiplied by, to the prior over that copy.
        likelihood: The likelihood; of unit noise where the noise is estimated.
        inputs: All inputs.
        targets: All targets.
        parts: What is fitted and what is held out.
        hyper: From a scale to −log density of its logarithm, nats.
        noise: From the mean square of what is held out, and how many errors that is of, to the variance of the noise;
            widths are then in units of its std. None where the noise is known or there is none.
        linear: Whether the model is linear in its weights: no fit of it can collapse.
        homogeneous: Whether −log p is a parabola in all weights. Then the weights of a fit with noise of variance 1 are
            those with noise τ² and widths times τ, and τ need not be known to fit.
    """

    model: nn.Module
    prior_at: Callable[[float, float], ModelPrior]
    likelihood: Likelihood
    inputs: Tensor
    targets: Tensor
    parts: Sequence[Part]
    hyper: Callable[[float], float]
    noise: Callable[[float, int], float] | None
    linear: bool
    homogeneous: bool = True


class HeldOut(ABC, Generic[Fit]):
    """Fits of parts of the data, scored by the rest; a state of the walk has one fit per part.

    Args:
        task: What is fitted.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.examples = sum(len(outside) for _, outside in task.parts)
        self.spent = 0.0
        task.model.eval()
        with torch.no_grad():
            made = tensor_output(task.model, task.inputs[:1])
        self.outputs = made[0].numel()
        null = best_constant_nll(task.likelihood, made, task.targets)
        self._most = null - _LEAST_GAIN * (null - saturated_nll(task.likelihood, made, task.targets))
        self.null_nll = null if task.noise is None else None
        #: The noise's std that fits are made with: 1 where it need not be known, else as it was last found.
        self.tau = 1.0
        if task.noise is not None and not task.homogeneous:
            self.tau = float(task.targets.to(torch.float64).std()) or 1.0

    def fitted_with(self, at: float) -> tuple[ModelPrior, Likelihood]:
        """Return the prior of a width and the likelihood that a fit is made with."""
        likelihood = self.task.likelihood if self.tau == 1.0 else Gaussian(noise_std=self.tau)
        return self.task.prior_at(at, self.tau), likelihood

    def tune(self, measured: Measured, at: float) -> bool:
        """Take the noise that was found for fits to come; return whether those so far are far from it."""
        if self.task.noise is None or self.task.homogeneous:
            return False
        before, self.tau = self.tau, max(measured.scale / 10.0**at, _LEAST_TAU)
        return abs(math.log(self.tau / before)) > _TUNED

    @abstractmethod
    def use(self, fit: Fit) -> None:
        """Put the weights of a fit into the model, as they are scored."""

    @abstractmethod
    def finish(self, at: float, state: list[Fit]) -> None:
        """Fit all examples, from a fit near by; the weights are then in the model."""

    @torch.no_grad()
    def _mean_nll(self, which: Tensor) -> float:
        task = self.task
        task.model.eval()
        device = next(task.model.parameters()).device
        output = tensor_output(task.model, task.inputs[which].to(device))
        return float(task.likelihood.nll(output, task.targets[which].to(device)).mean())

    @torch.no_grad()
    def output(self, fit: Fit) -> Tensor:
        """Return what a fit says of all examples."""
        self.use(fit)
        model = self.task.model
        return tensor_output(model, self.task.inputs.to(next(model.parameters()).device))

    def collapsed(self, state: list[Fit]) -> bool:
        """Return whether the fits have lost all that they could say."""
        if self.task.linear:
            return False
        fitted = 0.0
        for fit, (inside, _) in zip(state, self.task.parts, strict=True):
            self.use(fit)
            fitted += self._mean_nll(inside)
        return not fitted / len(state) <= self._most

    def ended_collapsed(self) -> bool:
        """Return the same of the fit to all examples, which is in the model."""
        return not self.task.linear and not self._mean_nll(torch.arange(len(self.task.targets))) <= self._most

    def measure(self, at: float, state: list[Fit]) -> Measured:
        """Return how good the fits are on what each has not seen."""
        total, parts = 0.0, []
        for fit, (_, outside) in zip(state, self.task.parts, strict=True):
            self.use(fit)
            parts.append(self._mean_nll(outside))
            total += len(outside) * parts[-1]
        mean = total / self.examples
        if self.task.noise is None:
            return replace(self.known(at, mean), parts=tuple(parts))
        return self.with_noise(at, 2.0 * mean / self.outputs - math.log(2.0 * math.pi))

    def known(self, at: float, mean: float) -> Measured:
        """Return a mean NLL as what was measured."""
        scale = 10.0**at
        return Measured(scale, mean if math.isfinite(mean) else _HOPELESS, self.task.hyper(scale))

    def with_noise(self, at: float, mean_square: float) -> Measured:
        """Return what was measured where the noise has the variance that is held out: widths are in its units."""
        if not math.isfinite(mean_square):
            return self.known(at, math.nan)
        assert self.task.noise is not None
        variance = self.task.noise(mean_square, self.examples * self.outputs)
        scale = 10.0**at * math.sqrt(variance)
        nll = 0.5 * self.outputs * (math.log(2.0 * math.pi * variance) + mean_square / variance)
        return Measured(scale, nll, self.task.hyper(scale))
