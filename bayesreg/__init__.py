"""Bayesian priors for PyTorch: what `weight_decay` means, and every prior it cannot say.

Names are loaded on first use, so that `import bayesreg` costs little more than `import torch`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bayesreg._version import __version__

if TYPE_CHECKING:
    from bayesreg import hyperpriors as hyperpriors
    from bayesreg import likelihoods as likelihoods
    from bayesreg import plots as plots
    from bayesreg import sparsity as sparsity
    from bayesreg import transfer as transfer
    from bayesreg._explain import Explanation as Explanation
    from bayesreg._explain import explain as explain
    from bayesreg.conversion import l1_to_laplace_scale as l1_to_laplace_scale
    from bayesreg.conversion import l2_coefficient_to_variance as l2_coefficient_to_variance
    from bayesreg.conversion import laplace_scale_to_l1 as laplace_scale_to_l1
    from bayesreg.conversion import precision_to_weight_decay as precision_to_weight_decay
    from bayesreg.conversion import variance_to_l2_coefficient as variance_to_l2_coefficient
    from bayesreg.conversion import variance_to_weight_decay as variance_to_weight_decay
    from bayesreg.conversion import weight_decay_to_precision as weight_decay_to_precision
    from bayesreg.conversion import weight_decay_to_variance as weight_decay_to_variance
    from bayesreg.conversion_sklearn import elastic_net_rates_to_sklearn as elastic_net_rates_to_sklearn
    from bayesreg.conversion_sklearn import laplace_scale_to_lasso_alpha as laplace_scale_to_lasso_alpha
    from bayesreg.conversion_sklearn import laplace_scale_to_logistic_c as laplace_scale_to_logistic_c
    from bayesreg.conversion_sklearn import lasso_alpha_to_laplace_scale as lasso_alpha_to_laplace_scale
    from bayesreg.conversion_sklearn import logistic_c_to_laplace_scale as logistic_c_to_laplace_scale
    from bayesreg.conversion_sklearn import logistic_c_to_variance as logistic_c_to_variance
    from bayesreg.conversion_sklearn import ridge_alpha_to_variance as ridge_alpha_to_variance
    from bayesreg.conversion_sklearn import sklearn_to_elastic_net_rates as sklearn_to_elastic_net_rates
    from bayesreg.conversion_sklearn import variance_to_logistic_c as variance_to_logistic_c
    from bayesreg.conversion_sklearn import variance_to_ridge_alpha as variance_to_ridge_alpha
    from bayesreg.conversion_table import Conversion as Conversion
    from bayesreg.conversion_table import convert as convert
    from bayesreg.errors import BayesRegError as BayesRegError
    from bayesreg.errors import CoverageError as CoverageError
    from bayesreg.errors import DataError as DataError
    from bayesreg.errors import InvalidArgumentError as InvalidArgumentError
    from bayesreg.errors import NonFiniteObjectiveError as NonFiniteObjectiveError
    from bayesreg.errors import NotEquivalentError as NotEquivalentError
    from bayesreg.errors import OvershootWarning as OvershootWarning
    from bayesreg.errors import PatternError as PatternError
    from bayesreg.errors import PriorFileError as PriorFileError
    from bayesreg.errors import ReferenceMismatchError as ReferenceMismatchError
    from bayesreg.errors import RoundingWarning as RoundingWarning
    from bayesreg.errors import UnknownLossError as UnknownLossError
    from bayesreg.errors import UnsupportedError as UnsupportedError
    from bayesreg.model_prior import ModelPrior as ModelPrior
    from bayesreg.objective import MAPObjective as MAPObjective
    from bayesreg.optimizers import DecayRule as DecayRule
    from bayesreg.optimizers import decay_rule as decay_rule
    from bayesreg.priors import L0 as L0
    from bayesreg.priors import MCP as MCP
    from bayesreg.priors import SCAD as SCAD
    from bayesreg.priors import AdapterGaussian as AdapterGaussian
    from bayesreg.priors import Cauchy as Cauchy
    from bayesreg.priors import ElasticNet as ElasticNet
    from bayesreg.priors import ElementwisePrior as ElementwisePrior
    from bayesreg.priors import FanInGaussian as FanInGaussian
    from bayesreg.priors import Flat as Flat
    from bayesreg.priors import FromDistribution as FromDistribution
    from bayesreg.priors import FunctionPrior as FunctionPrior
    from bayesreg.priors import Gaussian as Gaussian
    from bayesreg.priors import GeneralizedNormal as GeneralizedNormal
    from bayesreg.priors import GroupLaplace as GroupLaplace
    from bayesreg.priors import HierarchicalGaussian as HierarchicalGaussian
    from bayesreg.priors import Horseshoe as Horseshoe
    from bayesreg.priors import JointLowRankGaussian as JointLowRankGaussian
    from bayesreg.priors import Laplace as Laplace
    from bayesreg.priors import Logistic as Logistic
    from bayesreg.priors import LogUniform as LogUniform
    from bayesreg.priors import LowRankGaussian as LowRankGaussian
    from bayesreg.priors import MatrixGaussian as MatrixGaussian
    from bayesreg.priors import Mixture as Mixture
    from bayesreg.priors import MultivariateGaussian as MultivariateGaussian
    from bayesreg.priors import NormalGamma as NormalGamma
    from bayesreg.priors import Prior as Prior
    from bayesreg.priors import Product as Product
    from bayesreg.priors import Quadratic as Quadratic
    from bayesreg.priors import RegularizedHorseshoe as RegularizedHorseshoe
    from bayesreg.priors import Remarks as Remarks
    from bayesreg.priors import ScaleMixture as ScaleMixture
    from bayesreg.priors import StudentT as StudentT
    from bayesreg.priors import Traits as Traits
    from bayesreg.priors import Uniform as Uniform
    from bayesreg.priors import WeightDecayReadings as WeightDecayReadings
    from bayesreg.priors import register_family as register_family
    from bayesreg.priors.parsing import prior_from_words as prior_from_words
    from bayesreg.references import Reference as Reference
    from bayesreg.references import load_reference as load_reference
    from bayesreg.routes.attach import Handle as Handle
    from bayesreg.routes.attach import attach as attach
    from bayesreg.routes.attach import detach as detach
    from bayesreg.run_folder import load_run as load_run
    from bayesreg.scale import LossScale as LossScale
    from bayesreg.selection import ParameterInfo as ParameterInfo
    from bayesreg.selection import Selector as Selector
    from bayesreg.selection import biases as biases
    from bayesreg.selection import embeddings as embeddings
    from bayesreg.selection import norms as norms
    from bayesreg.selection import where as where
    from bayesreg.trainer import FitResult as FitResult
    from bayesreg.trainer import MAPTrainer as MAPTrainer

_CONVERSIONS = (
    "l1_to_laplace_scale l2_coefficient_to_variance laplace_scale_to_l1 precision_to_weight_decay "
    "variance_to_l2_coefficient variance_to_weight_decay weight_decay_to_precision weight_decay_to_variance"
)
_SKLEARN = (
    "elastic_net_rates_to_sklearn laplace_scale_to_lasso_alpha laplace_scale_to_logistic_c "
    "lasso_alpha_to_laplace_scale logistic_c_to_laplace_scale logistic_c_to_variance ridge_alpha_to_variance "
    "sklearn_to_elastic_net_rates variance_to_logistic_c variance_to_ridge_alpha"
)
_ERRORS = (
    "BayesRegError CoverageError DataError InvalidArgumentError NonFiniteObjectiveError NotEquivalentError "
    "OvershootWarning PatternError PriorFileError ReferenceMismatchError RoundingWarning UnknownLossError "
    "UnsupportedError"
)
_PRIORS = (
    "AdapterGaussian Cauchy ElasticNet ElementwisePrior FanInGaussian Flat FromDistribution FunctionPrior Gaussian "
    "GeneralizedNormal GroupLaplace HierarchicalGaussian Horseshoe JointLowRankGaussian L0 Laplace LogUniform Logistic "
    "LowRankGaussian MCP MatrixGaussian Mixture MultivariateGaussian NormalGamma Prior Product Quadratic "
    "RegularizedHorseshoe Remarks SCAD ScaleMixture StudentT Traits Uniform WeightDecayReadings register_family"
)
_HOME = {
    "_explain": "Explanation explain",
    "conversion": _CONVERSIONS,
    "conversion_sklearn": _SKLEARN,
    "conversion_table": "Conversion convert",
    "errors": _ERRORS,
    "model_prior": "ModelPrior",
    "objective": "MAPObjective",
    "optimizers": "DecayRule decay_rule",
    "priors": _PRIORS,
    "priors.parsing": "prior_from_words",
    "references": "Reference load_reference",
    "routes.attach": "Handle attach detach",
    "run_folder": "load_run",
    "scale": "LossScale",
    "selection": "ParameterInfo Selector biases embeddings norms where",
    "trainer": "FitResult MAPTrainer",
}
_MODULE_OF = {name: f"bayesreg.{module}" for module, names in _HOME.items() for name in names.split()}

_MODULES = ("hyperpriors", "likelihoods", "plots", "sparsity", "transfer")

__all__ = ["__version__", *_MODULES, *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"bayesreg.{name}")
    if name not in _MODULE_OF:
        from bayesreg.errors import nearest

        raise AttributeError(f"module 'bayesreg' has no attribute {name!r}{nearest(name, __all__)}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
