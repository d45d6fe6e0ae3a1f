"""The Student-t prior: shrinks small weights like a Gaussian and lets large ones be."""

from __future__ import annotations

from typing import final

from torch import Tensor

from bayesreg._support import checks
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter
from bayesreg.priors.heavy_tailed.base import HeavyTailed
from bayesreg.priors.located.located import Loc

__all__ = ["StudentT"]


@register_family
@final
class StudentT(HeavyTailed):
    r"""Independent Student-t elements, ``log p(w) = −(df + 1)/2 · Σ log(1 + (w − loc)²/(df·scale²)) − Σ log Z``.

    Z = √(π·df)·scale·Γ(df/2)/Γ((df + 1)/2). Near the centre it pulls like a Gaussian of precision
    (df + 1)/(df·scale²), far out with ``(df + 1)/|w|``, less and less. It is not convex: a MAP may be one of several.

    Args:
        df: Degrees of freedom ν > 0; the variance is finite for ν > 2, and ν → ∞ is a Gaussian. A number or a tensor.
        scale: Width > 0, in units of the weights (not the standard deviation, which is scale·√(ν/(ν − 2))).
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `df` or `scale` is not > 0 or `loc` not finite.

    Example:
        >>> import torch
        >>> prior = StudentT(df=4, scale=0.1)
        >>> round(prior.log_prob(torch.zeros(2)).item(), 4)
        2.6435
        >>> round(prior.variance(), 6)
        0.02

    References:
        Lange, Little and Taylor (1989), Robust Statistical Modeling Using the t Distribution, equation 2.
    """

    df: Tensor
    scale: Tensor
    _flat_where_infinite = True

    def __init__(self, df: Hyperparameter, scale: Hyperparameter, *, loc: Loc = 0.0) -> None:
        super().__init__(loc=loc, df=checks.positive("df", df), scale=scale)

    def _df_and_square(self) -> tuple[Tensor, Tensor]:
        return self.df, self.df * self.scale.square()

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return f"Student-t, {self._in_words(df='df', scale='scale')}"
