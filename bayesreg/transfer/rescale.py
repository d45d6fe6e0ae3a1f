"""One number for the strength of a learned prior: all its variances times it."""

from __future__ import annotations

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.times import times

__all__ = ["rescaled"]


@answering
def rescaled(prior: ModelPrior, factor: float) -> ModelPrior:
    """Return the prior with all covariances Σ replaced by factor·Σ, centres and shapes kept.

    A posterior of a source task, taken as it is, is often too sure of itself for another task: the factor is the one
    number left to choose. Flat parameters stay flat.

    Args:
        prior: A prior of Gaussians, such as `ewc_prior` or a file of SWAG's; unchanged.
        factor: > 0; over 1 is wider, weaker.

    Returns:
        The prior, over the same model.

    Raises:
        InvalidArgumentError: If `factor` is not > 0, or `prior` no `ModelPrior`.
        UnsupportedError: If a prior is not Gaussian, or its scale is learned.

    Example:
        >>> import torch, bayesreg as br
        >>> prior = br.ModelPrior(torch.nn.Linear(2, 1), br.Gaussian(0.1))
        >>> br.transfer.rescaled(prior, 100.0)["weight"]
        Gaussian(scale=1, loc=0)

    References:
        Shwartz-Ziv et al. (2022), Pre-Train Your Loss, section 3 (rescaling the learned prior).
    """
    if not isinstance(prior, ModelPrior):
        raise InvalidArgumentError(f"prior: expected a br.ModelPrior, got {type(prior).__name__}.")
    value = checks.positive_float("factor", factor)
    return times(prior, 1.0 / value, f"All variances times {value:g}.", gaussian=True)
