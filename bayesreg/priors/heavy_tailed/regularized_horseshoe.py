"""The regularised horseshoe: a horseshoe whose large weights are held by a slab."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.conversion import LossScale
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, plain
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.base import ElementwisePrior
from bayesreg.priors.located.located import Loc
from bayesreg.priors.numerics.exponential_integral import scaled_exponential_integrals

__all__ = ["RegularizedHorseshoe"]

# log t of the trapezoidal rule. Its integrand is analytic in a strip: the error is below the rounding of float64.
_STEP, _FIRST, _NODES = 0.25, -80.0, 521
# Elements worked on at a time.
_CHUNK = 4096


@register_family
@final
class RegularizedHorseshoe(ElementwisePrior):
    r"""Independent elements w | λ ~ N(loc, v), 1/v = 1/(scale·λ)² + 1/slab_scale², with λ ~ half-Cauchy(0, 1).

    A horseshoe near the centre; far out the Gaussian of standard deviation slab_scale, where the horseshoe has no
    variance. With a = (w − loc)/scale, u = a²/2 and ρ = slab_scale/scale,

    ``log p(w) = Σ −a²/(2ρ²) + log[e^u·E₁(u) + ∫₀^∞ (√(1 + 1/(ρ²t)) − 1)·e^(−ut)/(1 + t) dt] − log scale − log π√(2π)``:

    the horseshoe's part in closed form, which has the pole, and a bounded integral, by a trapezoidal rule in log t that
    is exact to the rounding. Like the horseshoe's, the density has no bound at the centre and so no MAP. The slab is
    fixed; its inverse-gamma hyper-prior is not integrated.

    Args:
        scale: The global scale τ > 0, in units of the weights: a number or a tensor.
        slab_scale: Standard deviation c > 0 of the slab, in the same units.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `scale` or `slab_scale` is not > 0 or `loc` not finite.

    Example:
        >>> prior = RegularizedHorseshoe(scale=0.1, slab_scale=2.0)
        >>> round(prior.variance(), 6)  # c²·τ/(τ + c)
        0.190476

    References:
        Piironen and Vehtari (2017), Sparsity Information and Regularization in the Horseshoe and Other Shrinkage
        Priors, equation 2.8.
    """

    traits = Traits(proper=True, convex=False, smooth=False, elementwise=True, has_prox=False)
    scale: Tensor
    slab_scale: Tensor

    def __init__(self, scale: Hyperparameter, slab_scale: Hyperparameter, *, loc: Loc = 0.0) -> None:
        scale, slab = checks.positive("scale", scale), checks.positive("slab_scale", slab_scale)
        super().__init__(loc=loc, scale=scale, slab_scale=slab)

    def _parts(self, offset: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a, 1/ρ², e^u·E₁ and e^u·E₂, with 1 in place of an offset of 0."""
        a = (offset.to(torch.float64) / self.scale.to(torch.float64)).abs()
        a = torch.where(a == 0, 1.0, a)
        inverse = (self.scale.to(torch.float64) / self.slab_scale.to(torch.float64)).square().to(a.device)
        return a, inverse.expand(a.shape), *scaled_exponential_integrals(0.5 * a.square())

    def _integrals(self, a: Tensor, inverse: Tensor, powers: int) -> list[Tensor]:
        """Return ∫ t^k·(√(1 + 1/(ρ²t)) − 1)·e^(−ut)/(1 + t) dt for k = 0 … powers − 1."""
        logs = _FIRST + _STEP * torch.arange(_NODES, dtype=torch.float64, device=a.device)
        t = logs.exp()
        found: list[list[Tensor]] = [[] for _ in range(powers)]
        for part, over in zip(a.reshape(-1).split(_CHUNK), inverse.reshape(-1).split(_CHUNK), strict=True):
            ratio = over[:, None] / t
            # √(1 + x) − 1 without its cancellation; t·dlog t is dt.
            rise = ratio / (1.0 + torch.sqrt(1.0 + ratio))
            values = _STEP * rise * (t / (1.0 + t)) * torch.exp(-0.5 * part[:, None].square() * t)
            for k in range(powers):
                found[k].append((values * t**k).sum(1))
        return [torch.cat(parts).reshape(a.shape) for parts in found]

    def offset_penalty(self, offset: Tensor) -> Tensor:
        a, inverse, first, _ = self._parts(offset)
        whole = first + self._integrals(a, inverse, 1)[0]
        found = 0.5 * inverse * a.square() - whole.log()
        return torch.where(offset == 0, -math.inf, found).to(offset.dtype)

    def offset_slope(self, offset: Tensor) -> Tensor:
        a, inverse, first, second = self._parts(offset)
        zeroth, once = self._integrals(a, inverse, 2)
        falls = -2.0 * second / a - a * once
        found = (inverse * a - falls / (first + zeroth)) * offset.sign() / self.scale
        return torch.where(offset == 0, 0.0, found).to(offset.dtype)

    def offset_curvature(self, offset: Tensor) -> Tensor:
        a, inverse, first, second = self._parts(offset)
        zeroth, once, twice = self._integrals(a, inverse, 3)
        whole, falls = first + zeroth, -2.0 * second / a - a * once
        bends = 2.0 * second / a.square() - 2.0 * (second - first) - once + a.square() * twice
        found = (inverse - bends / whole + (falls / whole).square()) / self.scale.square()
        return torch.where(offset == 0, 0.0, found).to(offset.dtype)

    def log_normaliser(self) -> Tensor:
        return self.scale.to(torch.float64).log() + math.log(math.pi) + 0.5 * math.log(2.0 * math.pi)

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        over = torch.randn(like.shape, generator=generator, dtype=torch.float64, device=like.device)
        under = torch.randn(like.shape, generator=generator, dtype=torch.float64, device=like.device)
        local, slab = self.scale.to(over) * over, self.slab_scale.to(over)
        # v = (scale·λ)²·c²/(c² + (scale·λ)²) with λ = over/under.
        spread = local.abs() * slab / torch.sqrt((slab * under).square() + local.square())
        return noise * spread.to(like)

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter:
        """Return slab_scale²·scale/(scale + slab_scale); see `Prior.variance`."""
        return plain(self.slab_scale.square() * self.scale / (self.scale + self.slab_scale))

    def _why_no_map(self) -> str:
        """Return why the density has no MAP."""
        return (
            "the regularised horseshoe's density has no bound at its centre, so every weight there is a mode: it is "
            "for evidence, draws and samplers. br.Horseshoe(scale, coordinate='centered') has a sparse MAP"
        )

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            "No weight_decay is equivalent to RegularizedHorseshoe, which has no MAP: it is for evidence, draws and "
            "samplers; br.Horseshoe(scale, coordinate=...) can be trained."
        )

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return f"regularised horseshoe, {self._in_words(scale='scale', slab_scale='slab scale')}"
