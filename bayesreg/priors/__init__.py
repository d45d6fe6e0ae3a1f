"""Prior families, one per file, behind one contract (`Prior`)."""

from bayesreg.priors.base import Prior, Traits
from bayesreg.priors.flat import Flat
from bayesreg.priors.from_distribution import FromDistribution
from bayesreg.priors.gaussian import Gaussian
from bayesreg.priors.laplace import Laplace

__all__ = ["FAMILIES", "Flat", "FromDistribution", "Gaussian", "Laplace", "Prior", "Traits"]

#: The families by name: what files and the command line can name.
FAMILIES: dict[str, type[Prior]] = {cls.__name__: cls for cls in (Flat, FromDistribution, Gaussian, Laplace)}
