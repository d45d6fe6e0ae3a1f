"""`bayesreg convert`: one regularisation constant, every other way to say it."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated

import typer

from bayesreg import _checks, conversion, conversion_sklearn
from bayesreg._tables import Table
from bayesreg.cli._loss import Loss, loss_scale_of
from bayesreg.cli._output import for_json, say, show
from bayesreg.errors import InvalidArgumentError, NotEquivalentError
from bayesreg.optimizers import decay_rule, require_coupled
from bayesreg.scale import LossScale

__all__ = ["convert"]


class Kind(StrEnum):
    """What the number is."""

    weight_decay = "weight-decay"
    variance = "variance"
    std = "std"
    precision = "precision"
    l2_coefficient = "l2-coefficient"
    ridge_alpha = "ridge-alpha"
    logistic_c = "logistic-c"
    l1_coefficient = "l1-coefficient"
    laplace_scale = "laplace-scale"
    lasso_alpha = "lasso-alpha"


_LAPLACE = (Kind.l1_coefficient, Kind.laplace_scale, Kind.lasso_alpha)


def convert(
    value: Annotated[float, typer.Argument(help="The number to convert.")],
    kind: Annotated[Kind, typer.Option("--from", help="What the number is.")] = Kind.weight_decay,
    num_data: Annotated[int | None, typer.Option(help="Size of the training set (tokens for --loss tokens).")] = None,
    loss: Annotated[Loss, typer.Option(help="The training loss.")] = Loss.mean,
    optimizer: Annotated[str | None, typer.Option(help="Torch optimizer in use, such as sgd or adamw.")] = None,
    noise_std: Annotated[float | None, typer.Option(help="Noise std of squared-error losses, ridge and lasso.")] = None,
    num_outputs: Annotated[int, typer.Option(help="Outputs per example, for --loss mse.")] = 1,
    batch_size: Annotated[int | None, typer.Option(help="For --loss minibatch-sum.")] = None,
    likelihood_weight: Annotated[float, typer.Option(help="How often each example counts (1/temperature).")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Convert a regularisation constant to a prior, and to every other convention."""
    scale = loss_scale_of(loss, num_data, noise_std, num_outputs, batch_size, likelihood_weight)
    family = "Laplace" if kind in _LAPLACE else "Gaussian"
    if optimizer is not None:
        decay_rule(optimizer)
    # scikit-learn counts each example once: emphasis acts there as less noise, or as a larger C.
    emphasis = _checks.positive_float("--likelihood-weight", likelihood_weight)
    noise = None if noise_std is None else _checks.positive_float("--noise-std", noise_std) / math.sqrt(emphasis)
    values: dict[str, float | None]
    if family == "Laplace":
        values = {**_laplace(value, kind, scale, num_data, noise, emphasis)}
    else:
        values = _gaussian(value, kind, scale, noise, optimizer, emphasis)
    note = f"Training loss = s x NLL with s = {scale.value:.4g} ({scale.origin})."
    notes = [note]
    if family == "Gaussian" and values["weight_decay"] is None:
        notes.append(f"No weight_decay of {optimizer} means this prior; br.attach adds its gradient instead.")
    if as_json:
        say(for_json({"family": family, "loss_scale": scale.value, "loss": scale.origin, **values}))
        return
    rows = [(name.replace("_", " "), number) for name, number in values.items()]
    show(Table(f"{kind.value} {value:g} as a {family} prior", ("quantity", "value"), rows, tuple(notes)))


def _gaussian(
    value: float, kind: Kind, scale: LossScale, noise: float | None, optimizer: str | None, emphasis: float
) -> dict[str, float | None]:
    if optimizer is not None and kind is Kind.weight_decay:
        require_coupled(optimizer)
    to_variance = {
        Kind.weight_decay: lambda v: conversion.weight_decay_to_variance(v, scale, optimizer=optimizer),
        Kind.variance: lambda v: v,
        Kind.std: lambda v: v * v,
        Kind.precision: lambda v: 1.0 / v if v else math.inf,
        Kind.l2_coefficient: lambda v: conversion.l2_coefficient_to_variance(v, scale),
        Kind.ridge_alpha: lambda v: conversion_sklearn.ridge_alpha_to_variance(v, _noise(noise, kind)),
        Kind.logistic_c: lambda v: conversion_sklearn.logistic_c_to_variance(v) / emphasis,
    }
    if value < 0 or math.isnan(value):
        raise InvalidArgumentError(f"{kind.value}: expected a number >= 0, got {value:g}.")
    variance = float(to_variance[kind](value))
    if not 0 < variance < math.inf:
        raise InvalidArgumentError(
            f"{kind.value}: expected a number that gives a prior a finite width > 0, got {value:g}; no penalty at all "
            f"is the prior flat()."
        )
    values = {
        "variance": variance,
        "std": math.sqrt(variance),
        "precision": 1.0 / variance,
        "weight_decay": _weight_decay(variance, scale, optimizer),
        "l2_coefficient_without_half": conversion.variance_to_l2_coefficient(variance, scale),
        "sklearn_logistic_C": variance * emphasis,
    }
    if noise is not None:
        values["sklearn_ridge_alpha"] = conversion_sklearn.variance_to_ridge_alpha(variance, noise)
    return values


def _weight_decay(variance: float, scale: LossScale, optimizer: str | None) -> float | None:
    try:
        return conversion.variance_to_weight_decay(variance, scale, optimizer=optimizer)
    except NotEquivalentError:
        return None


def _laplace(
    value: float, kind: Kind, scale: LossScale, num_data: int | None, noise: float | None, emphasis: float
) -> dict[str, float]:
    to_scale = {
        Kind.laplace_scale: lambda v: v,
        Kind.l1_coefficient: lambda v: conversion.l1_to_laplace_scale(v, scale),
        Kind.lasso_alpha: lambda v: conversion_sklearn.lasso_alpha_to_laplace_scale(
            v, _count(num_data, kind), _noise(noise, kind)
        ),
    }
    if not 0 < value < math.inf:
        raise InvalidArgumentError(f"{kind.value}: expected a finite number > 0, got {value:g}.")
    b = float(to_scale[kind](value))
    return {
        "scale": b,
        "std": math.sqrt(2.0) * b,
        "variance": 2.0 * b**2,
        "l1_coefficient": conversion.laplace_scale_to_l1(b, scale),
        "sklearn_logistic_C": b * emphasis,
        **(
            {"sklearn_lasso_alpha": conversion_sklearn.laplace_scale_to_lasso_alpha(b, num_data, noise)}
            if num_data is not None and noise is not None
            else {}
        ),
    }


def _count(num_data: int | None, kind: Kind) -> int:
    if num_data is None:
        raise InvalidArgumentError(f"--num-data: {kind.value} depends on the size of the training set; pass it.")
    return num_data


def _noise(noise: float | None, kind: Kind) -> float:
    if noise is None:
        raise InvalidArgumentError(f"--noise-std: {kind.value} is relative to the noise; pass its standard deviation.")
    return noise
