"""What scikit-learn's linear models are in terms of a prior and a noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sklearn.base import BaseEstimator

from bayesreg.conversion import (
    logistic_c_to_laplace_scale,
    logistic_c_to_variance,
    ridge_alpha_to_variance,
)
from bayesreg.errors import UnsupportedError, kind_of
from bayesreg.likelihoods import Gaussian as GaussianNoise
from bayesreg.likelihoods import Poisson
from bayesreg.priors import ElasticNet, Flat, Gaussian, Laplace

__all__ = ["classifier_arguments", "regressor_arguments"]

Arguments = dict[str, Any]
_UNIT = 1.0


def regressor_arguments(estimator: object) -> Arguments:
    """Return the arguments of a `MAPRegressor` with the same objective.

    Args:
        estimator: One of scikit-learn's.

    Returns:
        The arguments.

    Raises:
        UnsupportedError: If there is none, or a setting of it has no counterpart.
    """
    return _arguments(estimator, _REGRESSORS, "regressor")


def classifier_arguments(estimator: object) -> Arguments:
    """Return the arguments of a `MAPClassifier` with the same objective; see `regressor_arguments`.

    Args:
        estimator: One of scikit-learn's.

    Returns:
        The arguments.

    Raises:
        UnsupportedError: If there is none, or a setting of it has no counterpart.
    """
    return _arguments(estimator, _CLASSIFIERS, "classifier")


def _arguments(estimator: object, known: Mapping[str, Callable[[Any], Arguments]], kind: str) -> Arguments:
    name = type(estimator).__name__
    ours = isinstance(estimator, BaseEstimator) and type(estimator).__module__.startswith("sklearn.")
    if not ours or name not in known:
        raise UnsupportedError(
            f"estimator: expected a {kind} among {', '.join(known)} of scikit-learn, got {kind_of(estimator)}."
        )
    for setting, neutral in _NEUTRAL.items():
        given = getattr(estimator, setting, neutral)
        if given is not neutral and given != neutral:
            raise UnsupportedError(f"{name}: {setting}={given!r} has no counterpart in a prior.")
    return {**known[name](estimator), "fit_intercept": getattr(estimator, "fit_intercept", True)}


_NEUTRAL = {"positive": False, "class_weight": None}


def _gaussian_or_flat(alpha: Any, name: str, variance: Callable[[float], float]) -> Any:
    if not isinstance(alpha, int | float):
        raise UnsupportedError(f"{name}: expected one alpha for all targets, got {kind_of(alpha)}.")
    return Flat() if alpha == 0 else Gaussian(math.sqrt(variance(alpha)))


def _ridge(estimator: Any) -> Arguments:
    prior = _gaussian_or_flat(estimator.alpha, "Ridge", lambda alpha: ridge_alpha_to_variance(alpha, _UNIT))
    return {"prior": prior, "likelihood": GaussianNoise(_UNIT)}


def _least_squares(_: Any) -> Arguments:
    return {"prior": Flat(), "likelihood": GaussianNoise(_UNIT)}


def _lasso(estimator: Any) -> Arguments:
    # Its alpha is relative to n, which only fit() knows.
    prior = f"lasso(alpha={float(estimator.alpha)!r}, noise_std={_UNIT})" if estimator.alpha else Flat()
    return {"prior": prior, "likelihood": GaussianNoise(_UNIT)}


def _net(estimator: Any) -> Arguments:
    alpha, ratio = float(estimator.alpha), float(estimator.l1_ratio)
    if not 0.0 < ratio < 1.0 or not alpha:
        words = f"lasso(alpha={alpha!r}, noise_std={_UNIT})" if ratio else f"gaussian(weight_decay={alpha!r})"
        return {"prior": words if alpha else Flat(), "likelihood": GaussianNoise(_UNIT)}
    words = f"elastic_net(alpha={alpha!r}, l1_ratio={ratio!r}, noise_std={_UNIT})"
    return {"prior": words, "likelihood": GaussianNoise(_UNIT)}


def _poisson(estimator: Any) -> Arguments:
    prior = f"gaussian(weight_decay={float(estimator.alpha)!r})" if estimator.alpha else Flat()
    return {"prior": prior, "likelihood": Poisson()}


def _bayesian_ridge(_: Any) -> Arguments:
    return {"prior": "gaussian(auto)", "strength": {"method": "evidence", "hyperprior": None}}


def _logistic(estimator: Any) -> Arguments:
    c, ratio = float(estimator.C), float(estimator.l1_ratio or 0.0)
    # Of earlier versions, where the ratio counted with penalty='elasticnet' alone.
    penalty = getattr(estimator, "penalty", "deprecated")
    if penalty in ("l1", "l2"):
        ratio = 1.0 if penalty == "l1" else 0.0
    if penalty is None or math.isinf(c):
        return {"prior": Flat()}
    if ratio == 0.0:
        return {"prior": Gaussian(math.sqrt(logistic_c_to_variance(c)))}
    if ratio == 1.0:
        return {"prior": Laplace(logistic_c_to_laplace_scale(c))}
    return {"prior": ElasticNet(l1=ratio / c, l2=(1.0 - ratio) / c)}


_REGRESSORS: dict[str, Callable[[Any], Arguments]] = {
    "Ridge": _ridge,
    "LinearRegression": _least_squares,
    "Lasso": _lasso,
    "ElasticNet": _net,
    "PoissonRegressor": _poisson,
    "BayesianRidge": _bayesian_ridge,
}
_CLASSIFIERS: dict[str, Callable[[Any], Arguments]] = {"LogisticRegression": _logistic}
