"""A mixture of Gaussians of several widths about one centre: spike and slab."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self, final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.base import ElementwisePrior
from bayesreg.priors.located.located import Loc
from bayesreg.priors.numerics.minima import lowest_minimum

__all__ = ["ScaleMixture"]

# Points at which the proximal operator looks for minima.
_GRID = 400


@register_family
@final
class ScaleMixture(ElementwisePrior):
    r"""Independent elements with ``log p(w) = Σ log Σ_k weights_k · N(w; loc, scales_k²)``, a mixture per element.

    Computed in log space throughout. A narrow and a wide component are a spike and a slab: weights near the centre
    are pulled hard, large ones hardly. It is not convex; with well-separated scales a problem can have many local
    modes (`MAPTrainer(..., starts=...)` looks for them).

    Args:
        weights: Mixing weights > 0 that sum to 1: a sequence or a tensor, one per component.
        scales: Standard deviations > 0, in units of the weights, one per component.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `weights` or `scales` is out of range or their lengths differ.

    Example:
        >>> import torch
        >>> prior = ScaleMixture.spike_and_slab(spike_scale=0.01, slab_scale=1.0, slab_weight=0.2)
        >>> prior
        ScaleMixture(weights=<tensor (2,)>, scales=<tensor (2,)>, loc=0)
        >>> prior.slab_probability(torch.tensor([0.0, 0.05])).round(decimals=3)
        tensor([0.0020, 0.9990])

    References:
        George and McCulloch (1993), Variable Selection via Gibbs Sampling, section 2; Blundell, Cornebise,
        Kavukcuoglu and Wierstra (2015), Weight Uncertainty in Neural Networks, equation 7.
    """

    traits = Traits(proper=True, convex=False, smooth=True, elementwise=True, has_prox=True)
    _not_shaped = frozenset({"weights", "scales"})
    weights: Tensor
    scales: Tensor

    def __init__(self, weights: Sequence[float] | Tensor, scales: Sequence[float] | Tensor, *, loc: Loc = 0.0) -> None:
        mixing, widths = checks.positive_vector("weights", weights), checks.positive_vector("scales", scales)
        if len(mixing) != len(widths):
            raise InvalidArgumentError(
                f"weights, scales: expected one weight per scale, got {len(mixing)} weights and {len(widths)} scales."
            )
        total = float(mixing.detach().sum())
        if abs(total - 1.0) > 1e-6:
            raise InvalidArgumentError(f"weights: expected weights that sum to 1, got a sum of {total:.6g}.")
        super().__init__(loc=loc, weights=mixing, scales=widths)

    @classmethod
    @answering
    def spike_and_slab(cls, spike_scale: float, slab_scale: float, slab_weight: float = 0.5, *, loc: Loc = 0.0) -> Self:
        """Return the mixture of a narrow and a wide Gaussian.

        Args:
            spike_scale: Standard deviation > 0 of weights that do not matter.
            slab_scale: Standard deviation > spike_scale of those that do.
            slab_weight: Prior probability, in (0, 1), that a weight matters.
            loc: The centre. Default 0.

        Returns:
            The prior.

        Raises:
            InvalidArgumentError: If an argument is out of range.

        Example:
            >>> ScaleMixture.spike_and_slab(0.01, 1.0, slab_weight=0.1).describe()
            'mixture of Gaussians, std 0.01 (90%), 1 (10%), centred on 0'
        """
        spike = checks.positive_float("spike_scale", spike_scale)
        slab = checks.positive_float("slab_scale", slab_scale)
        share = checks.positive_float("slab_weight", slab_weight)
        if share >= 1.0:
            raise InvalidArgumentError(f"slab_weight: expected a value in (0, 1), got {share:g}.")
        if slab <= spike:
            raise InvalidArgumentError(f"slab_scale: expected a value > spike_scale, {spike:g}, got {slab:g}.")
        return cls(weights=[1.0 - share, share], scales=[spike, slab], loc=loc)

    def _components(self) -> list[tuple[Tensor, Tensor]]:
        """Return (log weight − log scale, scale) of each component, as scalars."""
        # The weights sum to 1 to six digits; the density is that of the normalised ones.
        log_weights = (self.weights / self.weights.sum()).log()
        heights = log_weights - self.scales.log()
        return list(zip(heights.unbind(), self.scales.unbind(), strict=True))

    def _shares(self, offset: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the probability of each component given the offset, and the components' precisions."""
        parts = self._components()
        widest = self.scales.max()
        # Less the widest component's exponent: its own is then 0 wherever r² leaves the dtype, and the others' −∞.
        logs = torch.stack([
            height
            - torch.where(scale < widest, 0.5 * (offset / scale).square() * (1.0 - (scale / widest).square()), 0.0)
            for height, scale in parts
        ])
        return list(logs.softmax(0).unbind()), [scale.square().reciprocal() for _, scale in parts]

    def offset_penalty(self, offset: Tensor) -> Tensor:
        parts = self._components()
        # Relative to the centre, so that the penalty is 0 there and loses no digits to the normaliser.
        top = torch.stack([height for height, _ in parts]).logsumexp(0)
        logs = [height - top - 0.5 * (offset / scale).square() for height, scale in parts]
        return -torch.stack(logs).logsumexp(0)

    def offset_slope(self, offset: Tensor) -> Tensor:
        shares, precisions = self._shares(offset)
        return offset * sum(share * precision for share, precision in zip(shares, precisions, strict=True))

    def offset_curvature(self, offset: Tensor) -> Tensor:
        shares, precisions = self._shares(offset)
        pairs = list(zip(shares, precisions, strict=True))
        mean = sum((share * precision for share, precision in pairs), torch.zeros_like(offset))
        spread = sum((share * (precision - mean).square() for share, precision in pairs), torch.zeros_like(offset))
        return mean - offset.square() * spread

    def log_normaliser(self) -> Tensor:
        heights = torch.stack([height.to(torch.float64) for height, _ in self._components()])
        return 0.5 * math.log(2.0 * math.pi) - heights.logsumexp(0)

    @torch.no_grad()
    def offset_prox(self, offset: Tensor, step: Tensor) -> Tensor:
        v = offset.abs().to(torch.float64)
        h = step.to(v.device, torch.float64).expand_as(v)
        scales = self.scales.to(v.device, torch.float64)

        def objective(x: Tensor) -> Tensor:
            return (x - v).square() / (2.0 * h) + self.offset_penalty(x)

        def slope(x: Tensor) -> tuple[Tensor, Tensor]:
            return x - v + h * self.offset_slope(x), 1.0 + h * self.offset_curvature(x)

        # Every stationary point is v/(1 + h·E) with the expected precision E between those of the components. There
        # may be several minima: each cell of a grid in which the slope turns positive holds one; the lowest counts.
        low, high = v / (1.0 + h / scales.min() ** 2), v / (1.0 + h / scales.max() ** 2)
        ratio = torch.where(low > 0, high / low, 1.0)

        def places(shares: Tensor) -> Tensor:
            return low * ratio.pow(shares.reshape(-1, *[1] * v.ndim))

        shares = torch.linspace(0.0, 1.0, _GRID + 1, dtype=v.dtype, device=v.device)
        found = lowest_minimum(objective, slope, places, shares, v.numel())
        return (found * offset.sign()).to(offset.dtype)

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        which = torch.multinomial(
            self.weights.detach().to(like.device), max(like.numel(), 1), replacement=True, generator=generator
        )
        noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        return noise * self.scales.detach().to(like)[which[: like.numel()]].reshape(like.shape)

    def slab_probability(self, value: Tensor) -> Tensor:
        """Return the probability that each element comes from the widest component, given its value.

        Args:
            value: The parameter.

        Returns:
            Tensor of the shape of `value`, in [0, 1].
        """
        shares, _ = self._shares(self._shifted(value.detach()))
        return shares[int(self.scales.argmax())].detach()

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter:
        """Return Σ_k weights_k·scales_k²; see `Prior.variance`."""
        return float((self.weights * self.scales.square()).sum() / self.weights.sum())

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        pairs = zip(self.scales.tolist(), self.weights.tolist(), strict=True)
        parts = ", ".join(f"{scale:.4g} ({weight:.3g}%)" for scale, weight in ((s, 100 * w) for s, w in pairs))
        return f"mixture of Gaussians, std {parts}, {self._centre_in_words()}"
