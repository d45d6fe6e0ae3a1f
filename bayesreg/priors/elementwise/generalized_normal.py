"""The generalized normal prior: from sparser than L1 to flatter than L2, by one power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self, final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.contract.quadratic import Quadratic
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, plain
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.base import ElementwisePrior, soft_threshold
from bayesreg.priors.located.located import Loc
from bayesreg.priors.numerics.roots import increasing_root

__all__ = ["GeneralizedNormal"]


@register_family
@final
class GeneralizedNormal(ElementwisePrior):
    r"""Independent elements with ``log p(w) = −Σ |(w − loc)/scale|^power − Σ log(2·scale·Γ(1 + 1/power))``.

    power = 1 is Laplace(scale), power = 2 the Gaussian of standard deviation scale/√2. Below 1 it is not convex and
    sparser than L1; up to 1 its MAP has exact zeros; above 1 it is smooth.

    Args:
        power: The exponent p > 0, one number.
        scale: Width > 0, in units of the weights: a number, a tensor that broadcasts to the parameter, or an
            `nn.Parameter` when it is learned.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `power` or `scale` is not > 0, `power` is not one number or `loc` not finite.

    Example:
        >>> import torch
        >>> GeneralizedNormal(power=0.5, scale=0.1).prox(torch.tensor([0.2, 2.0]), step=0.1)
        tensor([0.0000, 1.8848])
        >>> round(GeneralizedNormal(power=4, scale=1.0).variance(), 4)
        0.338

    References:
        Nadarajah (2005), A Generalized Normal Distribution, equations 1 and 5.
    """

    power: Tensor
    scale: Tensor

    def __init__(self, power: float, scale: Hyperparameter, *, loc: Loc = 0.0) -> None:
        checked = checks.positive("power", power)
        if isinstance(checked, Tensor):
            if checked.numel() != 1 or checked.requires_grad:
                raise InvalidArgumentError(
                    f"power: expected one fixed number, got a tensor of shape {tuple(checked.shape)}."
                )
            checked = float(checked)
        super().__init__(loc=loc, power=checked, scale=checks.positive("scale", scale))
        self._take_power()

    def _take_power(self) -> None:
        self._p = p = float(self.power)
        self.traits = Traits(proper=True, convex=p >= 1, smooth=p > 1, elementwise=True, has_prox=True)

    def _load_from_state_dict(self, *arguments: Any, **keywords: Any) -> None:
        super()._load_from_state_dict(*arguments, **keywords)
        self._take_power()

    def offset_penalty(self, offset: Tensor) -> Tensor:
        scaled = (offset / self.scale).abs()
        if self._p >= 1.0:
            return scaled if self._p == 1.0 else scaled.pow(self._p)
        # The slope of 0^p is infinite: at the kink autograd, too, takes the subgradient 0.
        return torch.where(scaled > 0, scaled, 1.0).pow(self._p) * (scaled > 0)

    def offset_slope(self, offset: Tensor) -> Tensor:
        scaled = offset / self.scale
        size = scaled.abs()
        # 0^(p − 1) is infinite below power 1: at the kink the subgradient 0 is taken.
        size = torch.where(size == 0, 1.0, size).pow(self._p - 1.0) * (size != 0)
        return self._p / self.scale * size * scaled.sign()

    def offset_curvature(self, offset: Tensor) -> Tensor:
        p, size = self._p, (offset / self.scale).abs()
        if p > 1.0:
            # Between 1 and 2 it is truly infinite at the centre.
            return p * (p - 1.0) / self.scale.square() * size.pow(p - 2.0)
        bent = torch.where(size == 0, 1.0, size).pow(p - 2.0) * (size != 0)
        return p * (p - 1.0) / self.scale.square() * bent

    def log_normaliser(self) -> Tensor:
        return (2.0 * self.scale.to(torch.float64)).log() + math.lgamma(1.0 + 1.0 / self._p)

    def offset_prox(self, offset: Tensor, step: Tensor) -> Tensor:
        p = self._p
        if p == 1.0:
            return soft_threshold(offset, step / self.scale)
        scale = self.scale.to(torch.float64)
        v = (offset.abs() / scale).to(torch.float64)
        # In units of the scale: minimise (u − v)²/2 + h·u^p; stationary where u + h·p·u^(p − 1) = v.
        h = (step / scale.square()).to(torch.float64).expand_as(v)

        def slope(u: Tensor) -> tuple[Tensor, Tensor]:
            pull = h * p * u.pow(p - 1.0)
            return u + pull - v, 1.0 + (p - 1.0) * pull / u

        if p > 1.0:
            best = increasing_root(slope, torch.zeros_like(v), v, start=v if p > 2.0 else None)
        else:
            # Beyond its least value the left side increases: the minimum that is not at 0 lies there, if anywhere.
            turn = (h * p * (1.0 - p)).pow(1.0 / (2.0 - p))
            exists = (turn < v) & (slope(turn)[0] <= 0)
            best = increasing_root(slope, torch.where(exists, turn, v), v, start=v)
            stays = exists & (0.5 * (best - v).square() + h * best.pow(p) < 0.5 * v.square())
            best = torch.where(stays, best, 0.0)
        return (best * scale * offset.sign()).to(offset.dtype)

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        # In float64: the gamma of small shapes comes near 0.
        shape = torch.full(like.shape, 1.0 / self._p, dtype=torch.float64, device=like.device)
        size = torch._standard_gamma(shape, generator=generator).pow(1.0 / self._p)
        sign = torch.randint(0, 2, like.shape, generator=generator, device=like.device).mul_(2).sub_(1)
        return (size * sign * self.scale).to(like)

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return scale²·Γ(3/power)/Γ(1/power), None where no float holds it; see `Prior.variance`."""
        logarithm = math.lgamma(3.0 / self._p) - math.lgamma(1.0 / self._p)
        if logarithm > 700.0:
            return None
        ratio = math.exp(logarithm)
        return plain(ratio * self.scale.square())

    def quadratic(self) -> Quadratic | None:
        """Return the parabola of power 2, of variance scale²/2; None of any other power. See `Prior.quadratic`."""
        return self.parabola(0.5 * self.scale.square()) if self._p == 2.0 else None

    def times(self, factor: float) -> Self:
        """Return the prior of scale/factor^(1/power); see `Prior.times`."""
        return self.with_powers(factor, scale=-1.0 / self._p)

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return f"generalized normal, power {self._p:.4g}, {self._in_words(scale='scale')}"
