"""Student's t in terms of its degrees of freedom and scale: what StudentT, Cauchy and NormalGamma share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from bayesreg.priors.contract.tensors import Hyperparameter, plain
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.base import ElementwisePrior
from bayesreg.priors.numerics.roots import increasing_root

__all__ = ["HeavyTailed"]

# Distances from the centre, in widths, beyond which 1 + u² = u² in float64 too.
_FAR = 1e9


class HeavyTailed(ElementwisePrior, ABC):
    """Student's t with df degrees of freedom ν and width s: −log p = (ν + 1)/2 · log(1 + r²/(νs²)) + const."""

    traits = Traits(proper=True, convex=False, smooth=True, elementwise=True, has_prox=True)

    @abstractmethod
    def _df_and_square(self) -> tuple[Tensor, Tensor]:
        """Return ν and νs²."""

    def offset_penalty(self, offset: Tensor) -> Tensor:
        df, square = self._df_and_square()
        size = (offset / square.sqrt()).abs()
        # Where 1 + u² is u² to the last digit, and u² may leave the dtype.
        far = size > _FAR
        near = torch.where(far, 0.0, size)
        return 0.5 * (df + 1.0) * torch.where(far, 2.0 * torch.where(far, size, 1.0).log(), near.square().log1p())

    def offset_slope(self, offset: Tensor) -> Tensor:
        df, square = self._df_and_square()
        root = square.sqrt()
        scaled = offset / root
        # u/(1 + u²) without the square; 1/(1/0 + 0) is 0.
        return (df + 1.0) / root / (scaled.reciprocal() + scaled)

    def offset_curvature(self, offset: Tensor) -> Tensor:
        df, square = self._df_and_square()
        size = (offset / square.sqrt()).abs()
        u = torch.where(size > _FAR, 0.0, size).square()
        bent = torch.where(size > _FAR, -size.reciprocal().square(), (1.0 - u) / (1.0 + u).square())
        return (df + 1.0) / square * bent

    def log_normaliser(self) -> Tensor:
        df, square = (part.to(torch.float64) for part in self._df_and_square())
        half = 0.5 * df
        # Γ(h + ½)/Γ(h) by its series where lgamma's two large values would cancel.
        series = 0.5 * half.log() - 1.0 / (8.0 * half) + 1.0 / (192.0 * half**3) - 1.0 / (640.0 * half**5)
        ratio = torch.where(half > 200.0, series, torch.lgamma(half + 0.5) - torch.lgamma(half))
        return 0.5 * (square.log() + math.log(math.pi)) - ratio

    def offset_prox(self, offset: Tensor, step: Tensor) -> Tensor:
        df, square = self._df_and_square()
        root = square.sqrt().to(torch.float64)
        v = (offset.abs() / root).to(torch.float64)
        # In units of √(νs²): minimise (u − v)²/2 + h/2 · log(1 + u²); stationary where u − v + h·u/(1 + u²) = 0.
        h = (step * (df + 1.0) / square).to(torch.float64).expand_as(v)

        def slope(u: Tensor) -> tuple[Tensor, Tensor]:
            w = 1.0 + u.square()
            return u - v + h * u / w, 1.0 + h * (2.0 - w) / w.square()

        # For h > 8 the slope falls between two turning points and there may be a minimum on either side of them.
        gap = (h.square() - 8.0 * h).clamp_min(0.0).sqrt()
        turns = h > 8.0
        # The smaller root of q² − hq + 2h, without cancellation; q = 1 + u².
        first = torch.where(turns, (4.0 * h / (h + gap) - 1.0).clamp_min(0.0).sqrt(), v)
        second = torch.where(turns, (0.5 * (h + gap) - 1.0).clamp_min(0.0).sqrt(), torch.zeros_like(v))
        near = increasing_root(slope, torch.zeros_like(v), torch.minimum(first, v))
        far = increasing_root(slope, torch.minimum(second, v), v)

        def objective(u: Tensor) -> Tensor:
            return 0.5 * (u - v).square() + 0.5 * h * u.square().log1p()

        best = torch.where(objective(far) < objective(near), far, near)
        return torch.where(root.isinf(), offset, best * root * offset.sign()).to(offset.dtype)

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        df, square = (part.to(like) for part in self._df_and_square())
        noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        # In float64: the gamma of few degrees of freedom comes near 0, which float32 would round to it.
        shape = (0.5 * df).to(torch.float64).expand(like.shape).contiguous()
        gamma = torch._standard_gamma(shape, generator=generator)
        return noise * (0.5 * square / gamma).sqrt().to(like)

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return νs²/(ν − 2), None for ν <= 2, where it is infinite; see `Prior.variance`."""
        df, square = self._df_and_square()
        if bool((df <= 2.0).any()):
            return None
        return plain(square / (df - 2.0))
