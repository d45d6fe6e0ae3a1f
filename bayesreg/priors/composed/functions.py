"""Functions of parameters by name, and what a change of variables needs of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["FUNCTIONS", "Function", "Named"]

Function: TypeAlias = Callable[..., Tensor]


@dataclass(frozen=True)
class Named:
    """A function that files can name.

    Attributes:
        call: The function, of one tensor per parameter.
        inverse: Its inverse where it acts on each element and has one.
    """

    call: Function
    inverse: Function | None = None


def _norm(*values: Tensor) -> Tensor:
    flat = torch.cat([value.reshape(-1) for value in values])
    found: Tensor = torch.linalg.vector_norm(flat)
    return found


def _difference(first: Tensor, second: Tensor) -> Tensor:
    return torch.sub(first, second)


def _softplus_inverse(value: Tensor) -> Tensor:
    return value + torch.log(-torch.expm1(-value))


FUNCTIONS: dict[str, Named] = {
    "norm": Named(_norm),
    "difference": Named(_difference),
    "exp": Named(torch.exp, torch.log),
    "log": Named(torch.log, torch.exp),
    "softplus": Named(softplus, _softplus_inverse),
}
