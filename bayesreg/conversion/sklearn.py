"""Conversions between scikit-learn's regularisation constants and prior hyper-parameters: pure functions."""

from __future__ import annotations

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.conversion.loss_scale import LossScale
from bayesreg.conversion.weight_decay import _ratio, _width, l1_to_laplace_scale, laplace_scale_to_l1
from bayesreg.errors import InvalidArgumentError

__all__ = [
    "elastic_net_rates_to_sklearn",
    "laplace_scale_to_lasso_alpha",
    "laplace_scale_to_logistic_c",
    "lasso_alpha_to_laplace_scale",
    "logistic_c_to_laplace_scale",
    "logistic_c_to_variance",
    "ridge_alpha_to_variance",
    "sklearn_to_elastic_net_rates",
    "variance_to_logistic_c",
    "variance_to_ridge_alpha",
]


@answering
def ridge_alpha_to_variance(ridge_alpha: float, noise_std: float) -> float:
    """Return the Gaussian variance σ² = τ² / ridge_alpha that scikit-learn's Ridge assumes.

    Args:
        ridge_alpha: `Ridge(alpha=...)`, >= 0: ‖y − Xw‖² + ridge_alpha · ‖w‖².
        noise_std: τ > 0.

    Returns:
        The variance.

    Raises:
        InvalidArgumentError: If an argument is out of range.

    Example:
        >>> ridge_alpha_to_variance(4.0, noise_std=0.5)
        0.0625
    """
    return _ratio(checks.positive_float("noise_std", noise_std) ** 2, "ridge_alpha", ridge_alpha)


@answering
def variance_to_ridge_alpha(variance: float, noise_std: float) -> float:
    """Return scikit-learn's `Ridge(alpha=...)`, τ² / variance.

    Args:
        variance: σ² > 0.
        noise_std: τ > 0.

    Returns:
        alpha.

    Raises:
        InvalidArgumentError: If an argument is out of range.

    Example:
        >>> variance_to_ridge_alpha(0.0625, noise_std=0.5)
        4.0
    """
    return _width(checks.positive_float("noise_std", noise_std) ** 2, "variance", variance)


@answering
def lasso_alpha_to_laplace_scale(lasso_alpha: float, num_data: int, noise_std: float) -> float:
    """Return the Laplace scale b = τ² / (n · lasso_alpha) that scikit-learn's Lasso assumes.

    Args:
        lasso_alpha: `Lasso(alpha=...)`, >= 0: ‖y − Xw‖²/(2n) + lasso_alpha · ‖w‖₁.
        num_data: n >= 1.
        noise_std: τ > 0.

    Returns:
        b.

    Raises:
        InvalidArgumentError: If an argument is out of range.

    Example:
        >>> lasso_alpha_to_laplace_scale(0.0625, num_data=64, noise_std=1.0)
        0.25
    """
    checks.non_negative_float("lasso_alpha", lasso_alpha)
    return l1_to_laplace_scale(lasso_alpha, LossScale.half_squared_error(num_data, noise_std))


@answering
def laplace_scale_to_lasso_alpha(laplace_scale: float, num_data: int, noise_std: float) -> float:
    """Return scikit-learn's `Lasso(alpha=...)`, τ² / (n · b).

    Args:
        laplace_scale: b > 0.
        num_data: n >= 1.
        noise_std: τ > 0.

    Returns:
        alpha.

    Raises:
        InvalidArgumentError: If an argument is out of range.

    Example:
        >>> laplace_scale_to_lasso_alpha(0.25, num_data=64, noise_std=1.0)
        0.0625
    """
    return laplace_scale_to_l1(laplace_scale, LossScale.half_squared_error(num_data, noise_std))


@answering
def sklearn_to_elastic_net_rates(
    elastic_net_alpha: float, l1_ratio: float, num_data: int, noise_std: float
) -> tuple[float, float]:
    """Return the rates (l1, l2) of the prior ``∝ exp(−l1·|w| − l2·w²/2)`` that scikit-learn's ElasticNet assumes.

    l1 = n · alpha · l1_ratio / τ² and l2 = n · alpha · (1 − l1_ratio) / τ².

    Args:
        elastic_net_alpha: `ElasticNet(alpha=...)`, >= 0.
        l1_ratio: `ElasticNet(l1_ratio=...)`, in [0, 1].
        num_data: n >= 1.
        noise_std: τ > 0.

    Returns:
        (l1, l2).

    Raises:
        InvalidArgumentError: If an argument is out of range.

    Example:
        >>> sklearn_to_elastic_net_rates(0.1, 0.25, num_data=100, noise_std=1.0)
        (2.5, 7.5)
    """
    strength = checks.non_negative_float("elastic_net_alpha", elastic_net_alpha)
    ratio = checks.non_negative_float("l1_ratio", l1_ratio)
    if ratio > 1:
        raise InvalidArgumentError(f"l1_ratio: expected a value in [0, 1], got {ratio:g}.")
    total = strength / LossScale.half_squared_error(num_data, noise_std).value
    return total * ratio, total * (1.0 - ratio)


@answering
def elastic_net_rates_to_sklearn(l1: float, l2: float, num_data: int, noise_std: float) -> tuple[float, float]:
    """Return scikit-learn's (alpha, l1_ratio) for the prior ``∝ exp(−l1·|w| − l2·w²/2)``.

    Args:
        l1: Rate >= 0 of ``|w|``.
        l2: Rate >= 0 of w²/2 (a precision).
        num_data: n >= 1.
        noise_std: τ > 0.

    Returns:
        (alpha, l1_ratio).

    Raises:
        InvalidArgumentError: If an argument is out of range, or both rates are 0.

    Example:
        >>> elastic_net_rates_to_sklearn(2.5, 7.5, num_data=100, noise_std=1.0)
        (0.1, 0.25)
    """
    first, second = checks.non_negative_float("l1", l1), checks.non_negative_float("l2", l2)
    if first + second == 0:
        raise InvalidArgumentError("l1, l2: expected at least one rate > 0, got 0 and 0.")
    total = first + second
    return total * LossScale.half_squared_error(num_data, noise_std).value, first / total


@answering
def logistic_c_to_variance(logistic_c: float) -> float:
    """Return the Gaussian variance σ² = C of scikit-learn's L2 LogisticRegression.

    Of two classes that is the variance for one output and `likelihoods.Bernoulli`, of three and more for a softmax.
    In a softmax of two outputs, whose difference is what counts, σ² = C/2.

    Args:
        logistic_c: `LogisticRegression(C=...)`, > 0: C · Σ loss + ½‖w‖².

    Returns:
        The variance.

    Raises:
        InvalidArgumentError: If C is not > 0.

    Example:
        >>> logistic_c_to_variance(0.5)
        0.5
    """
    return checks.positive_float("logistic_c", logistic_c)


@answering
def variance_to_logistic_c(variance: float) -> float:
    """Return scikit-learn's C = σ² for an L2 LogisticRegression.

    For one output of two classes, and for a softmax of three and more; a softmax of two outputs has C = 2σ².

    Args:
        variance: σ² > 0.

    Returns:
        C.

    Raises:
        InvalidArgumentError: If the variance is not > 0.

    Example:
        >>> variance_to_logistic_c(0.5)
        0.5
    """
    return checks.positive_float("variance", variance)


@answering
def logistic_c_to_laplace_scale(logistic_c: float) -> float:
    """Return the Laplace scale b = C of scikit-learn's L1 LogisticRegression.

    Args:
        logistic_c: `LogisticRegression(C=..., l1_ratio=1)`, > 0: C · Σ loss + ‖w‖₁.

    Returns:
        b.

    Raises:
        InvalidArgumentError: If C is not > 0.

    Example:
        >>> logistic_c_to_laplace_scale(0.5)
        0.5
    """
    return checks.positive_float("logistic_c", logistic_c)


@answering
def laplace_scale_to_logistic_c(laplace_scale: float) -> float:
    """Return scikit-learn's C = b for an L1 LogisticRegression.

    Args:
        laplace_scale: b > 0.

    Returns:
        C.

    Raises:
        InvalidArgumentError: If b is not > 0.

    Example:
        >>> laplace_scale_to_logistic_c(0.5)
        0.5
    """
    return checks.positive_float("laplace_scale", laplace_scale)
