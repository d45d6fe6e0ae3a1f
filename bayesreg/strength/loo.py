"""Leave-one-out from one fit: `br.strength.loo`."""

from __future__ import annotations

from torch import nn

from bayesreg._support.calls import answering
from bayesreg.curvature.left_out import LeaveOneOut, held_out
from bayesreg.data import TrainingData, as_tensors
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.coverage import check_prior_of

__all__ = ["LeaveOneOut", "loo"]


@answering
def loo(model: nn.Module, prior: ModelPrior, likelihood: Likelihood, data: TrainingData) -> LeaveOneOut:
    """Return each example's NLL under the fit to all others, from the MAP of all: no fit is repeated.

    With f_i the output, J_i its Jacobian, r_i and Λ_i first and second derivative of the NLL in it, and
    S_i = J_i (Σ_j J_jᵀΛ_jJ_j + P)⁻¹ J_iᵀ: f_i without i is f_i + S_i (I − Λ_iS_i)⁻¹ r_i. Exact for models that are
    linear in their weights with Gaussian noise, one Newton step of each refit otherwise. Flat parameters of a linear
    model are taken as they are; in a network, where they would pull the leverage of single examples to 1, with the
    precision that the weights beside them have.

    Args:
        model: At its MAP; left as it is.
        prior: Its prior: smooth, of independent weights.
        likelihood: From `br.likelihoods`; the NLL convex in the output. A learned noise is taken as it is.
        data: Inputs and targets that it was fitted to. Memory grows as the square of examples times outputs.

    Returns:
        The held-out NLL of each example, its leverage, the effective parameters.

    Raises:
        CoverageError: If the prior is over another model.
        DataError: If the data cannot be used, or an output is not finite.
        UnsupportedError: If a prior has a kink, joins weights or is not convex where they are, or the NLL is not.

    Example:
        >>> import bayesreg as br
        >>> import torch
        >>> X = torch.linspace(-1, 1, 8).double()[:, None]
        >>> model, noise = nn.Linear(1, 1).double(), br.likelihoods.Gaussian(0.1)
        >>> prior = br.ModelPrior(model, br.Gaussian(1.0))
        >>> result = br.MAPTrainer(model, prior, noise, optimizer="lbfgs").fit((X, 3 * X))
        >>> found = br.strength.loo(model, prior, noise, (X, 3 * X))
        >>> found.exact, round(found.effective_parameters, 3)
        (True, 1.997)

    References:
        Rad and Maleki (2020), A scalable estimate of the out-of-sample prediction error via approximate leave-one-out
        cross-validation; Allen (1974) for the linear case.
    """
    check_prior_of(model, prior)
    inputs, targets = as_tensors(model, likelihood, data)
    return held_out(model, prior, likelihood, inputs, targets)
