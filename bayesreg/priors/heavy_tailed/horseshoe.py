"""The horseshoe prior: a spike without bound at zero, tails as heavy as Cauchy's; and what its MAP is."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, final, get_args

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError, nearest
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.base import ElementwisePrior
from bayesreg.priors.heavy_tailed.horseshoe_profiles import PROFILES, Centered
from bayesreg.priors.located.located import Loc
from bayesreg.priors.numerics.exponential_integral import scaled_exponential_integrals, scaled_gap

__all__ = ["Coordinate", "Horseshoe"]

Coordinate: TypeAlias = Literal["centered", "noncentered"]


@register_family
@final
class Horseshoe(ElementwisePrior):
    r"""Independent horseshoe elements: w | λ ~ N(loc, scale²·λ²) with λ ~ half-Cauchy(0, 1), each its own.

    ``log p(w) = Σ log[e^u·E₁(u)] − log scale − ½·log 2π³``, u = (w − loc)²/(2·scale²), exactly. The density has no
    bound at the centre, so that *every* weight there is a mode: there is no MAP. It is for evidence, draws, samplers.
    What is called its MAP is a maximum over w and λ together, and depends on the coordinate that λ is written in, which
    is therefore named:

    - "centered": over (w, log λ). −log p = ½·a·s + log(1 + a/s), s = 4/(a + √(a² + 8)), a the distance from loc over
      scale: a kink of slope √2/scale at the centre and logarithmic tails. Sparse, and large weights are left alone.
    - "noncentered": over (z, log λ) with w = loc + scale·λ·z. Smooth at the centre, of curvature 1/scale²: *nothing* is
      sparse. It is what samplers' models become when they are optimized.

    These are improper, as maxima over λ are no densities of w.

    Args:
        scale: The global scale τ > 0, in units of the weights: a number or a tensor.
        coordinate: None (default), the density, which cannot be trained; "centered" or "noncentered".
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `scale` is not > 0, `coordinate` is none of these or `loc` not finite.

    Example:
        >>> round(Horseshoe(scale=1.0).log_prob(torch.tensor([2.0])).item(), 4)
        -3.0816
        >>> Horseshoe(scale=0.1, coordinate="centered").prox(torch.tensor([0.1, 2.0]), step=0.02)
        tensor([0.0000, 1.9799])

    References:
        Carvalho, Polson and Scott (2010), The Horseshoe Estimator for Sparse Signals, section 1 and theorem 1 (bounds
        of the density, which is exact here).
    """

    scale: Tensor

    def __init__(self, scale: Hyperparameter, coordinate: Coordinate | None = None, *, loc: Loc = 0.0) -> None:
        known = get_args(Coordinate)
        if coordinate is not None and coordinate not in known:
            raise InvalidArgumentError(
                f"coordinate: expected None or one of {', '.join(map(repr, known))}, got {coordinate!r}"
                f"{nearest(str(coordinate), known)}."
            )
        super().__init__(loc=loc, scale=checks.positive("scale", scale))
        self.coordinate: Coordinate | None = coordinate
        centred = coordinate == "centered"
        self.traits = Traits(
            proper=coordinate is None,
            convex=False,
            smooth=coordinate == "noncentered",
            elementwise=True,
            has_prox=centred,
        )

    def _u(self, offset: Tensor) -> Tensor:
        return 0.5 * (offset.to(torch.float64) / self.scale).square()

    def offset_penalty(self, offset: Tensor) -> Tensor:
        if self.coordinate is not None:
            return PROFILES[self.coordinate].penalty((offset / self.scale).abs()).to(offset.dtype)
        u = self._u(offset)
        at = u == 0
        logarithm = scaled_exponential_integrals(torch.where(at, 1.0, u))[0].log()
        return torch.where(at, -math.inf, -logarithm).to(offset.dtype)

    def offset_slope(self, offset: Tensor) -> Tensor:
        scaled = offset / self.scale
        if self.coordinate is not None:
            return PROFILES[self.coordinate].slope(scaled.abs()) * scaled.sign() / self.scale
        u = self._u(offset)
        at = u == 0
        first, second = scaled_exponential_integrals(torch.where(at, 1.0, u))
        # 1/(u·g) − 1 = e^u·E₂/(u·g), without the cancellation; at the pole the subgradient 0.
        pull = second / (torch.where(at, 1.0, u) * first)
        return torch.where(at, 0.0, scaled / self.scale * pull).to(offset.dtype)

    def offset_curvature(self, offset: Tensor) -> Tensor:
        if self.coordinate is not None:
            a = (offset / self.scale).abs()
            return PROFILES[self.coordinate].curvature(a) / self.scale.square()
        u = self._u(offset)
        at = u == 0
        safe = torch.where(at, 1.0, u)
        first, second = scaled_exponential_integrals(safe)
        pull = second / (safe * first)
        bent = pull - 2.0 * safe * (1.0 + pull) * scaled_gap(safe, first, second)
        return (torch.where(at, 0.0, bent) / self.scale.square()).to(offset.dtype)

    def offset_prox(self, offset: Tensor, step: Tensor) -> Tensor:
        if self.coordinate != "centered":
            return super().offset_prox(offset, step)
        scale = self.scale.to(torch.float64)
        v = offset.abs().to(torch.float64) / scale
        found = Centered.prox(v, step.to(torch.float64) / scale.square())
        return (found * scale * offset.sign()).to(offset.dtype)

    def log_normaliser(self) -> Tensor:
        if self.coordinate is not None:
            return torch.zeros((), dtype=torch.float64)
        return self.scale.to(torch.float64).log() + 0.5 * math.log(2.0 * math.pi**3)

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        # A half-Cauchy local scale for every element, as the ratio of two normals: none is shared.
        over = torch.randn(like.shape, generator=generator, dtype=torch.float64, device=like.device)
        under = torch.randn(like.shape, generator=generator, dtype=torch.float64, device=like.device)
        return noise * (over / under).abs().to(like) * self.scale.to(like)

    def _why_improper(self) -> str:
        return "a maximum over local scales and no density: draw from Horseshoe(scale), without a coordinate"

    def saved_options(self) -> dict[str, Any]:
        return {} if self.coordinate is None else {"coordinate": self.coordinate}

    def _why_no_map(self) -> str | None:
        """Return why the density has no MAP, None for the coordinates that have one."""
        if self.coordinate is not None:
            return None
        return (
            "the horseshoe's density has no bound at its centre, so every weight there is a mode. Name the coordinate "
            "of the local scales to be maximised over: Horseshoe(scale, coordinate='centered') is sparse, "
            "'noncentered' is smooth"
        )

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            "No weight_decay is equivalent to Horseshoe: train it with br.attach or br.MAPTrainer, in a coordinate "
            "that you name; weight_decay_readings(loss_scale, at=weights) has what comes near."
        )

    def __repr__(self) -> str:
        return super().__repr__().replace(", loc=", f", coordinate={self.coordinate!r}, loc=", 1)

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        which = "" if self.coordinate is None else f" maximised over local scales ({self.coordinate}, improper)"
        return f"horseshoe{which}, {self._in_words(scale='scale')}"
