"""The normal-gamma prior: a Gaussian whose precision is unknown, integrated out."""

from __future__ import annotations

from typing import final

from torch import Tensor

from bayesreg._support import checks
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter
from bayesreg.priors.heavy_tailed.base import HeavyTailed
from bayesreg.priors.located.located import Loc

__all__ = ["NormalGamma"]


@register_family
@final
class NormalGamma(HeavyTailed):
    r"""Elements w ~ N(loc, 1/λ) with λ ~ Gamma(concentration, rate) each, the precision λ integrated out.

    ``log p(w) = −(a + ½)·Σ log(1 + (w − loc)²/(2b)) − Σ [½ log 2πb + log Γ(a) − log Γ(a + ½)]`` with a =
    concentration and b = rate: a Student-t with df = 2a and scale² = b/a.

    Args:
        concentration: a > 0; the variance is finite for a > 1. A number or a tensor that broadcasts to the parameter.
        rate: b > 0, in squared units of the weights; the mean precision is a/b.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `concentration` or `rate` is not > 0 or `loc` not finite.

    Example:
        >>> import torch
        >>> import bayesreg as br
        >>> w = torch.tensor([0.3, -1.0])
        >>> a, b = NormalGamma(concentration=2, rate=0.5), br.StudentT(df=4, scale=0.5)
        >>> torch.allclose(a.log_prob(w), b.log_prob(w))
        True

    References:
        Bishop (2006), Pattern Recognition and Machine Learning, equation 2.158.
    """

    concentration: Tensor
    rate: Tensor

    def __init__(self, concentration: Hyperparameter, rate: Hyperparameter, *, loc: Loc = 0.0) -> None:
        super().__init__(
            loc=loc, concentration=checks.positive("concentration", concentration), rate=checks.positive("rate", rate)
        )

    def _df_and_square(self) -> tuple[Tensor, Tensor]:
        return 2.0 * self.concentration, 2.0 * self.rate

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return f"normal-gamma, {self._in_words(concentration='concentration', rate='rate')}"
