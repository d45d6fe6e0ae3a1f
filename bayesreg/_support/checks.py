"""One check per function; every message says what was expected and what was given."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bayesreg.errors import InvalidArgumentError, kind_of

__all__ = [
    "accepts",
    "covariance",
    "finite",
    "finite_float",
    "integer",
    "non_negative",
    "non_negative_float",
    "positive",
    "positive_float",
    "positive_int",
    "positive_or_infinite",
    "positive_vector",
    "seed",
    "width_from",
]

FloatOrTensor = TypeVar("FloatOrTensor", float, Tensor)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _from_array(name: str, value: Any) -> Tensor:
    """Return an array of another library as a tensor; only real numbers are taken."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise InvalidArgumentError(f"{name}: expected real numbers, got an array of dtype {array.dtype}.")
    return torch.as_tensor(array)


def finite(name: str, value: object) -> float | Tensor:
    """Return `value` as a float or a floating-point tensor without NaN or infinity."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise InvalidArgumentError(f"{name}: expected a floating-point tensor, got dtype {value.dtype}.")
        if value.is_meta:
            raise InvalidArgumentError(f"{name}: expected values, got a tensor on the meta device, which has none.")
        bad = ~torch.isfinite(value.detach())
        if bool(bad.any()):
            raise InvalidArgumentError(
                f"{name}: expected finite values, got {int(bad.sum())} NaN or infinite of {value.numel()}."
            )
        return value
    if hasattr(value, "__array__") and not _is_number(value):
        return finite(name, _from_array(name, value))
    if not _is_number(value):
        shown = f"{value!r}" if isinstance(value, str | bool | complex) else ""
        raise InvalidArgumentError(
            f"{name}: expected a number or a tensor, got {kind_of(value)} {shown}".rstrip() + "."
        )
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        raise InvalidArgumentError(f"{name}: expected a finite number, got one beyond 1e308.") from None
    if not math.isfinite(number):
        raise InvalidArgumentError(f"{name}: expected a finite number, got {number}.")
    return number


def positive(name: str, value: object) -> float | Tensor:
    """Return `value`, checked to be finite and > 0 everywhere."""
    checked = finite(name, value)
    if isinstance(checked, Tensor):
        if not checked.numel():
            raise InvalidArgumentError(f"{name}: expected values > 0, got an empty tensor.")
        held = checked.detach()
        if not bool((held > 0).all()):
            raise InvalidArgumentError(f"{name}: expected values > 0, got a smallest value of {held.min().item():g}.")
        if not held.is_meta:
            wide = held.to(torch.promote_types(held.dtype, torch.float32))
            _square_is_a_number(name, wide.min(), f"a smallest value of {held.min().item():g}")
            _square_is_a_number(name, wide.max(), f"a largest value of {held.max().item():g}")
    else:
        if checked <= 0:
            raise InvalidArgumentError(f"{name}: expected a value > 0, got {checked:g}.")
        _square_is_a_number(name, checked, f"{checked:g}")
    return checked


def _square_is_a_number(name: str, value: float | Tensor, given: str) -> None:
    """Refuse what is squared to 0 or infinity: densities divide by squares."""
    square = float(value * value)
    if not 0 < square < math.inf:
        raise InvalidArgumentError(
            f"{name}: expected a value whose square is a number (of a float, from 1e-154 to 1e154), got {given}."
        )


def positive_or_infinite(name: str, value: object) -> float | Tensor:
    """Return `value`, checked to be > 0 everywhere; elements of a tensor may be infinite, but not all of them."""
    if hasattr(value, "__array__") and not _is_number(value) and not isinstance(value, Tensor):
        value = _from_array(name, value)
    if isinstance(value, Tensor) and value.ndim and value.is_floating_point() and not value.requires_grad:
        if value.is_meta:
            return finite(name, value)
        infinite = value == math.inf
        if bool(infinite.any()):
            if bool(infinite.all()):
                raise InvalidArgumentError(
                    f"{name}: expected a finite value somewhere, got infinity everywhere, for which the prior is "
                    f"br.Flat()."
                )
            positive(name, torch.where(infinite, 1.0, value))
            return value
    return positive(name, value)


def positive_float(name: str, value: object) -> float:
    """Return `value` as a float, checked to be finite and > 0."""
    return _one(name, positive(name, value))


def finite_float(name: str, value: object) -> float:
    """Return `value` as a float, checked to be finite."""
    return _one(name, finite(name, value))


def non_negative_float(name: str, value: object) -> float:
    """Return `value` as a float, checked to be finite and >= 0."""
    return _one(name, non_negative(name, value))


def _one(name: str, checked: float | Tensor) -> float:
    if isinstance(checked, Tensor):
        if checked.requires_grad:
            raise InvalidArgumentError(f"{name}: expected a fixed number, got a tensor that requires a gradient.")
        if checked.numel() != 1:
            raise InvalidArgumentError(f"{name}: expected one number, got a tensor of shape {tuple(checked.shape)}.")
        return float(checked)
    return checked


def non_negative(name: str, value: object) -> float | Tensor:
    """Return `value`, checked to be finite and >= 0 everywhere."""
    checked = finite(name, value)
    if isinstance(checked, Tensor) and not checked.numel():
        raise InvalidArgumentError(f"{name}: expected values >= 0, got an empty tensor.")
    smallest = float(checked.detach().min()) if isinstance(checked, Tensor) else checked
    if smallest < 0:
        raise InvalidArgumentError(f"{name}: expected a value >= 0, got {smallest:g}.")
    return checked


def integer(name: str, value: object) -> int:
    """Return `value` as an int."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidArgumentError(f"{name}: expected an integer, got {kind_of(value)}{_number(value)}.")
    return int(value)


def flag(name: str, value: object) -> bool:
    """Return True or False, raising for what merely counts as one of them."""
    if not isinstance(value, bool):
        raise InvalidArgumentError(f"{name}: expected True or False, got {_number(value)}.")
    return value


def positive_int(name: str, value: object) -> int:
    """Return `value` as an int, checked to be >= 1."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidArgumentError(f"{name}: expected an integer >= 1, got {type(value).__name__} {value!r}.")
    if int(value) < 1:
        raise InvalidArgumentError(f"{name}: expected an integer >= 1, got {int(value)}.")
    if int(value) > 10**100:
        raise InvalidArgumentError(f"{name}: expected an integer from 1 to 1e100, got one beyond.")
    return int(value)


def width_from(name: str, value: float, width: float) -> float:
    """Return the width of a prior that a number stands for, checked to be one that a density can have."""
    try:
        return positive_float("scale", width)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{name}: {value:g} stands for no width that a prior can have ({error})") from error


def seed(name: str, value: object) -> int:
    """Return `value` as an int that a torch generator takes."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not -(2**63) <= int(value) < 2**64:
        raise InvalidArgumentError(f"{name}: expected an integer of 64 bits, got {kind_of(value)}{_number(value)}.")
    return int(value)


def _number(value: object) -> str:
    return f" {value!r}" if isinstance(value, Real) and not isinstance(value, Integral) else ""


def accepts(name: str, function: object, count: int, what: str) -> None:
    """Raise unless `function` is None or can be called with so many arguments."""
    if function is None:
        return
    if not callable(function):
        raise InvalidArgumentError(f"{name}: expected a function of {what}, got {kind_of(function)}.")
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError as error:
        shown = getattr(function, "__name__", type(function).__name__)
        raise InvalidArgumentError(f"{name}: expected a function of {what}, got {shown} ({error}).") from error
    except ValueError:
        pass  # written in C, without a signature


def positive_vector(name: str, value: object) -> Tensor:
    """Return a sequence or 1-D tensor of numbers > 0 as a tensor (float64 unless it was one)."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        try:
            value = torch.tensor([float(item) for item in value], dtype=torch.float64)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"{name}: expected numbers, got {value!r}.") from error
    if hasattr(value, "__array__") and not isinstance(value, Tensor):
        value = _from_array(name, value)
    if not isinstance(value, Tensor) or value.ndim != 1 or not len(value):
        raise InvalidArgumentError(f"{name}: expected a sequence of numbers, got {_kind(value)}.")
    positive(name, value)
    return value


def covariance(name: str, value: object) -> Tensor:
    """Return a symmetric positive definite matrix as a tensor (float64 unless it was one)."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        try:
            value = torch.tensor(value, dtype=torch.float64)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"{name}: expected a square matrix of numbers, got {value!r}.") from error
    checked = finite(name, value)
    if not isinstance(checked, Tensor) or checked.ndim != 2 or checked.shape[0] != checked.shape[1] or not len(checked):
        raise InvalidArgumentError(f"{name}: expected a square matrix, got {_kind(checked)}.")
    wide = checked.detach().to("cpu", torch.float64)
    uneven = float((wide - wide.mT).abs().max())
    if uneven > 1e-5 * float(wide.abs().max()):
        raise InvalidArgumentError(
            f"{name}: expected a symmetric matrix, got entries that differ by {uneven:.3g} across the diagonal."
        )
    smallest = float(torch.linalg.eigvalsh(wide).min())
    if int(torch.linalg.cholesky_ex(wide).info) or not smallest > 0:
        raise InvalidArgumentError(
            f"{name}: expected a positive definite matrix, got a smallest eigenvalue of {smallest:.3g}; add a little "
            f"to its diagonal."
        )
    return checked


def _kind(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r}"


def batch_fits(num_data: int, batch_size: int) -> None:
    """Raise where a batch is larger than the training set."""
    if batch_size > num_data:
        raise InvalidArgumentError(
            f"batch_size: expected at most num_data = {num_data}, got {batch_size}; num_data is the size of the "
            f"training set, not of a batch."
        )
