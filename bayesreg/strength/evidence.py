"""The evidence of a fit: `br.strength.evidence`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from bayesreg._support.calls import answering
from bayesreg._support.tables import Table
from bayesreg.curvature.left_out import held_out
from bayesreg.data import TrainingData, as_tensors
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.coverage import check_prior_of

__all__ = ["Evidence", "evidence"]


@dataclass(frozen=True, repr=False)
class Evidence:
    """The evidence of a prior, from the fit under it.

    Attributes:
        log_evidence: log p(y | prior), nats.
        effective_parameters: How many parameters the data determine.
        gradient: Largest entry of the objective's gradient, per example.
        exact: Whether the model is linear in its weights and the NLL a parabola.
        warnings: What speaks against the number, in words.
    """

    log_evidence: float
    effective_parameters: float
    gradient: float
    exact: bool
    warnings: tuple[str, ...]

    def summary(self) -> Table:
        """Return the numbers as a table."""
        rows: list[tuple[Any, ...]] = [
            ("log evidence (nats)", self.log_evidence),
            ("effective parameters", self.effective_parameters),
            ("gradient at the weights, per example", self.gradient),
            ("integral", "exact" if self.exact else "Laplace's approximation"),
        ]
        return Table("Evidence", ("quantity", "value"), rows, self.warnings)

    def __repr__(self) -> str:
        return str(self.summary())


@answering
def evidence(model: nn.Module, prior: ModelPrior, likelihood: Likelihood, data: TrainingData) -> Evidence:
    """Return the log evidence of a prior, log ∫ p(y | θ) p(θ) dθ, by Laplace's approximation at the MAP under it.

    log p(y | θ̂) + log p(θ̂) + (D/2)·log 2π − ½ log det H, with H = Σ_i J_iᵀΛ_iJ_i + P, the Gauss-Newton matrix. Exact
    for models linear in their weights with Gaussian noise and priors. To compare strengths, fit under each of them
    first: at one fit's weights the evidence of another strength is wrong, and steps towards its maximum from there
    over-regularise networks. Flat parameters have a density of 1.

    Args:
        model: At its MAP; left as it is.
        prior: Its prior: smooth, of independent weights.
        likelihood: From `br.likelihoods`; the NLL convex in the output.
        data: Inputs and targets that it was fitted to.

    Returns:
        The evidence, and what speaks against it: away from a minimum the formula leaves the gradient out.

    Raises:
        CoverageError: If the prior is over another model.
        DataError: If the data cannot be used, or an output is not finite.
        UnsupportedError: If a prior has a kink, joins weights or is not convex where they are, or the NLL is not.

    Example:
        >>> import torch
        >>> import bayesreg as br
        >>> X = torch.tensor([[1.0], [2.0]]).double()
        >>> model, noise = nn.Linear(1, 1, bias=False).double(), br.likelihoods.Gaussian(1.0)
        >>> prior = br.ModelPrior(model, br.Gaussian(1.0))
        >>> result = br.MAPTrainer(model, prior, noise, optimizer="lbfgs").fit((X, X))
        >>> covariance = torch.eye(2) + X @ X.T  # y is Gaussian
        >>> exactly = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance).log_prob(X[:, 0])
        >>> abs(br.strength.evidence(model, prior, noise, (X, X)).log_evidence - float(exactly)) < 1e-9
        True

    References:
        MacKay (1992), A Practical Bayesian Framework for Backpropagation Networks, eq. 9.
    """
    check_prior_of(model, prior)
    inputs, targets = as_tensors(model, likelihood, data)
    found = held_out(model, prior, likelihood, inputs, targets)
    said = tuple(
        words.replace("leave-one-out from one fit", "its evidence") for words in found.warnings[:1] if "no MAP" in words
    )
    return Evidence(found.log_evidence, found.effective_parameters, found.gradient, found.exact, said)
