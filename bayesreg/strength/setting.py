"""What a strength is chosen for, and what is found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from bayesreg.curvature.linear import is_linear
from bayesreg.hyperpriors import HyperPrior
from bayesreg.likelihoods import Likelihood
from bayesreg.likelihoods.output import tensor_output
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.times import stretched
from bayesreg.priors.contract.asking import is_flat
from bayesreg.strength.choice import OwnScale, Step
from bayesreg.strength.groups import EACH, ONE, Group, groups_of

__all__ = ["Found", "Setting"]

_CHOSEN = "chosen by br.choose_strength."


@dataclass(frozen=True)
class Setting:
    """What a strength is chosen for.

    Attributes:
        model: A copy that may be changed, in evaluation mode.
        prior: Over that copy, of scale 1.
        likelihood: As given.
        inputs: All inputs.
        targets: All targets.
        hyperprior: Of the scale, or None.
        seed: Of divisions.
        linear: Whether the outputs are linear in the trained weights.
        outputs: How many outputs an example has.
        training: How to train in batches; None for full-batch solvers.
        groups: Parameters with a scale of their own.
        each: Whether every weight is to have one.
    """

    model: nn.Module
    prior: ModelPrior
    likelihood: Likelihood
    inputs: Tensor
    targets: Tensor
    hyperprior: HyperPrior | None
    seed: int
    linear: bool
    outputs: int
    training: Mapping[str, Any] | None
    groups: tuple[Group, ...] = ()
    each: bool = False

    @classmethod
    def of(
        cls,
        model: nn.Module,
        prior: ModelPrior,
        likelihood: Likelihood,
        inputs: Tensor,
        targets: Tensor,
        hyperprior: HyperPrior | None,
        seed: int,
        training: Mapping[str, Any] | None,
        groups: object = ONE,
    ) -> Self:
        """Return the setting, the model looked at."""
        linear = is_linear(model, [entry.info for entry, _ in prior.active()], inputs)
        with torch.no_grad():
            outputs = tensor_output(model, inputs[:1])[0].numel()
        return cls(
            model, prior, likelihood, inputs, targets, hyperprior, seed, linear, outputs, training,
            groups_of(prior, groups), groups == EACH,
        )  # fmt: skip

    @property
    def gaussian(self) -> bool:
        """Whether the noise is Gaussian."""
        return self.likelihood.gaussian_noise_std is not None

    @property
    def learns_noise(self) -> bool:
        """Whether the std of Gaussian noise is to be found too."""
        return self.gaussian and any(p.requires_grad for p in self.likelihood.parameters())

    def noise_variance(self, mean_square: float, count: int) -> float:
        """Return the variance of the noise for a mean square of what was held out: that, or what a prior makes of it.

        Args:
            mean_square: In squared units of the targets.
            count: Of how many errors it is the mean.
        """
        believed = getattr(self.likelihood, "prior", None)
        if believed is None or not mean_square > 0.0:
            return mean_square
        middle = 0.5 * math.log(mean_square)

        def objective(eta: float) -> float:
            density = believed.log_scale_density(torch.tensor(eta, dtype=torch.float64))[0]
            return count * (eta + 0.5 * math.exp(2.0 * (middle - eta))) - float(density)

        # The prior alone may be far away; the sum of two convex functions has its least between theirs.
        other = believed.middle() / believed.power
        low, high = min(middle, other) - 3.0, max(middle, other) + 3.0
        found = minimize_scalar(objective, bounds=(low, high), method="bounded", options={"xatol": 1e-10})
        return math.exp(2.0 * float(found.x))

    def at(self, scale: float, own: Mapping[Group, float] | None = None) -> ModelPrior:
        """Return the prior with its widths multiplied, those of groups by scales of their own."""
        if not own:
            return stretched(self.prior, scale, f"All widths times {scale:.4g}, {_CHOSEN}")
        taken = {name for group in own for name in group.names}
        rest = [entry.name for entry, one in self.prior.active() if entry.name not in taken and not is_flat(one)]
        note = f"All other widths times {scale:.4g}, {_CHOSEN}" if rest else ""
        made = stretched(self.prior, scale, note, only=rest)
        for group, its in own.items():
            made = stretched(made, its, f"Widths of {group.label} times {its:.4g}, {_CHOSEN}", only=group.names)
        return made

    def hyper(self, scale: float) -> float:
        """Return −log density of log scale, nats, 0 at the middle of the hyperprior."""
        return float(self.hyper_of(torch.tensor(math.log(scale), dtype=torch.float64)))

    def hyper_of(self, eta: Tensor) -> Tensor:
        """Return the same of log scale, differentiable."""
        if self.hyperprior is None:
            return torch.zeros_like(eta)
        middle = torch.tensor(self.hyperprior.middle() / self.hyperprior.power, dtype=torch.float64)
        return self.hyperprior.log_scale_density(middle)[0] - self.hyperprior.log_scale_density(eta)[0]


@dataclass(frozen=True)
class Found:
    """What a way of choosing has found; the model of the setting is at the MAP.

    Attributes:
        scale: The scale.
        prior: At that scale.
        likelihood: With the noise that was found.
        interval: The scales within 2 nats.
        steps: What was tried.
        why: How it was decided.
        warnings: What speaks against it.
        evaluations: Passes over the data.
        own: Scales of groups.
        sensitivity: How far predictions move with half and with twice the scale, nats per example.
    """

    scale: float
    prior: ModelPrior
    likelihood: Likelihood
    interval: tuple[float | None, float | None]
    steps: Sequence[Step]
    why: str
    warnings: dict[str, str]
    evaluations: float
    own: tuple[OwnScale, ...] = ()
    sensitivity: tuple[float | None, float | None] = (None, None)
