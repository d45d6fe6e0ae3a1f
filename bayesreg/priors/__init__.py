"""Prior families, one per file, behind one contract (`Prior`)."""

from bayesreg.priors.adapter_gaussian import AdapterGaussian as AdapterGaussian
from bayesreg.priors.base import Prior as Prior
from bayesreg.priors.belief import Belief as Belief
from bayesreg.priors.cauchy import Cauchy as Cauchy
from bayesreg.priors.elastic_net import ElasticNet as ElasticNet
from bayesreg.priors.elementwise import ElementwisePrior as ElementwisePrior
from bayesreg.priors.fan_in import FanInGaussian as FanInGaussian
from bayesreg.priors.flat import Flat as Flat
from bayesreg.priors.from_distribution import FromDistribution as FromDistribution
from bayesreg.priors.function_prior import FunctionPrior as FunctionPrior
from bayesreg.priors.gaussian import Gaussian as Gaussian
from bayesreg.priors.generalized_normal import GeneralizedNormal as GeneralizedNormal
from bayesreg.priors.group_laplace import GroupLaplace as GroupLaplace
from bayesreg.priors.hierarchical_gaussian import HierarchicalGaussian as HierarchicalGaussian
from bayesreg.priors.horseshoe import Horseshoe as Horseshoe
from bayesreg.priors.l0 import L0 as L0
from bayesreg.priors.laplace import Laplace as Laplace
from bayesreg.priors.log_uniform import LogUniform as LogUniform
from bayesreg.priors.logistic import Logistic as Logistic
from bayesreg.priors.low_rank_gaussian import JointLowRankGaussian as JointLowRankGaussian
from bayesreg.priors.low_rank_gaussian import LowRankGaussian as LowRankGaussian
from bayesreg.priors.matrix_gaussian import MatrixGaussian as MatrixGaussian
from bayesreg.priors.mcp import MCP as MCP
from bayesreg.priors.mixture import Mixture as Mixture
from bayesreg.priors.multivariate_gaussian import MultivariateGaussian as MultivariateGaussian
from bayesreg.priors.normal_gamma import NormalGamma as NormalGamma
from bayesreg.priors.product import Product as Product
from bayesreg.priors.quadratic import Quadratic as Quadratic
from bayesreg.priors.readings import WeightDecayReadings as WeightDecayReadings
from bayesreg.priors.registry import FAMILIES as FAMILIES
from bayesreg.priors.registry import register_family as register_family
from bayesreg.priors.regularized_horseshoe import RegularizedHorseshoe as RegularizedHorseshoe
from bayesreg.priors.remarks import Remarks as Remarks
from bayesreg.priors.scad import SCAD as SCAD
from bayesreg.priors.scale_mixture import ScaleMixture as ScaleMixture
from bayesreg.priors.student_t import StudentT as StudentT
from bayesreg.priors.traits import Traits as Traits
from bayesreg.priors.uniform import Uniform as Uniform

__all__ = [
    "FAMILIES",
    "Belief",
    "ElementwisePrior",
    "JointLowRankGaussian",
    "Prior",
    "Quadratic",
    "Remarks",
    "Traits",
    "WeightDecayReadings",
    "register_family",
]
__all__ += FAMILIES
