"""Small helpers on hyper-parameters and values that the families share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from bayesreg.errors import InvalidArgumentError

__all__ = [
    "Hyperparameter",
    "as_given",
    "as_number",
    "cholesky",
    "plain",
    "promoted",
    "sampling_device",
    "short",
    "summed",
    "total_constant",
    "wide_dtype",
    "widened",
]

Hyperparameter: TypeAlias = float | Tensor


def promoted(value: Tensor) -> Tensor:
    """Return `value` in float32 or better: a log-prior summed in bfloat16 is wrong in the third digit."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def plain(value: Tensor) -> Hyperparameter:
    """Return a held hyper-parameter as a float if it is a scalar, as a detached tensor otherwise."""
    return float(value.detach()) if value.ndim == 0 else value.detach()


def as_number(value: Hyperparameter | None) -> Hyperparameter | None:
    """Return a scalar tensor as a float, anything else as it is."""
    return plain(value) if isinstance(value, Tensor) else value


def as_given(held: Tensor) -> Hyperparameter:
    """Return a hyper-parameter as constructors take it: learned ones stay the same Parameter."""
    return held if isinstance(held, nn.Parameter) else plain(held)


def short(value: Hyperparameter) -> str:
    """Return a hyper-parameter in a few characters."""
    if isinstance(value, Tensor):
        return f"<tensor {tuple(value.shape)}>"
    return f"{value:g}"


def widened(scalar: Tensor) -> Tensor:
    """Return a scalar in float64, wherever there is such a thing."""
    # Apple's accelerator has none.
    return scalar if scalar.device.type == "mps" else scalar.to(torch.float64)


def summed(values: Tensor) -> Tensor:
    """Return the sum of all elements in float64: float32 resolves one nat where a large model has 1e7 of them."""
    return values.sum() if values.device.type == "mps" else values.sum(dtype=torch.float64)


def total_constant(per_element: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a constant of one element, summed over a parameter of this shape, in float64; flat elements count 0."""
    wide = per_element.to(torch.float64)
    if wide.ndim:
        wide = torch.where(wide == math.inf, 0.0, wide)
    return wide.expand(tuple(shape)).sum() if wide.ndim else math.prod(shape) * wide


def sampling_device(generator: torch.Generator | None, device: torch.device | str | None) -> torch.device:
    """Return where to draw: the device asked for, else the generator's, else the CPU."""
    if device is not None:
        try:
            return torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise InvalidArgumentError(f"device: expected one such as 'cpu' or 'cuda:0', got {device!r}.") from error
    return generator.device if generator is not None else torch.device("cpu")


def cholesky(matrix: Tensor) -> Tensor:
    """Return the lower Cholesky factor, computed in float64."""
    root: Tensor = torch.linalg.cholesky(matrix.to(torch.float64))
    return root


def wide_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype to draw in: the one asked for (torch's default if None), in float32 or better."""
    return torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
