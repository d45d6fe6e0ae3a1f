"""Conversions between regularisation constants and prior hyper-parameters: pure functions."""

from __future__ import annotations

import math
from typing import TypeVar, overload

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.conversion.loss_scale import LossScale, as_loss_scale
from bayesreg.errors import NotEquivalentError
from bayesreg.optimizers import OptimizerLike, require_coupled

__all__ = [
    "l1_to_laplace_scale",
    "l2_coefficient_to_variance",
    "laplace_scale_to_l1",
    "precision_to_weight_decay",
    "variance_to_l2_coefficient",
    "variance_to_weight_decay",
    "weight_decay_to_precision",
    "weight_decay_to_variance",
]

FloatOrTensor = TypeVar("FloatOrTensor", float, Tensor)


@overload
def _ratio(top: float, bottom_name: str, bottom: float) -> float: ...
@overload
def _ratio(top: float, bottom_name: str, bottom: Tensor) -> Tensor: ...
def _ratio(top: float, bottom_name: str, bottom: float | Tensor) -> float | Tensor:
    """Return top / bottom; a strength of 0 is an infinitely wide prior and the other way round."""
    if isinstance(bottom, float) and math.isinf(bottom) and bottom > 0:
        return 0.0
    checked = checks.non_negative(bottom_name, bottom)
    if isinstance(checked, Tensor):
        return torch.as_tensor(top, dtype=checked.dtype, device=checked.device) / checked
    return top / checked if checked > 0 else math.inf


def _width(top: float, bottom_name: str, bottom: FloatOrTensor) -> FloatOrTensor:
    """Return top / bottom for a variance or scale, which must be > 0 (or infinite: no prior)."""
    if not (isinstance(bottom, float) and math.isinf(bottom) and bottom > 0):
        checks.positive(bottom_name, bottom)
    return _ratio(top, bottom_name, bottom)


@answering
def weight_decay_to_variance(
    weight_decay: FloatOrTensor, num_data: int | LossScale, *, optimizer: OptimizerLike | None = None
) -> FloatOrTensor:
    """Return the variance σ² = s / weight_decay of the Gaussian prior that a coupled weight decay stands for.

    Args:
        weight_decay: λ >= 0, in the ½ convention of `torch.optim`: loss + (λ/2)‖θ‖². 0 gives an infinite variance.
        num_data: Size of the training set of a mean loss, or the `LossScale` of another.
        optimizer: The optimizer in use (instance, class or name). With it, hidden extra decay is counted (ASGD's
            `lambd`) and decoupled optimizers are refused. Without it, coupled decay is assumed.

    Returns:
        The variance, in squared units of the weights.

    Raises:
        InvalidArgumentError: If an argument is out of range.
        NotEquivalentError: If the optimizer's decay is not that of a Gaussian prior (AdamW, Adafactor, Muon, ...).

    Example:
        >>> weight_decay_to_variance(5e-4, LossScale.mean(num_data=50_000))
        0.04

    References:
        Loshchilov and Hutter (2019), Decoupled Weight Decay Regularization, section 3, on why AdamW differs.
    """
    extra = require_coupled(optimizer).extra_decay if optimizer is not None else 0.0
    checks.non_negative("weight_decay", weight_decay)
    return _ratio(as_loss_scale(num_data).value, "weight_decay", weight_decay + extra)


@answering
def variance_to_weight_decay(
    variance: FloatOrTensor, num_data: int | LossScale, *, optimizer: OptimizerLike | None = None
) -> FloatOrTensor:
    """Return the coupled weight decay λ = s / variance of a zero-centred Gaussian prior.

    Args:
        variance: σ² > 0, in squared units of the weights; `math.inf` gives 0.
        num_data: Size of the training set of a mean loss, or the `LossScale` of another.
        optimizer: As in `weight_decay_to_variance`; ASGD's `lambd` is subtracted.

    Returns:
        The number to pass as `weight_decay`.

    Raises:
        InvalidArgumentError: If an argument is out of range.
        NotEquivalentError: If no weight_decay of this optimizer stands for the prior.

    Example:
        >>> variance_to_weight_decay(0.04, 50_000)
        0.0005
    """
    decay = _width(as_loss_scale(num_data).value, "variance", variance)
    if optimizer is None:
        return decay
    rule = require_coupled(optimizer)
    if rule.extra_decay == 0.0:
        return decay
    rest = decay - rule.extra_decay
    if float(rest.min() if isinstance(rest, Tensor) else rest) < 0:
        raise NotEquivalentError(
            f"{rule.name} already decays by lambd={rule.extra_decay:g}, more than the prior asks for; set lambd=0."
        )
    return rest


@answering
def weight_decay_to_precision(
    weight_decay: FloatOrTensor, num_data: int | LossScale, *, optimizer: OptimizerLike | None = None
) -> FloatOrTensor:
    """Return the prior precision 1/σ² = weight_decay / s (what laplace-torch calls `prior_precision`).

    Args:
        weight_decay: λ >= 0, in the ½ convention.
        num_data: Size of the training set of a mean loss, or the `LossScale` of another.
        optimizer: As in `weight_decay_to_variance`.

    Returns:
        The precision, in inverse squared units of the weights.

    Raises:
        InvalidArgumentError: If an argument is out of range.
        NotEquivalentError: If the optimizer's decay is not that of a Gaussian prior.

    Example:
        >>> weight_decay_to_precision(5e-4, 50_000)
        25.0
    """
    extra = require_coupled(optimizer).extra_decay if optimizer is not None else 0.0
    checks.non_negative("weight_decay", weight_decay)
    return (weight_decay + extra) / as_loss_scale(num_data).value


@answering
def precision_to_weight_decay(
    precision: FloatOrTensor, num_data: int | LossScale, *, optimizer: OptimizerLike | None = None
) -> FloatOrTensor:
    """Return the coupled weight decay λ = s · precision of a zero-centred Gaussian prior.

    Args:
        precision: 1/σ² > 0.
        num_data: Size of the training set of a mean loss, or the `LossScale` of another.
        optimizer: As in `weight_decay_to_variance`.

    Returns:
        The number to pass as `weight_decay`.

    Raises:
        InvalidArgumentError: If an argument is out of range.
        NotEquivalentError: If no weight_decay of this optimizer stands for the prior.

    Example:
        >>> precision_to_weight_decay(25.0, 50_000)
        0.0005
    """
    checks.positive("precision", precision)
    return variance_to_weight_decay(1.0 / precision, num_data, optimizer=optimizer)


@answering
def l2_coefficient_to_variance(l2_coefficient: FloatOrTensor, num_data: int | LossScale) -> FloatOrTensor:
    """Return the Gaussian variance σ² = s / (2 · l2_coefficient) of a penalty written without the ½.

    Args:
        l2_coefficient: The factor >= 0 in loss + l2_coefficient · ‖θ‖² (Keras' `l2`, many lecture notes).
        num_data: Size of the training set of a mean loss, or the `LossScale` of another.

    Returns:
        The variance.

    Raises:
        InvalidArgumentError: If an argument is out of range.

    Example:
        >>> l2_coefficient_to_variance(2.5e-4, 50_000)
        0.04
    """
    return _ratio(as_loss_scale(num_data).value / 2.0, "l2_coefficient", l2_coefficient)


@answering
def variance_to_l2_coefficient(variance: FloatOrTensor, num_data: int | LossScale) -> FloatOrTensor:
    """Return the factor s / (2σ²) of a penalty ‖θ‖² written without the ½.

    Args:
        variance: σ² > 0.
        num_data: Size of the training set of a mean loss, or the `LossScale` of another.

    Returns:
        The coefficient.

    Raises:
        InvalidArgumentError: If an argument is out of range.

    Example:
        >>> variance_to_l2_coefficient(0.04, 50_000)
        0.00025
    """
    return _width(as_loss_scale(num_data).value / 2.0, "variance", variance)


@answering
def l1_to_laplace_scale(l1_coefficient: FloatOrTensor, num_data: int | LossScale) -> FloatOrTensor:
    """Return the scale b = s / l1_coefficient of the Laplace prior that an L1 penalty stands for.

    Args:
        l1_coefficient: The factor >= 0 in loss + l1_coefficient · ‖θ‖₁.
        num_data: Size of the training set of a mean loss, or the `LossScale` of another.

    Returns:
        b, in units of the weights; the prior's standard deviation is √2 · b.

    Raises:
        InvalidArgumentError: If an argument is out of range.

    Example:
        >>> l1_to_laplace_scale(1e-4, 50_000)
        0.2
    """
    return _ratio(as_loss_scale(num_data).value, "l1_coefficient", l1_coefficient)


@answering
def laplace_scale_to_l1(laplace_scale: FloatOrTensor, num_data: int | LossScale) -> FloatOrTensor:
    """Return the factor s / b of the penalty ‖θ‖₁ that a Laplace prior stands for.

    Args:
        laplace_scale: b > 0, in units of the weights.
        num_data: Size of the training set of a mean loss, or the `LossScale` of another.

    Returns:
        The L1 coefficient.

    Raises:
        InvalidArgumentError: If an argument is out of range.

    Example:
        >>> laplace_scale_to_l1(0.2, 50_000)
        0.0001
    """
    return _width(as_loss_scale(num_data).value, "laplace_scale", laplace_scale)
