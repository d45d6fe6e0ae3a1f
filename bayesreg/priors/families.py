"""The families by name: what files and the command line can name."""

from __future__ import annotations

from typing import TypeVar

from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.adapter_gaussian import AdapterGaussian
from bayesreg.priors.base import Prior
from bayesreg.priors.cauchy import Cauchy
from bayesreg.priors.elastic_net import ElasticNet
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
from bayesreg.priors.regularized_horseshoe import RegularizedHorseshoe
from bayesreg.priors.scad import SCAD
from bayesreg.priors.scale_mixture import ScaleMixture
from bayesreg.priors.student_t import StudentT
from bayesreg.priors.uniform import Uniform

__all__ = ["FAMILIES", "register_family"]

_SHIPPED: tuple[type[Prior], ...] = (
    L0,
    MCP,
    SCAD,
    AdapterGaussian,
    Cauchy,
    ElasticNet,
    FanInGaussian,
    Flat,
    FromDistribution,
    FunctionPrior,
    Gaussian,
    GeneralizedNormal,
    GroupLaplace,
    HierarchicalGaussian,
    Horseshoe,
    Laplace,
    LogUniform,
    Logistic,
    LowRankGaussian,
    MatrixGaussian,
    Mixture,
    MultivariateGaussian,
    NormalGamma,
    Product,
    RegularizedHorseshoe,
    ScaleMixture,
    StudentT,
    Uniform,
)

FAMILIES: dict[str, type[Prior]] = {cls.__name__: cls for cls in _SHIPPED}

Family = TypeVar("Family", bound=type[Prior])


def register_family(family: Family) -> Family:
    """Let prior files and the command line name a family of your own; a class decorator.

    Args:
        family: A subclass of `Prior` whose constructor takes what its `hyperparameters()` gives.

    Returns:
        The class.

    Raises:
        InvalidArgumentError: If it is no such class, or bayesreg ships a family of that name.

    Example:
        >>> import bayesreg as br
        >>> @register_family
        ... class Bounded(br.Prior):
        ...     ...
        >>> br.prior_from_words("flat()")
        Flat()
    """
    if not (isinstance(family, type) and issubclass(family, Prior)):
        raise InvalidArgumentError(f"family: expected a subclass of br.Prior, got {family!r}.")
    if family.__name__ in {cls.__name__ for cls in _SHIPPED}:
        raise InvalidArgumentError(f"family: bayesreg has a family {family.__name__} already; choose another name.")
    FAMILIES[family.__name__] = family
    return family
