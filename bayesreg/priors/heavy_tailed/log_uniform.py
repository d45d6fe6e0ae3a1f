"""The log-uniform prior: every order of magnitude of a weight is as likely as the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, plain, promoted
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.base import ElementwisePrior
from bayesreg.priors.located.located import Loc

__all__ = ["LogUniform"]


@register_family
@final
class LogUniform(ElementwisePrior):
    r"""Independent elements with ``log p(w) = −Σ [log a + log(2·log(high/low))]``, a = ``|w − loc|``, low <= a <= high.

    With both bounds a density; without one of them improper. Without `low` −log p has no bound at the centre: every
    weight there is a mode, so that there is no MAP to train to (automatic relevance determination whose scales are
    maximised over ends here). With `low` weights stay off the centre, on the side they are on.

    The proximal operator is exact for any step: a weight v goes to (v + √(v² − 4·step))/2 or to ±low, whichever is
    lower. Without `low` it is the local minimum, (v + √(v² − 4·step))/2 where v² > 4·step and 0 elsewhere; 0 itself
    is −∞.

    Args:
        low: Least distance > 0 from the centre: a number or a tensor; None (default) for none.
        high: Largest distance > low; None (default) for none.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If a bound is not > 0, `high` is not > `low`, or `loc` is not finite.

    Example:
        >>> import torch
        >>> prior = LogUniform(low=0.01, high=10.0)
        >>> round(prior.log_prob(torch.tensor([0.5])).item(), 4)
        -1.9326
        >>> LogUniform().traits.proper
        False

    References:
        Kingma, Salimans and Welling (2015), Variational Dropout and the Local Reparameterization Trick, section 3.3;
        Tipping (2001), Sparse Bayesian Learning and the Relevance Vector Machine, section 5.1.
    """

    def __init__(
        self, low: Hyperparameter | None = None, high: Hyperparameter | None = None, *, loc: Loc = 0.0
    ) -> None:
        given = {
            name: checks.positive(name, value) for name, value in (("low", low), ("high", high)) if value is not None
        }
        super().__init__(loc=loc, **given)
        if low is not None and high is not None and not bool((self._bound("high") > self._bound("low")).all()):
            gap = float((self._bound("high") - self._bound("low")).min())
            raise InvalidArgumentError(f"low, high: expected high > low, got high - low = {gap:g}.")
        self.traits = Traits(
            proper=low is not None and high is not None, convex=False, smooth=False, elementwise=True, has_prox=True
        )

    def _bound(self, name: str) -> Tensor:
        """Return a bound, 0 or ∞ where there is none."""
        held: Tensor | None = getattr(self, name, None)
        return torch.tensor(0.0 if name == "low" else math.inf, dtype=torch.float64) if held is None else held

    @property
    def _open(self) -> bool:
        return not hasattr(self, "low")

    # -- as a function of the offset -------------------------------------------------------------------

    def _heights(self, offset: Tensor, eps: float) -> Tensor:
        size = offset.abs()
        # A weight must be able to sit on its bound as its dtype holds it.
        low, high = self._bound("low") * (1.0 - 4.0 * eps), self._bound("high") * (1.0 + 4.0 * eps)
        found = torch.where(size > 0, size, 1.0).log()
        found = torch.where(size > 0, found, -math.inf if self._open else math.inf)
        return torch.where((size < low) | (size > high), math.inf, found).to(offset.dtype)

    def offset_penalty(self, offset: Tensor) -> Tensor:
        return self._heights(offset, torch.finfo(offset.dtype).eps)

    def _element_penalty(self, value: Tensor) -> Tensor:
        return self._heights(self._shifted(value), torch.finfo(value.dtype).eps)

    def offset_slope(self, offset: Tensor) -> Tensor:
        return torch.where(offset == 0, 0.0, torch.where(offset == 0, 1.0, offset).reciprocal())

    def offset_curvature(self, offset: Tensor) -> Tensor:
        return -self.offset_slope(offset).square()

    def offset_prox(self, offset: Tensor, step: Tensor) -> Tensor:
        v, h = offset.abs().to(torch.float64), step.to(offset.device, torch.float64)
        low, high = self._bound("low").to(v), self._bound("high").to(v)
        root = v.square() - 4.0 * h
        far = 0.5 * (v + root.clamp_min(0.0).sqrt())
        if self._open:
            found = torch.where(root > 0, torch.minimum(far, high), 0.0)
        else:
            far = torch.minimum(torch.maximum(far, low), high)
            gap = 0.5 * ((far - v).square() - (low - v).square()) / h + (far / low).log()
            found = torch.where(gap < 0, far, low)
        return (found * torch.where(offset < 0, -1.0, 1.0)).to(offset.dtype)

    def log_normaliser(self) -> Tensor:
        if not self.traits.proper:
            return torch.zeros((), dtype=torch.float64)
        ratio = self._bound("high").to(torch.float64) / self._bound("low").to(torch.float64)
        return (2.0 * ratio.log()).log()

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        share = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        side = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device) < 0.5
        low, high = (self._bound(name).to(like) for name in ("low", "high"))
        size = (low * (high / low) ** share).clamp(low, high)
        return torch.where(side, -size, size)

    # -- bounds ----------------------------------------------------------------------------------------

    def _on(self, value: Tensor, name: str) -> Tensor:
        """Return which elements are on a bound, as far as their dtype can tell."""
        offset = self._shifted(value.detach())
        bound = self._bound(name).to(offset)
        return value == (self.loc + torch.where(offset < 0, -bound, bound)).to(value.dtype)

    def at_kink(self, value: Tensor) -> Tensor:
        return self._on(value, "low") | self._on(value, "high") | (self._shifted(value.detach()) == 0)

    def subdiff_distance(self, value: Tensor, grad: Tensor, coefficient: float = 1.0) -> Tensor:
        offset = self._shifted(value.detach())
        size, outward = offset.abs(), promoted(grad) * torch.where(offset < 0, -1.0, 1.0)
        low, high = (self._on(value, name) for name in ("low", "high"))
        slope = outward + coefficient * self.offset_slope(size)
        distance = torch.where(low, (-slope).clamp_min(0.0), slope.abs())
        distance = torch.where(high, slope.clamp_min(0.0), distance)
        outside = (size < self._bound("low").to(size)) | (size > self._bound("high").to(size))
        distance = torch.where(outside & ~low & ~high, math.inf, distance)
        return torch.where(size == 0, 0.0, distance) if self._open else distance

    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """Return loc − high and loc + high, None without bounds; see `Prior.bounds`."""
        if self._open and not hasattr(self, "high"):
            return None
        reach = self._bound("high").to(self.loc.device)
        return (self.loc - reach).detach(), (self.loc + reach).detach()

    def _kept_on_side(self, before: Tensor, after: Tensor) -> Tensor:
        start, end = self._shifted(before), self._shifted(after)
        low, high = (self._bound(name).to(end) for name in ("low", "high"))
        side = torch.where(start < 0, -1.0, 1.0)
        return (self.loc + side * (side * end).clamp(low, high)).to(after.dtype)

    # -- words -----------------------------------------------------------------------------------------

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return (high² − low²)/(2·log(high/low)); None without both. See `Prior.variance`."""
        if not self.traits.proper:
            return None
        low, high = self._bound("low"), self._bound("high")
        return plain((high.square() - low.square()) / (2.0 * (high / low).log()))

    def _why_no_map(self) -> str | None:
        """Return why there is no MAP without `low`."""
        if not self._open:
            return None
        return (
            "the log-uniform prior's density has no bound at its centre, so every weight there is a mode. Give it a "
            "bound, br.LogUniform(low=...), or use a sparse prior: br.Horseshoe(scale, coordinate='centered')"
        )

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            "No weight_decay is equivalent to a log-uniform prior, whose pull is 1/w: train it with br.attach or "
            "br.MAPTrainer."
        )

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        bounds = [f"{name} {float(self._bound(name)):.4g}" for name in ("low", "high")
                  if hasattr(self, name) and not self._bound(name).ndim]  # fmt: skip
        words = ", ".join(bounds) or ("bounds per element" if self._hyper_shape() else "without bounds")
        return f"log-uniform{'' if self.traits.proper else ' (improper)'}, {words}, {self._centre_in_words()}"
