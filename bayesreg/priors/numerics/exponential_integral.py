"""e^u·E₁(u) and what the horseshoe needs of it, accurate over all positive numbers."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["scaled_exponential_integrals", "scaled_gap"]

_TERMS_SMALL, _TERMS_LARGE = 22, 60
# Where the series ends: beyond, its terms cancel; before, the fractions converge slowly.
_JOIN = 1.5
_EULER = 0.57721566490153286061


def scaled_exponential_integrals(u: Tensor) -> tuple[Tensor, Tensor]:
    """Return e^u·E₁(u) and e^u·E₂(u) = 1 − u·e^u·E₁(u), in float64; differentiable.

    The power series for small u (Abramowitz and Stegun 5.1.11) and continued fractions beyond (5.1.22), the second of
    which has none of the cancellation of the difference.

    Args:
        u: > 0.

    Returns:
        Both, of the shape of `u`.
    """
    wide = u.to(torch.float64)
    small, large = wide.clamp_max(_JOIN), wide.clamp_min(_JOIN)
    series = _series(small)
    first_small = small.exp() * (series - small.log() - _EULER)
    first_large, second_large = _fraction(large, 1), _fraction(large, 2)
    inner = wide <= _JOIN
    first = torch.where(inner, first_small, first_large)
    return first, torch.where(inner, 1.0 - small * first_small, second_large)


def _series(u: Tensor) -> Tensor:
    total, term = torch.zeros_like(u), torch.ones_like(u)
    for k in range(1, _TERMS_SMALL + 1):
        term = term * (-u) / k
        total = total - term / k
    return total


def _fraction(u: Tensor, order: int) -> Tensor:
    """Return e^u·E_order(u) = 1/(u + n − 1·n/(u + n + 2 − 2·(n + 1)/(u + n + 4 − ...)))."""
    tail = u + order + 2.0 * _TERMS_LARGE
    for k in range(_TERMS_LARGE, 0, -1):
        tail = u + order + 2.0 * (k - 1) - k * (order + k - 1) / tail
    return tail.reciprocal()


def scaled_gap(u: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return 1/u − E₂/(u·E₁), without its cancellation for large u.

    Args:
        u: > 0, float64.
        first: e^u·E₁(u).
        second: e^u·E₂(u).

    Returns:
        The gap, about 1/u² far out.
    """
    far = u > 1e4
    inverse = torch.where(far, u, 1e4).reciprocal()
    series = inverse * (inverse * (1.0 + inverse * (-4.0 + inverse * (18.0 - 96.0 * inverse))))
    ratio = u * first
    near = u.reciprocal() - second / ratio
    return torch.where(far, series / torch.where(far, ratio, 1.0), near)
