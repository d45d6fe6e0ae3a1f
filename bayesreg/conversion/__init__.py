"""From regularisation constants to priors and back: pure functions on numbers. Every factor lives in `LossScale`."""

from bayesreg.conversion.loss_scale import LossScale as LossScale
from bayesreg.conversion.loss_scale import as_loss_scale as as_loss_scale
from bayesreg.conversion.sklearn import elastic_net_rates_to_sklearn as elastic_net_rates_to_sklearn
from bayesreg.conversion.sklearn import laplace_scale_to_lasso_alpha as laplace_scale_to_lasso_alpha
from bayesreg.conversion.sklearn import laplace_scale_to_logistic_c as laplace_scale_to_logistic_c
from bayesreg.conversion.sklearn import lasso_alpha_to_laplace_scale as lasso_alpha_to_laplace_scale
from bayesreg.conversion.sklearn import logistic_c_to_laplace_scale as logistic_c_to_laplace_scale
from bayesreg.conversion.sklearn import logistic_c_to_variance as logistic_c_to_variance
from bayesreg.conversion.sklearn import ridge_alpha_to_variance as ridge_alpha_to_variance
from bayesreg.conversion.sklearn import sklearn_to_elastic_net_rates as sklearn_to_elastic_net_rates
from bayesreg.conversion.sklearn import variance_to_logistic_c as variance_to_logistic_c
from bayesreg.conversion.sklearn import variance_to_ridge_alpha as variance_to_ridge_alpha
from bayesreg.conversion.table import Conversion as Conversion
from bayesreg.conversion.table import Notation as Notation
from bayesreg.conversion.table import convert as convert
from bayesreg.conversion.weight_decay import l1_to_laplace_scale as l1_to_laplace_scale
from bayesreg.conversion.weight_decay import l2_coefficient_to_variance as l2_coefficient_to_variance
from bayesreg.conversion.weight_decay import laplace_scale_to_l1 as laplace_scale_to_l1
from bayesreg.conversion.weight_decay import precision_to_weight_decay as precision_to_weight_decay
from bayesreg.conversion.weight_decay import variance_to_l2_coefficient as variance_to_l2_coefficient
from bayesreg.conversion.weight_decay import variance_to_weight_decay as variance_to_weight_decay
from bayesreg.conversion.weight_decay import weight_decay_to_precision as weight_decay_to_precision
from bayesreg.conversion.weight_decay import weight_decay_to_variance as weight_decay_to_variance

__all__ = [
    "Conversion",
    "LossScale",
    "Notation",
    "as_loss_scale",
    "convert",
    "elastic_net_rates_to_sklearn",
    "l1_to_laplace_scale",
    "l2_coefficient_to_variance",
    "laplace_scale_to_l1",
    "laplace_scale_to_lasso_alpha",
    "laplace_scale_to_logistic_c",
    "lasso_alpha_to_laplace_scale",
    "logistic_c_to_laplace_scale",
    "logistic_c_to_variance",
    "precision_to_weight_decay",
    "ridge_alpha_to_variance",
    "sklearn_to_elastic_net_rates",
    "variance_to_l2_coefficient",
    "variance_to_logistic_c",
    "variance_to_ridge_alpha",
    "variance_to_weight_decay",
    "weight_decay_to_precision",
    "weight_decay_to_variance",
]
