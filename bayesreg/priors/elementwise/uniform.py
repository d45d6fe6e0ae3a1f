"""The uniform prior: bounds, and no preference between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.contract.prior import Prior
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, plain, promoted, summed, total_constant
from bayesreg.priors.contract.traits import Traits

__all__ = ["Uniform"]


@register_family
@final
class Uniform(Prior):
    r"""Independent elements between bounds, ``log p(w) = −Σ log(high − low)`` for low <= w <= high, else −∞.

    The MAP is the best point inside the bounds; proximal steps clip to them (projected gradient descent).

    Args:
        low: Lower bound: a number or a tensor that broadcasts to the parameter.
        high: Upper bound > low.

    Raises:
        InvalidArgumentError: If a bound is not finite or `high` is not > `low`.

    Example:
        >>> import torch
        >>> prior = Uniform(low=-1.0, high=1.0)
        >>> prior.prox(torch.tensor([-3.0, 0.2]), step=0.1)
        tensor([-1.0000,  0.2000])
        >>> prior.log_prob(torch.tensor([0.2, 1.5])).item()
        -inf

    References:
        Parikh and Boyd (2014), Proximal Algorithms, section 1.2 (projection as a proximal operator).
    """

    traits = Traits(proper=True, convex=True, smooth=False, elementwise=True, has_prox=True)
    low: Tensor
    high: Tensor

    def __init__(self, low: Hyperparameter, high: Hyperparameter) -> None:
        super().__init__()
        self._hold("low", checks.finite("low", low))
        self._hold("high", checks.finite("high", high))
        try:
            gap = float((self.high - self.low).min())
        except RuntimeError as error:
            raise InvalidArgumentError(
                f"low, high: expected shapes that broadcast, got {tuple(self.low.shape)} and {tuple(self.high.shape)}."
            ) from error
        if not gap > 0 or not math.isfinite(gap):
            raise InvalidArgumentError(f"high: expected a value > low and a finite width, got high − low = {gap:g}.")

    def _bounds(self, value: Tensor) -> tuple[Tensor, Tensor]:
        self._check_shape(value.shape)
        # A weight must be able to sit on its bound: the bounds as its dtype holds them.
        low, high = (held.to(value.device, value.dtype) for held in (self.low, self.high))
        return promoted(low), promoted(high)

    def _element_penalty(self, value: Tensor) -> Tensor:
        low, high = self._bounds(value)
        wide = promoted(value)
        outside = (wide < low) | (wide > high) | wide.isnan()
        # The product keeps the autograd graph, with a gradient of 0.
        return torch.where(outside, math.inf, 0.0).to(wide.dtype) + wide.nan_to_num(0.0, 0.0, 0.0) * 0.0

    def penalty(self, value: Tensor) -> Tensor:
        return summed(self._element_penalty(value))

    def _log_normaliser(self) -> Tensor:
        return (self.high.to(torch.float64) - self.low.to(torch.float64)).log()

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        return -total_constant(self._log_normaliser(), shape)

    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        return

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        low, high = self._bounds(value)
        return torch.clamp(promoted(value), low, high).to(value.dtype)

    def subdiff_distance(self, value: Tensor, grad: Tensor, coefficient: float = 1.0) -> Tensor:
        low, high = self._bounds(value)
        wide, slope = promoted(value.detach()), promoted(grad)
        # On a bound the rest may push outward; outside no gradient is optimal.
        distance = torch.where(wide == low, (-slope).clamp_min(0.0), slope.abs())
        distance = torch.where(wide == high, slope.clamp_min(0.0), distance)
        return torch.where((wide < low) | (wide > high), math.inf, distance)

    def at_kink(self, value: Tensor) -> Tensor:
        low, high = self._bounds(value)
        wide = promoted(value.detach())
        return (wide == low) | (wide == high)

    def _kept_on_side(self, before: Tensor, after: Tensor) -> Tensor:
        return self.prox(after, 1.0)

    def curvature(self, value: Tensor) -> Tensor:
        """Return zeros: −log p is constant between the bounds."""
        return torch.zeros_like(promoted(value.detach()))

    def _draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        share = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        low, high = self.low.to(like.device), self.high.to(like.device)
        return torch.clamp(low + (high - low) * share, low, high)

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter:
        """Return (high − low)²/12; see `Prior.variance`."""
        return plain((self.high - self.low).square() / 12.0)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Return low and high; see `Prior.bounds`."""
        return self.low.detach(), self.high.detach()

    def centre(self) -> Tensor:
        return (0.5 * (self.low + self.high)).detach()

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return {"low": plain(self.low), "high": plain(self.high)}

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            f"No weight_decay is equivalent to bounds, which do not pull ({self.weight_decay_readings(loss_scale)}). "
            f"Train with br.attach or br.MAPTrainer(optimizer='proximal'), which clip to them."
        )

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        if self.low.ndim or self.high.ndim:
            return "uniform, one pair of bounds per element"
        return f"uniform, {float(self.low.detach()):.4g} to {float(self.high.detach()):.4g}"
