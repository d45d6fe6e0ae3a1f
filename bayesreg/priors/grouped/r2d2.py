"""R2D2: weights that share what they explain, so that R² has a Beta density."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, summed
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.grouped import groups
from bayesreg.priors.located.located import Loc, LocatedPrior

if TYPE_CHECKING:
    from bayesreg.priors.grouped.shared_rate import Array, SharedRate

__all__ = ["R2D2"]

# Beyond it a density is that of a Gaussian whose scale the weights share, and Bessel functions overflow.
_MOST = 50.0


@register_family
@final
class R2D2(LocatedPrior):
    r"""Rows of p weights with w_j | λ_j ~ N(loc, scale²·λ_j), λ_j | ξ ~ Gamma(concentration, ξ), ξ ~ Gamma(tail, 1).

    All λ_j and ξ are integrated out: with a = concentration, b = tail, ν = a − ½ and z_j = √(2ξ)·\|w_j − loc\|/scale,
    ``p(w) = ∫ Gamma(ξ; b, 1)·Π_j √(2ξ/π)·(z_j/2)^ν·K_ν(z_j)/(scale·Γ(a)) dξ``, to 13 digits by quadrature. The sum of
    the λ_j is BetaPrime(p·a, b), split among them as Dirichlet(a, ..., a). Where p standardised predictors that are
    not correlated meet noise of std `scale`, the share of the variance that they explain, R², is therefore
    Beta(p·a, b): what one believes of a regression before one sees it, as one number per model and not per weight. For
    a mean R² of m take tail = p·a·(1 − m)/m.

    A row is what one output sums over: all elements of a parameter that share its first index (of a Linear the weights
    of one output unit), and a whole vector.

    The smaller a, the more is left to few weights. For a <= ½ the density has no bound where a weight is at its
    centre, for a <= 1 it has a kink there that joins the row: evidence and draws, no MAP. For a > 1 it is smooth.
    SciPy computes it on the CPU, a hundred nodes or more for each weight: for tables, not for large networks.

    Args:
        concentration: a, in (0, 50]: a number.
        tail: b > 0, a number: the tails of a weight fall as \|w\|^(−2b − 1), and its variance is finite for b > 1.
            Default ½, the tails of a Cauchy.
        scale: Std of the noise, > 0, in units of the weights of standardised predictors: a number. Default 1.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `concentration`, `tail` or `scale` is no number in its range or `loc` not finite.

    Example:
        >>> import torch
        >>> import bayesreg as br
        >>> prior = br.R2D2(concentration=1.5, tail=5.0)
        >>> round(prior.log_prob(torch.tensor([[0.3, 0.0, -0.1]])).item(), 4)
        -0.5616
        >>> prior.variance()  # a·scale²/(b − 1)
        0.375

    References:
        Zhang, Naughton, Bondell and Reich (2022), Bayesian Regression Using a Prior on the Model Fit: The R2-D2
        Shrinkage Prior, with a Gaussian in place of the double exponential kernel.
    """

    concentration: Tensor
    tail: Tensor
    scale: Tensor

    def __init__(
        self,
        concentration: Hyperparameter,
        tail: Hyperparameter = 0.5,
        scale: Hyperparameter = 1.0,
        *,
        loc: Loc = 0.0,
    ) -> None:
        each = checks.positive_float("concentration", concentration)
        if each > _MOST:
            raise InvalidArgumentError(
                f"concentration: expected a number in (0, {_MOST:g}], got {each:g}; the variances of so many are all "
                f"alike: br.HierarchicalGaussian(br.hyperpriors.InverseGamma(tail, concentration * scale**2), None, "
                f"'row')."
            )
        super().__init__(
            loc=loc,
            concentration=each,
            tail=checks.positive_float("tail", tail),
            scale=checks.positive_float("scale", scale),
        )
        self.traits = Traits(proper=True, convex=False, smooth=each > 1.0, elementwise=False, has_prox=False)

    def _rate(self) -> SharedRate:
        # SciPy loads on use.
        from bayesreg.priors.grouped.shared_rate import SharedRate

        return SharedRate(float(self.concentration), float(self.tail), float(self.scale))

    def _whole_in_shards(self, parameter: Tensor) -> bool:
        return parameter.ndim > 1 and groups.rows_are_whole(parameter)

    # -- the contract ----------------------------------------------------------------------------------

    def penalty(self, value: Tensor) -> Tensor:
        self._check_shape(value.shape)
        offset = self._shifted(value)
        if not offset.numel():
            return summed(offset)
        found: Tensor = self._penalty(offset)
        return found

    # SciPy's functions are nothing that a compiler should look into.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _penalty(self, offset: Tensor) -> Tensor:
        rate = self._rate()
        return _Penalty.apply(offset, rate, _peak(rate, _rows(offset).shape[1]))  # type: ignore[no-any-return]

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        count = math.prod(shape)
        rows = shape[0] if len(shape) > 1 else 1
        constant = rows * _peak(self._rate(), count // rows) if count else 0.0
        return torch.tensor(constant, dtype=torch.float64)

    @torch.no_grad()
    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        for grad, value in zip(grads, values, strict=True):
            self._check_shape(value.shape)
            offset = self._shifted(value)
            if offset.numel():
                grad.add_(_asked(self._rate().slope, offset), alpha=-coefficient)

    @torch.no_grad()
    def curvature(self, value: Tensor) -> Tensor:
        offset = self._shifted(value.detach())
        return -_asked(self._rate().diagonal, offset) if offset.numel() else offset

    @torch.no_grad()
    def curvature_times(self, value: Tensor, vector: Tensor) -> Tensor:
        offset = self._shifted(value.detach())
        return -_asked(self._rate().times, offset, vector) if offset.numel() else offset

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        wide = torch.float64 if like.device.type != "mps" else like.dtype
        shape = [like.shape[0], *(1,) * (like.ndim - 1)] if like.ndim > 1 else [1] * like.ndim
        rate = torch._standard_gamma(like.new_full(shape, float(self.tail), dtype=wide), generator=generator)
        shares = torch._standard_gamma(
            like.new_full(like.shape, float(self.concentration), dtype=wide), generator=generator
        )
        noise = torch.randn(like.shape, generator=generator, dtype=wide, device=like.device)
        return (noise * (shares / rate).sqrt() * float(self.scale)).to(like.dtype)

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return concentration·scale²/(tail − 1); None for a tail of at most 1. See `Prior.variance`."""
        a, b, s = float(self.concentration), float(self.tail), float(self.scale)
        return a * s**2 / (b - 1.0) if b > 1.0 else None

    def stretched(self, factor: float) -> Self:
        """Return the prior of deviations `factor` times as large; see `Prior.stretched`."""
        return self.with_powers(factor, scale=1.0)

    def _why_no_map(self) -> str | None:
        a = float(self.concentration)
        if a > 1.0:
            return None
        what = (
            "has no bound where a weight is at its centre, so that every such place is a mode"
            if a <= 0.5
            else "has a kink at the centre that joins the weights of a row, and no proximal step is known"
        )
        return (
            f"with a concentration of {a:g} the density {what}: it is for evidence and draws. Use a concentration over "
            f"1, br.Laplace, or br.Horseshoe(scale, 'centered') for weights that are exactly 0"
        )

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            "No weight_decay is equivalent to R2D2: its pull on a weight follows from the others of its row. Train it "
            "with br.attach or br.MAPTrainer, which add its gradient."
        )

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        a, b, s = float(self.concentration), float(self.tail), float(self.scale)
        return f"R2D2 by row, R² of p weights ~ Beta({a:g}·p, {b:g}) at noise std {s:g}, {self._centre_in_words()}"


def _peak(rate: SharedRate, size: int) -> float:
    """Return what of log p is no part of the penalty: its peak, where it has one, else what the scale adds."""
    return rate.log_peak(size) if rate.order > 0.0 else -size * math.log(rate.scale)


def _rows(offset: Tensor) -> Tensor:
    return offset.reshape(len(offset), -1) if offset.ndim > 1 else offset.reshape(1, -1)


def _asked(question: Callable[..., Array], offset: Tensor, *others: Tensor) -> Tensor:
    """Return what the density has to say of each row (on the CPU), or of each weight; NaN where a row is not finite."""
    rows, *more = (_rows(one).to("cpu", torch.float64) for one in (offset, *others))
    bad = ~rows.isfinite().all(1)
    found = torch.from_numpy(question(rows.masked_fill(bad[:, None], 1.0).numpy(), *(one.numpy() for one in more)))
    found[bad] = math.nan
    return found.to(offset).reshape(offset.shape) if found.ndim > 1 else found


class _Penalty(torch.autograd.Function):
    """−log p but for its peak, as a function that autograd may follow twice."""

    @staticmethod
    def forward(offset: Tensor, rate: SharedRate, peak: float) -> Tensor:
        total = (peak - _asked(rate.log_density, offset.detach())).sum()
        # Apple's accelerator has no float64.
        return total.to(offset.device, torch.float32 if offset.device.type == "mps" else torch.float64)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        offset, ctx.rate, _ = inputs
        ctx.save_for_backward(offset)

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:
        (offset,) = ctx.saved_tensors
        return above[0].to(offset) * _Slope.apply(offset, ctx.rate), None, None


class _Slope(torch.autograd.Function):
    """The gradient of −log p; its own derivative is a symmetric matrix."""

    @staticmethod
    def forward(offset: Tensor, rate: SharedRate) -> Tensor:
        return -_asked(rate.slope, offset.detach())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        offset, ctx.rate = inputs
        ctx.save_for_backward(offset)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:
        (offset,) = ctx.saved_tensors
        return -_asked(ctx.rate.times, offset, above[0]), None
