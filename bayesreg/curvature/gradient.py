"""How far weights are from a MAP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bayesreg.likelihoods import Likelihood
from bayesreg.likelihoods.output import tensor_output
from bayesreg.model_prior import ModelPrior

__all__ = ["largest_gradient"]


def largest_gradient(
    model: nn.Module, prior: ModelPrior, likelihood: Likelihood, inputs: Tensor, targets: Tensor
) -> float:
    """Return the largest entry of the gradient of NLL − log p in the trained weights, per example.

    Args:
        model: The model, in evaluation mode.
        prior: Its prior, smooth.
        likelihood: The likelihood.
        inputs: All inputs.
        targets: Their targets.

    Returns:
        The entry's size; 0 at a MAP.
    """
    parameters = [entry.parameter for entry, _ in prior.active()]
    with torch.enable_grad():
        nll = likelihood.nll(tensor_output(model, inputs), targets).sum()
        grads = torch.autograd.grad(nll.double() + prior.penalty().to(nll.device), parameters, allow_unused=True)
    return max((float(g.abs().max()) for g in grads if g is not None and g.numel()), default=0.0) / len(targets)
