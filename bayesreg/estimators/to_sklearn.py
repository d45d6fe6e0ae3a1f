"""A fitted linear model as one of scikit-learn's, which predicts without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, PoissonRegressor, Ridge

from bayesreg.conversion import (
    elastic_net_rates_to_sklearn,
    laplace_scale_to_lasso_alpha,
    variance_to_ridge_alpha,
)
from bayesreg.errors import NotEquivalentError
from bayesreg.estimators.fitting import LinearFit
from bayesreg.likelihoods import Poisson
from bayesreg.priors import Belief, Prior

__all__ = ["classifier_of", "regressor_of"]


def _parts(fitted: Any) -> tuple[float | None, float, float]:
    """Return variance, l1 and l2 of the prior on the weights: a Gaussian (variance), or rates of ‖w‖₁ and ½‖w‖²."""
    if not isinstance(fitted, LinearFit):
        raise NotEquivalentError("to_sklearn: expected a linear model that was solved to optimality, got another one.")
    by_name = {entry.info.attribute: belief for entry, belief in fitted.prior.active()}
    bias = by_name.get("bias")
    if bias is not None and not _is_flat(bias):
        raise NotEquivalentError("to_sklearn: scikit-learn's intercepts are flat, and this one has a prior.")
    prior = by_name["weight"]
    centre = prior.centre()
    parabola = prior.quadratic()
    rates = prior._rates() if isinstance(prior, Prior) else None
    if not bool((centre == 0).all()):
        raise NotEquivalentError(f"to_sklearn: scikit-learn's priors are about 0, and {prior.describe()} is not.")
    if parabola is not None and isinstance(parabola.variance, float):
        return parabola.variance, 0.0, 0.0
    if rates is not None and all(rate.ndim == 0 for rate in rates):
        return None, float(rates[0]), float(rates[1])
    raise NotEquivalentError(f"to_sklearn: scikit-learn has no {prior.family}; it has one scale for all, L2 and L1.")


def _is_flat(prior: Belief) -> bool:
    parabola = prior.quadratic()
    return parabola is not None and parabola.flat


def regressor_of(estimator: Any) -> Any:
    """Return Ridge, Lasso, ElasticNet, LinearRegression or PoissonRegressor, fitted.

    Args:
        estimator: A fitted `MAPRegressor`.

    Returns:
        The estimator.

    Raises:
        NotEquivalentError: If there is none.
    """
    fitted = estimator._fitted
    variance, l1, l2 = _parts(fitted)
    n, noise = fitted.num_data, fitted.likelihood.gaussian_noise_std
    intercept = {"fit_intercept": bool(estimator.fit_intercept)}
    if noise is None:
        if variance is None or not isinstance(fitted.likelihood, Poisson):
            raise NotEquivalentError(
                f"to_sklearn: scikit-learn has no linear model of {fitted.likelihood.describe()} with this prior."
            )
        made = PoissonRegressor(alpha=1.0 / (n * variance), **intercept)
        # What it predicts with besides the coefficients, its fit alone sets.
        return _given(made.fit(np.zeros((1, estimator.n_features_in_)), [1.0]), estimator)
    if variance is not None:
        made = (
            LinearRegression(**intercept)
            if variance == float("inf")
            else Ridge(alpha=variance_to_ridge_alpha(variance, noise), **intercept)
        )
        return _given(made, estimator)
    count = int(n)
    if count != n:
        raise NotEquivalentError(f"to_sklearn: Lasso's alpha counts examples, and the weights sum to {n:g}.")
    if not l2:
        return _given(Lasso(alpha=laplace_scale_to_lasso_alpha(1.0 / l1, count, noise), **intercept), estimator)
    alpha, ratio = elastic_net_rates_to_sklearn(l1, l2, count, noise)
    return _given(ElasticNet(alpha=alpha, l1_ratio=ratio, **intercept), estimator)


def classifier_of(estimator: Any) -> Any:
    """Return LogisticRegression, fitted.

    Args:
        estimator: A fitted `MAPClassifier`.

    Returns:
        The estimator.

    Raises:
        NotEquivalentError: If there is none.
    """
    variance, l1, l2 = _parts(estimator._fitted)
    if len(estimator.classes_) == 2 and len(estimator.coef_) == 2:
        raise NotEquivalentError(
            "to_sklearn: LogisticRegression has one output for two classes; fit with likelihood=Bernoulli()."
        )
    given: dict[str, Any] = {"fit_intercept": bool(estimator.fit_intercept)}
    if variance is not None:
        made = LogisticRegression(C=variance, **given)
    else:
        made = LogisticRegression(C=1.0 / (l1 + l2), l1_ratio=l1 / (l1 + l2), solver="saga", **given)
    made.classes_ = estimator.classes_
    made.n_iter_ = np.array([estimator.n_iter_], dtype=np.int32)
    return _given(made, estimator)


def _given(made: Any, estimator: Any) -> Any:
    for name in ("coef_", "intercept_", "n_features_in_", "feature_names_in_"):
        if hasattr(estimator, name):
            setattr(made, name, getattr(estimator, name))
    if not hasattr(made, "n_iter_"):
        made.n_iter_ = estimator.n_iter_
    return made
