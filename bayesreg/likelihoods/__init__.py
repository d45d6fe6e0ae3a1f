"""Likelihoods: model output and target to per-example NLL in nats, and the predictive distribution."""

from bayesreg.likelihoods.base import Likelihood
from bayesreg.likelihoods.bernoulli import Bernoulli
from bayesreg.likelihoods.categorical import Categorical
from bayesreg.likelihoods.from_loss import FromLoss
from bayesreg.likelihoods.gaussian import Gaussian
from bayesreg.likelihoods.poisson import Poisson
from bayesreg.likelihoods.student_t import StudentT
from bayesreg.likelihoods.tokens import Tokens

__all__ = ["Bernoulli", "Categorical", "FromLoss", "Gaussian", "Likelihood", "Poisson", "StudentT", "Tokens"]
