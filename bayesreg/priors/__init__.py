"""Prior families, one per file, behind one contract (`Prior`)."""

from bayesreg.priors.adapter_gaussian import AdapterGaussian
from bayesreg.priors.base import Prior, Traits
from bayesreg.priors.cauchy import Cauchy
from bayesreg.priors.elastic_net import ElasticNet
from bayesreg.priors.elementwise import ElementwisePrior
from bayesreg.priors.families import FAMILIES, register_family
from bayesreg.priors.fan_in import FanInGaussian
from bayesreg.priors.flat import Flat
from bayesreg.priors.from_distribution import FromDistribution
from bayesreg.priors.function_prior import FunctionPrior
from bayesreg.priors.gaussian import Gaussian
from bayesreg.priors.generalized_normal import GeneralizedNormal
from bayesreg.priors.group_laplace import GroupLaplace
from bayesreg.priors.hierarchical_gaussian import HierarchicalGaussian
from bayesreg.priors.horseshoe import Horseshoe
from bayesreg.priors.l0 import L0
from bayesreg.priors.laplace import Laplace
from bayesreg.priors.log_uniform import LogUniform
from bayesreg.priors.logistic import Logistic
from bayesreg.priors.low_rank_gaussian import LowRankGaussian
from bayesreg.priors.matrix_gaussian import MatrixGaussian
from bayesreg.priors.mcp import MCP
from bayesreg.priors.mixture import Mixture
from bayesreg.priors.multivariate_gaussian import MultivariateGaussian
from bayesreg.priors.normal_gamma import NormalGamma
from bayesreg.priors.product import Product
from bayesreg.priors.readings import WeightDecayReadings
from bayesreg.priors.regularized_horseshoe import RegularizedHorseshoe
from bayesreg.priors.scad import SCAD
from bayesreg.priors.scale_mixture import ScaleMixture
from bayesreg.priors.student_t import StudentT
from bayesreg.priors.uniform import Uniform

__all__ = [
    "FAMILIES",
    "L0",
    "MCP",
    "SCAD",
    "AdapterGaussian",
    "Cauchy",
    "ElasticNet",
    "ElementwisePrior",
    "FanInGaussian",
    "Flat",
    "FromDistribution",
    "FunctionPrior",
    "Gaussian",
    "GeneralizedNormal",
    "GroupLaplace",
    "HierarchicalGaussian",
    "Horseshoe",
    "Laplace",
    "LogUniform",
    "Logistic",
    "LowRankGaussian",
    "MatrixGaussian",
    "Mixture",
    "MultivariateGaussian",
    "NormalGamma",
    "Prior",
    "Product",
    "RegularizedHorseshoe",
    "ScaleMixture",
    "StudentT",
    "Traits",
    "Uniform",
    "WeightDecayReadings",
    "register_family",
]
