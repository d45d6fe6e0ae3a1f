"""What each example would be predicted as by the fit to all others, from the one fit to all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bayesreg._support.tables import Table
from bayesreg.curvature.gradient import largest_gradient
from bayesreg.curvature.hat import hat_matrix
from bayesreg.curvature.jacobian import model_jacobian
from bayesreg.curvature.linear import is_linear
from bayesreg.curvature.outputs import output_curvature
from bayesreg.curvature.precision import Precision, beside, diagonal_precision
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.priors.contract.asking import is_flat

__all__ = ["STATIONARY", "LeaveOneOut", "held_out"]

#: Per example: with a larger gradient weights are no minimum, and what leaving an example out would do is not seen.
STATIONARY = 3e-3
_LEVERAGE = 0.99


@dataclass(frozen=True, repr=False)
class LeaveOneOut:
    """What each example would be predicted as by the fit to all others.

    Attributes:
        nll: (examples,): −log p(y_i | x_i, fit without i), nats.
        output: (examples, ...): the model's outputs without each example.
        leverage: (examples,): how much of its own output each example decides, 0 to 1.
        effective_parameters: How many parameters the data determine, the sum of the leverages over all outputs.
        gradient: Largest entry of the objective's gradient, per example; 0 at a MAP.
        exact: Whether the model is linear in its weights and the NLL a parabola, so that nothing is approximate.
        noise_std: √ of the mean square of y_i − output_i, for a Gaussian likelihood; None for others.
        log_evidence: log p(y) with the weights integrated out, by Laplace's approximation at the fit; see
            `br.strength.evidence`.
        warnings: What speaks against the numbers, in words.
    """

    nll: Tensor
    output: Tensor
    leverage: Tensor
    effective_parameters: float
    gradient: float
    exact: bool
    noise_std: float | None
    log_evidence: float = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def mean_nll(self) -> float:
        """The mean of `nll`: an estimate of the NLL of a new example."""
        return float(self.nll.mean())

    @property
    def error(self) -> float:
        """The standard error of `mean_nll` over examples."""
        return float(self.nll.std()) / len(self.nll) ** 0.5 if len(self.nll) > 1 else float("inf")

    def summary(self) -> Table:
        """Return the numbers as a table."""
        rows: list[tuple[Any, ...]] = [
            ("held-out mean NLL (nats)", self.mean_nll),
            ("standard error", self.error),
            ("effective parameters", self.effective_parameters),
            ("largest leverage", float(self.leverage.max())),
            ("gradient at the weights, per example", self.gradient),
            ("leave-one-out", "exact" if self.exact else "approximate"),
        ]
        if self.noise_std is not None:
            rows.append(("noise std by leave-one-out", self.noise_std))
        return Table("Leave-one-out", ("quantity", "value"), rows, self.warnings)

    def __repr__(self) -> str:
        return str(self.summary())


def held_out(
    model: nn.Module, prior: ModelPrior, likelihood: Likelihood, inputs: Tensor, targets: Tensor
) -> LeaveOneOut:
    """Return what each example would be predicted as without it; see `br.strength.loo`.

    Args:
        model: The model.
        prior: Its prior.
        likelihood: The likelihood.
        inputs: As the model takes them.
        targets: As the likelihood takes them.

    Returns:
        The result.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return _held_out(model, prior, likelihood, inputs, targets)
    finally:
        for module, mode in training.items():
            module.training = mode


def _held_out(
    model: nn.Module, prior: ModelPrior, likelihood: Likelihood, inputs: Tensor, targets: Tensor
) -> LeaveOneOut:
    infos = [entry.info for entry, _ in prior.active()]
    precision = diagonal_precision(prior)
    jacobian = model_jacobian(model, infos, inputs)
    curvature = output_curvature(likelihood, jacobian.output, targets)
    linear = is_linear(model, infos, inputs)
    taken = precision if linear else beside(prior, precision)
    hat = hat_matrix(jacobian, curvature, taken)
    output = jacobian.output.to(torch.float64) + hat.shift.reshape(jacobian.output.shape)
    with torch.no_grad():
        nll = likelihood.nll(output, targets)
    gaussian = likelihood.gaussian_noise_std is not None
    noise = float((targets.reshape(output.shape) - output).square().mean().sqrt()) if gaussian else None
    gradient = largest_gradient(model, prior, likelihood, inputs, targets)
    said = []
    if not gradient <= STATIONARY:
        said.append(
            f"The weights are no MAP: the objective's gradient is {gradient:.1e} per example, and above "
            f"{STATIONARY:g} leave-one-out from one fit is not to be trusted; train on."
        )
    extreme = int((hat.leverage > _LEVERAGE).sum())
    if extreme:
        said.append(
            f"{extreme} of {len(nll)} examples have a leverage over {_LEVERAGE}: they alone decide their outputs, and "
            f"their predictions without themselves are extrapolations."
        )
    return LeaveOneOut(
        nll, output, hat.leverage, hat.effective_parameters, gradient, linear and gaussian, noise,
        _log_evidence(prior, likelihood, jacobian.output.to(torch.float64), targets, hat.log_det, taken), tuple(said),
    )  # fmt: skip


@torch.no_grad()
def _log_evidence(
    prior: ModelPrior,
    likelihood: Likelihood,
    output: Tensor,
    targets: Tensor,
    log_det: float,
    precision: Mapping[str, Precision],
) -> float:
    """Return the integral of the Gaussian that touches the joint density at the weights.

    Flat densities are 1; what is flat and was lent a precision counts as under that prior, at its best.
    """
    volume = -log_det
    for entry, belief in prior.active():
        value, elements = precision[entry.name], entry.parameter.numel()
        if is_flat(belief) and value != 0.0:
            continue
        volume += elements * math.log(2.0 * math.pi)
        if isinstance(value, Tensor):
            volume -= float(value.log().sum())
        elif value > 0.0:
            volume -= elements * math.log(value)
    return float(prior.log_prob()) - float(likelihood.nll(output, targets).sum()) + 0.5 * volume
