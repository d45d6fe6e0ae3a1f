"""The logistic prior: a Gaussian near the centre, a Laplace far out, smooth throughout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, plain
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.base import ElementwisePrior
from bayesreg.priors.located.located import Loc
from bayesreg.priors.numerics.roots import increasing_root

__all__ = ["Logistic"]


@register_family
@final
class Logistic(ElementwisePrior):
    r"""Independent logistic elements, ``log p(w) = −Σ [|r|/s + 2·log((1 + e^(−|r|/s))/2)] − Σ log 4s``.

    r = w − loc and s = scale. Convex and smooth: it pulls like a Gaussian of precision 1/(2·scale²) near the centre
    and with the constant 1/scale of a Laplace far out, without exact zeros.

    Args:
        scale: Width > 0, in units of the weights: a number, a tensor that broadcasts to the parameter, or an
            `nn.Parameter` when it is learned.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `scale` is not > 0 or `loc` not finite.

    Example:
        >>> import torch
        >>> prior = Logistic(scale=1.0)
        >>> round(prior.log_prob(torch.zeros(1)).item(), 4)  # log ¼
        -1.3863
        >>> round(prior.variance(), 4)  # π²/3
        3.2899

    References:
        Johnson, Kotz and Balakrishnan (1995), Continuous Univariate Distributions 2, chapter 23.
    """

    traits = Traits(proper=True, convex=True, smooth=True, elementwise=True, has_prox=True)
    scale: Tensor

    def __init__(self, scale: Hyperparameter, *, loc: Loc = 0.0) -> None:
        super().__init__(loc=loc, scale=checks.positive("scale", scale))

    def offset_penalty(self, offset: Tensor) -> Tensor:
        # 2·log cosh(r/2s) in a form that neither overflows nor, near 0, cancels; and smooth to autograd at 0.
        half = 0.5 * offset / self.scale
        return torch.where(half.abs() < 0.5, _log_cosh_small(half), _log_cosh_large(half)) * 2.0

    def offset_slope(self, offset: Tensor) -> Tensor:
        return (0.5 * offset / self.scale).tanh() / self.scale

    def offset_curvature(self, offset: Tensor) -> Tensor:
        # sech² by its exponential: 1 − tanh² would be 0 long before it is.
        decay = (-(offset / self.scale).abs()).exp()
        return 2.0 * decay / (1.0 + decay).square() / self.scale.square()

    def log_normaliser(self) -> Tensor:
        return (4.0 * self.scale.to(torch.float64)).log()

    def offset_prox(self, offset: Tensor, step: Tensor) -> Tensor:
        scale = self.scale.to(torch.float64)
        v = (offset.abs() / scale).to(torch.float64)
        h = (step / scale.square()).to(torch.float64).expand_as(v)

        def slope(u: Tensor) -> tuple[Tensor, Tensor]:
            pull = (0.5 * u).tanh()
            return u - v + h * pull, 1.0 + 0.5 * h * (1.0 - pull.square())

        # The pull is at most h.
        best = increasing_root(slope, (v - h).clamp_min(0.0), v)
        return (best * scale * offset.sign()).to(offset.dtype)

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        # The difference of two Gumbels: uniform draws never reach 0 or 1 in it.
        first, second = (
            torch.empty_like(like).exponential_(generator=generator).clamp_min_(torch.finfo(like.dtype).tiny).log_()
            for _ in range(2)
        )
        return self.scale.to(like) * (first - second)

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter:
        """Return π²·scale²/3; see `Prior.variance`."""
        return plain(math.pi**2 / 3.0 * self.scale.square())

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return f"logistic, {self._in_words(scale='scale')}"


def _log_cosh_small(x: Tensor) -> Tensor:
    """Return log cosh x = −½·log(1 − tanh²x) for small x, of which larger ones are kept away."""
    inside = torch.where(x.abs() < 0.5, x, 0.0)
    return -0.5 * (-inside.tanh().square()).log1p()


def _log_cosh_large(x: Tensor) -> Tensor:
    size = x.abs()
    return size + (-2.0 * size).exp().log1p() - math.log(2.0)
