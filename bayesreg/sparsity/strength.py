"""One number for the strength of any prior: −log p times it."""

from __future__ import annotations

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.times import times

__all__ = ["with_strength"]


@answering
def with_strength(prior: ModelPrior, factor: float) -> ModelPrior:
    """Return the prior with −log p multiplied: p(w)^factor, normalised anew.

    A Laplace prior of scale b has scale b/factor then, a Gaussian of standard deviation σ has σ/√factor.

    Args:
        prior: The prior; unchanged. Flat parameters stay flat.
        factor: > 0; over 1 is stronger.

    Returns:
        The prior, over the same model.

    Raises:
        InvalidArgumentError: If `factor` is not > 0, or `prior` no `ModelPrior`.
        UnsupportedError: If a family's powers are not in the family (Student-t, mixtures), or a scale is learned.

    Example:
        >>> import torch, bayesreg as br
        >>> prior = br.ModelPrior(torch.nn.Linear(2, 1), br.Laplace(0.1))
        >>> br.sparsity.with_strength(prior, 2.0)["weight"]
        Laplace(scale=0.05, loc=0)
    """
    if not isinstance(prior, ModelPrior):
        raise InvalidArgumentError(f"prior: expected a br.ModelPrior, got {type(prior).__name__}.")
    value = checks.positive_float("factor", factor)
    return times(prior, value, f"All penalties times {value:g}.")
