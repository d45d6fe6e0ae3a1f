"""scikit-learn estimators: a prior on a linear model, a network, or any module."""

from bayesreg._support.optional import require

require("sklearn", "sklearn", "MAPRegressor and MAPClassifier")

from bayesreg.estimators.classifier import MAPClassifier  # noqa: E402
from bayesreg.estimators.regressor import MAPRegressor  # noqa: E402

__all__ = ["MAPClassifier", "MAPRegressor"]
