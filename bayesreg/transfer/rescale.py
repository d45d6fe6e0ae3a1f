"""One number for the strength of a learned prior: all its variances times it."""

from __future__ import annotations

import math

from bayesreg import _checks
from bayesreg._entry import Entry
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Flat, Prior

__all__ = ["rescaled"]

# What of each family is multiplied by which power of the factor.
_POWERS = {
    "Gaussian": {"scale": 0.5},
    "AdapterGaussian": {"scale": 0.5},
    "LowRankGaussian": {"diag": 1.0, "factor": 0.5},
    "MatrixGaussian": {"row_covariance": 1.0},
    "MultivariateGaussian": {"covariance": 1.0},
}


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
    value = _checks.positive_float("factor", factor)
    done: dict[int, Prior] = {}
    entries = [
        entry if entry.prior is None else Entry(entry.info, _wider(entry, entry.prior, value, done), entry.rule)
        for entry in prior
    ]
    return ModelPrior._from_entries(entries, (*prior.notes, f"All variances times {value:g}."))


def _wider(entry: Entry, prior: Prior, factor: float, done: dict[int, Prior]) -> Prior:
    if isinstance(prior, Flat):
        return prior
    if id(prior) in done:
        return done[id(prior)]
    if prior.family not in _POWERS:
        known = ", ".join(_POWERS)
        raise UnsupportedError(f"{entry.name}: expected a Gaussian prior ({known}), got {prior.family}.")
    if any(True for _ in prior.parameters(recurse=False)):
        raise UnsupportedError(f"{entry.name}: its prior has a learned hyper-parameter, which no factor rescales.")
    held = prior.hyperparameters()
    arguments = {
        name: value * math.pow(factor, _POWERS[prior.family].get(name, 0.0)) if name in _POWERS[prior.family] else value
        for name, value in held.items()
    }
    made = type(prior)(**arguments, **prior.saved_options())
    made.part_name = prior.part_name
    for name in ("source", "note"):
        if hasattr(prior, name):
            setattr(made, name, getattr(prior, name))
    done[id(prior)] = made
    return made
