"""Prior families, one per file, behind one contract (`Prior`)."""

from bayesreg.priors.adapters.adapter_gaussian import AdapterGaussian as AdapterGaussian
from bayesreg.priors.composed.from_distribution import FromDistribution as FromDistribution
from bayesreg.priors.composed.function_prior import FunctionPrior as FunctionPrior
from bayesreg.priors.composed.mixture import Mixture as Mixture
from bayesreg.priors.composed.product import Product as Product
from bayesreg.priors.contract.belief import Belief as Belief
from bayesreg.priors.contract.prior import Prior as Prior
from bayesreg.priors.contract.quadratic import Quadratic as Quadratic
from bayesreg.priors.contract.readings import WeightDecayReadings as WeightDecayReadings
from bayesreg.priors.contract.registry import FAMILIES as FAMILIES
from bayesreg.priors.contract.registry import register_family as register_family
from bayesreg.priors.contract.remarks import Remarks as Remarks
from bayesreg.priors.contract.traits import Traits as Traits
from bayesreg.priors.correlated.low_rank_gaussian import JointLowRankGaussian as JointLowRankGaussian
from bayesreg.priors.correlated.low_rank_gaussian import LowRankGaussian as LowRankGaussian
from bayesreg.priors.correlated.matrix_gaussian import MatrixGaussian as MatrixGaussian
from bayesreg.priors.correlated.multivariate_gaussian import MultivariateGaussian as MultivariateGaussian
from bayesreg.priors.elementwise.base import ElementwisePrior as ElementwisePrior
from bayesreg.priors.elementwise.elastic_net import ElasticNet as ElasticNet
from bayesreg.priors.elementwise.fan_in import FanInGaussian as FanInGaussian
from bayesreg.priors.elementwise.flat import Flat as Flat
from bayesreg.priors.elementwise.gaussian import Gaussian as Gaussian
from bayesreg.priors.elementwise.generalized_normal import GeneralizedNormal as GeneralizedNormal
from bayesreg.priors.elementwise.laplace import Laplace as Laplace
from bayesreg.priors.elementwise.logistic import Logistic as Logistic
from bayesreg.priors.elementwise.uniform import Uniform as Uniform
from bayesreg.priors.folded.l0 import L0 as L0
from bayesreg.priors.folded.mcp import MCP as MCP
from bayesreg.priors.folded.scad import SCAD as SCAD
from bayesreg.priors.grouped.group_laplace import GroupLaplace as GroupLaplace
from bayesreg.priors.grouped.hierarchical_gaussian import HierarchicalGaussian as HierarchicalGaussian
from bayesreg.priors.grouped.r2d2 import R2D2 as R2D2
from bayesreg.priors.heavy_tailed.cauchy import Cauchy as Cauchy
from bayesreg.priors.heavy_tailed.horseshoe import Horseshoe as Horseshoe
from bayesreg.priors.heavy_tailed.log_uniform import LogUniform as LogUniform
from bayesreg.priors.heavy_tailed.normal_gamma import NormalGamma as NormalGamma
from bayesreg.priors.heavy_tailed.regularized_horseshoe import RegularizedHorseshoe as RegularizedHorseshoe
from bayesreg.priors.heavy_tailed.scale_mixture import ScaleMixture as ScaleMixture
from bayesreg.priors.heavy_tailed.student_t import StudentT as StudentT

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
