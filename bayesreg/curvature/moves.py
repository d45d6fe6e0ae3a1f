"""How far predictions move from one set of outputs to another."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesreg.curvature.outputs import output_curvature
from bayesreg.errors import UnsupportedError
from bayesreg.likelihoods import Likelihood

__all__ = ["moved_by"]


def moved_by(likelihood: Likelihood, output: Tensor, other: Tensor, targets: Tensor) -> float | None:
    """Return how much information tells two predictions apart, to second order: ½ dᵀΛd, a mean over examples.

    Of likelihoods whose curvature does not depend on the target (Gaussian, categorical, Bernoulli, Poisson) it is the
    Kullback-Leibler divergence of the predictive distributions to second order in d = other − output.

    Args:
        likelihood: The likelihood.
        output: A model's outputs.
        other: Others of the same shape.
        targets: The targets, for likelihoods whose curvature depends on them.

    Returns:
        Nats per example; None where the NLL is not convex.

    Example:
        >>> from bayesreg.likelihoods import Gaussian
        >>> zeros, ones = torch.zeros(3, 1), torch.ones(3, 1)
        >>> round(moved_by(Gaussian(0.5), zeros, ones, zeros), 6)  # 1² / (2 · 0.5²)
        2.0
    """
    try:
        root = output_curvature(likelihood, output, targets).root
    except UnsupportedError:
        return None
    apart = (other - output).detach().to(torch.float64).reshape(len(output), -1)
    return 0.5 * float(torch.einsum("nk,nkr->nr", apart, root).square().sum(1).mean())
