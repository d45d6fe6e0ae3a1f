"""A model's prior with every −log p multiplied by one number."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bayesreg._entry import Entry
from bayesreg.errors import UnsupportedError
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Flat, GeneralizedNormal, Prior

__all__ = ["GAUSSIANS", "PENALTIES", "times"]

#: Which hyper-parameters to multiply by which power of the factor, to multiply −log p (less its constant) by it.
GAUSSIANS: dict[str, dict[str, float]] = {
    "AdapterGaussian": {"scale": -0.5},
    "Gaussian": {"scale": -0.5},
    "LowRankGaussian": {"diag": -1.0, "factor": -0.5},
    "MatrixGaussian": {"row_covariance": -1.0},
    "MultivariateGaussian": {"covariance": -1.0},
}
PENALTIES: dict[str, dict[str, float]] = {
    **GAUSSIANS,
    "ElasticNet": {"l1": 1.0, "l2": 1.0},
    "GroupLaplace": {"rate": 1.0},
    "L0": {"strength": 1.0},
    "Laplace": {"scale": -1.0},
    "MCP": {"strength": 1.0, "gamma": -1.0},
    "SCAD": {"strength": 1.0},
}


def times(prior: ModelPrior, factor: float, powers: Mapping[str, Mapping[str, float]], note: str) -> ModelPrior:
    """Return the prior with −log p multiplied, over the same model; flat parameters stay flat.

    Args:
        prior: The prior; unchanged.
        factor: > 0.
        powers: The families that can be, and how.
        note: A sentence for `describe()`.

    Returns:
        The prior.

    Raises:
        UnsupportedError: If a family cannot be, or a hyper-parameter is learned.
    """
    done: dict[int, Prior] = {}
    entries = [
        entry if entry.prior is None else Entry(entry.info, _one(entry, entry.prior, factor, powers, done), entry.rule)
        for entry in prior
    ]
    return ModelPrior._from_entries(entries, (*prior.notes, note))


def _one(
    entry: Entry, prior: Prior, factor: float, powers: Mapping[str, Mapping[str, float]], done: dict[int, Prior]
) -> Prior:
    if isinstance(prior, Flat):
        return prior
    if id(prior) in done:
        return done[id(prior)]
    how = powers.get(prior.family)
    if isinstance(prior, GeneralizedNormal) and powers is PENALTIES:
        how = {"scale": -1.0 / float(prior.power)}
    if how is None:
        kind = "a Gaussian prior" if powers is GAUSSIANS else "a prior that stays in its family"
        raise UnsupportedError(f"{entry.name}: expected {kind} ({', '.join(powers)}), got {prior.family}.")
    if any(True for _ in prior.parameters(recurse=False)):
        raise UnsupportedError(f"{entry.name}: its prior has a learned hyper-parameter, which no factor rescales.")
    held = prior.hyperparameters()
    arguments = {name: value * math.pow(factor, how[name]) if name in how else value for name, value in held.items()}
    made = type(prior)(**arguments, **prior.saved_options())
    made.part_name = prior.part_name
    for name in ("source", "note"):
        if hasattr(prior, name):
            setattr(made, name, getattr(prior, name))
    done[id(prior)] = made
    return made
