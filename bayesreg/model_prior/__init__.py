"""Priors over the parameters of a module: from rules to entries, tables and files."""

from bayesreg.model_prior.model_prior import ModelPrior as ModelPrior

__all__ = [
    "ModelPrior",
]
