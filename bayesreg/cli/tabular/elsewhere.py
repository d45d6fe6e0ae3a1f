"""The prior of a linear model of a table in scikit-learn's constants."""

from __future__ import annotations

from typing import Any

from bayesreg.cli.tabular.procedure import Fitted
from bayesreg.conversion import elastic_net_rates_to_sklearn, laplace_scale_to_lasso_alpha, variance_to_ridge_alpha
from bayesreg.priors import Prior

__all__ = ["sklearn_setting"]


def sklearn_setting(fitted: Fitted) -> str | None:
    """Return the estimator of scikit-learn with the same objective, as it would be written.

    Args:
        fitted: A linear model, between layers that standardise.

    Returns:
        Words, for features and a target that are standardised as the model does it; None where there is none.
    """
    prior = next(belief for entry, belief in fitted.prior.active() if entry.info.attribute == "weight")
    if not isinstance(prior, Prior) or bool((prior.centre() != 0).any()):
        return None
    parabola, rates = prior.quadratic(), prior._rates()
    variance = parabola.variance if parabola is not None else None
    l1, l2 = (float(rate) for rate in rates) if rates is not None and rates[0].ndim == 0 else (0.0, 0.0)
    noise = fitted.likelihood.gaussian_noise_std
    if noise is None:
        return _classes(variance if isinstance(variance, float) else None, l1, l2)
    network: Any = fitted.network
    # The noise is in the target's units, the prior in those of the standardised one.
    tau, n = noise / float(network.unstandardize.std), len(fitted.train)
    if isinstance(variance, float):
        if variance == float("inf"):
            return "LinearRegression()"
        return f"Ridge(alpha={variance_to_ridge_alpha(variance, tau):.4g})"
    if not l1:
        return None
    if not l2:
        return f"Lasso(alpha={laplace_scale_to_lasso_alpha(1.0 / l1, n, tau):.4g})"
    alpha, ratio = elastic_net_rates_to_sklearn(l1, l2, n, tau)
    return f"ElasticNet(alpha={alpha:.4g}, l1_ratio={ratio:.4g})"


def _classes(variance: float | None, l1: float, l2: float) -> str | None:
    if variance is not None:
        return (
            "LogisticRegression(C=numpy.inf)" if variance == float("inf") else f"LogisticRegression(C={variance:.4g})"
        )
    if not l1:
        return None
    return f"LogisticRegression(C={1.0 / (l1 + l2):.4g}, l1_ratio={l1 / (l1 + l2):.4g}, solver='saga')"
