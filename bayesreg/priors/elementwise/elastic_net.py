"""The elastic net prior: L1 and L2 together, with the normaliser that most codes leave out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self, final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, plain
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.base import ElementwisePrior, soft_threshold
from bayesreg.priors.located.located import Loc

__all__ = ["ElasticNet"]


@register_family
@final
class ElasticNet(ElementwisePrior):
    r"""Independent elements with ``log p(w) = −Σ [l1·|r| + l2·r²/2] − Σ log Z``, r = w − loc.

    log Z = ½·log(2π/l2) + log erfcx(l1/√(2·l2)). Its MAP has exact zeros, like a Laplace prior's, and large weights
    are shrunk in proportion, like a Gaussian's. l1 → 0 is the Gaussian of precision l2, l2 → 0 the Laplace of scale
    1/l1.

    Args:
        l1: Rate > 0 of the absolute part, in 1/units of the weights: a number or a tensor.
        l2: Precision > 0 of the square part, in the ½ convention: a number or a tensor.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `l1` or `l2` is not > 0 (the limits are `Gaussian` and `Laplace`) or `loc` not finite.

    Example:
        >>> import torch
        >>> ElasticNet(l1=2.0, l2=1.0).prox(torch.tensor([0.5, 3.0]), step=0.5)
        tensor([0.0000, 1.3333])
        >>> ElasticNet.from_penalties(1e-4, 5e-4, 50_000)
        ElasticNet(l1=5, l2=25, loc=0)

    References:
        Zou and Hastie (2005), Regularization and Variable Selection via the Elastic Net, section 3.1; Li and Lin
        (2010), The Bayesian Elastic Net, equation 3.
    """

    traits = Traits(proper=True, convex=True, smooth=False, elementwise=True, has_prox=True)
    l1: Tensor
    l2: Tensor

    def __init__(self, l1: Hyperparameter, l2: Hyperparameter, *, loc: Loc = 0.0) -> None:
        for name, rate, limit in (("l1", l1, "br.Gaussian(scale=l2**-0.5)"), ("l2", l2, "br.Laplace(scale=1/l1)")):
            if isinstance(rate, int | float) and rate == 0:
                raise InvalidArgumentError(f"{name}: expected a value > 0, got 0; without it the prior is {limit}.")
        super().__init__(loc=loc, l1=checks.positive("l1", l1), l2=checks.positive("l2", l2))

    @classmethod
    @answering
    def from_penalties(cls, l1_coefficient: float, weight_decay: float, num_data: int | LossScale) -> Self:
        """Return the prior of loss + l1_coefficient·‖w‖₁ + (weight_decay/2)·‖w‖².

        scikit-learn's (alpha, l1_ratio) are converted by `br.sklearn_to_elastic_net_rates`.

        Args:
            l1_coefficient: The factor > 0 of ‖w‖₁ in the training loss.
            weight_decay: λ > 0, in the ½ convention.
            num_data: Size of the training set of a mean loss, or the `LossScale` of another.

        Returns:
            The prior with l1 = l1_coefficient/s and l2 = weight_decay/s.

        Raises:
            InvalidArgumentError: If a coefficient is not > 0.

        Example:
            >>> ElasticNet.from_penalties(0.01, 0.1, 100)
            ElasticNet(l1=1, l2=10, loc=0)
        """
        s = as_loss_scale(num_data).value
        l1 = checks.positive_float("l1_coefficient", l1_coefficient)
        return cls(l1=l1 / s, l2=checks.positive_float("weight_decay", weight_decay) / s)

    def _rates(self) -> tuple[Tensor, Tensor]:
        return self.l1.detach(), self.l2.detach()

    def offset_penalty(self, offset: Tensor) -> Tensor:
        return self.l1 * offset.abs() + 0.5 * self.l2 * offset.square()

    def offset_slope(self, offset: Tensor) -> Tensor:
        return self.l1 * offset.sign() + self.l2 * offset

    def offset_curvature(self, offset: Tensor) -> Tensor:
        """Return l2, the curvature on either side of the kink."""
        return torch.zeros_like(offset) + self.l2

    def log_normaliser(self) -> Tensor:
        l1, l2 = self.l1.to(torch.float64), self.l2.to(torch.float64)
        # erfcx(x) = e^(x²)·erfc(x): the plain form underflows from l1 = 40·√l2 on.
        return 0.5 * (math.log(2.0 * math.pi) - l2.log()) + _erfcx(l1 / (2.0 * l2).sqrt()).log()

    def offset_prox(self, offset: Tensor, step: Tensor) -> Tensor:
        return soft_threshold(offset, (step * self.l1).to(offset.dtype)) / (1.0 + step * self.l2).to(offset.dtype)

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        # |r|·√l2 is a standard normal beyond a = l1/√l2, less a.
        l1, l2 = (held.to(like.device, torch.float64) for held in (self.l1, self.l2))
        a = (l1 / l2.sqrt()).expand(like.shape)
        log_u = -torch.empty(like.shape, dtype=torch.float64, device=like.device).exponential_(generator=generator)
        size = _tail_quantile(a, log_u) / l2.sqrt()
        sign = torch.randint(0, 2, like.shape, generator=generator, device=like.device).mul_(2).sub_(1)
        return (size * sign).to(like)

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter:
        """Return (1 + a² − a·√(2/π)/erfcx(a/√2))/l2 with a = l1/√l2; see `Prior.variance`."""
        l1, l2 = self.l1.to(torch.float64), self.l2.to(torch.float64)
        a = l1 / l2.sqrt()
        # The Mills ratio m = erfcx(a/√2)·√(π/2); for large a, 1 + a² − a/m by its series, which does not cancel.
        mills = _erfcx(a / math.sqrt(2.0)) * math.sqrt(math.pi / 2.0)
        square = a.square().clamp_min(1.0)
        series = (2.0 - 10.0 / square + 74.0 / square**2 - 706.0 / square**3 + 8162.0 / square**4) / square
        return plain(torch.where(a > 25.0, series, 1.0 + a.square() - a / mills) / l2)

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        l1, l2 = self.penalties(loss_scale)
        size = "" if isinstance(l1, Tensor) or isinstance(l2, Tensor) else f" of {l1:.3g} beside a decay of {l2:.3g}"
        return (
            f"No weight_decay is equivalent to an elastic net prior: it is an L1 coefficient{size} "
            f"(prior.penalties(loss_scale)). Train it with br.attach or br.MAPTrainer, which take proximal steps."
        )

    @answering
    def penalties(self, num_data: int | LossScale) -> tuple[Hyperparameter, Hyperparameter]:
        """Return (s·l1, s·l2): the factor of ‖w‖₁ and the weight decay of ½‖w‖² in the training loss.

        Args:
            num_data: Size of the training set of a mean loss, or the `LossScale` of another.

        Returns:
            Two numbers, or tensors where the hyper-parameters are.

        Example:
            >>> ElasticNet(l1=5.0, l2=25.0).penalties(50_000)
            (0.0001, 0.0005)
        """
        s = as_loss_scale(num_data).value
        return plain(s * self.l1), plain(s * self.l2)

    def times(self, factor: float) -> Self:
        """Return the elastic net of factor·l1 and factor·l2; see `Prior.times`."""
        return self.with_powers(factor, l1=1.0, l2=1.0)

    def _near(self, loss_scale: LossScale, shape: Sequence[int] | None) -> str:
        l1, l2 = self.penalties(loss_scale)
        if isinstance(l1, Tensor) or isinstance(l2, Tensor):
            return super()._near(loss_scale, shape)
        return f"none; L1 coefficient {l1:.4g} and decay {l2:.4g}"

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return f"elastic net, {self._in_words(l1='l1', l2='l2')}"


def _tail_quantile(a: Tensor, log_u: Tensor) -> Tensor:
    """Return y > 0 with P(Z > a + y) = u·P(Z > a) for a standard normal Z, by Newton steps on the logarithm."""

    def log_survival(x: Tensor) -> Tensor:
        return _erfcx(x / math.sqrt(2.0)).log()

    start = log_survival(a)
    y = torch.zeros_like(a)
    # The logarithm is concave: from y = 0 the first step is too long, and all others fall onto the root from above.
    for _ in range(60):
        x = a + y
        excess = log_survival(x) - start - a * y - 0.5 * y.square() - log_u
        rate = math.sqrt(2.0 / math.pi) / _erfcx(x / math.sqrt(2.0))
        new = (y + excess / rate).clamp_min(0.0)
        if bool(((new - y).abs() <= 1e-14 * new).all()):
            return new
        y = new
    return y


def _erfcx(x: Tensor) -> Tensor:
    """Return e^(x²)·erfc(x)."""
    result: Tensor = torch.special.erfcx(x)
    return result
