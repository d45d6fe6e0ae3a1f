"""Real targets with noise of heavy tails."""

from __future__ import annotations

import math
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError
from bayesreg.likelihoods.base import Likelihood, aligned
from bayesreg.likelihoods.local import Local

__all__ = ["StudentT"]

# Of an exponent: its square is a float still.
_LARGEST = 300.0


@final
class StudentT(Likelihood):
    """Real numbers with Student-t noise, which lets outliers be: their pull falls as one over their distance.

    −log p = ½(df + 1)·log(1 + r²/df) + log noise_scale + log Γ(df/2) − log Γ((df + 1)/2) + ½ log(π·df) for each output,
    with r = (target − output)/noise_scale, summed. It is not convex in the output.

    Args:
        df: Degrees of freedom ν > 0; 4 is common, 1 is Cauchy noise, and large ones are Gaussian.
        noise_scale: τ > 0, in the units of the target, or "learned": then log τ is a parameter without prior, which
            the trainer fits together with the weights (start: τ = 1). The standard deviation is τ·√(ν/(ν − 2)).

    Raises:
        InvalidArgumentError: If `df` is not > 0, or `noise_scale` neither a number > 0 nor "learned".

    Example:
        >>> StudentT(df=4.0, noise_scale=1.0).nll(torch.zeros(2, 1), torch.tensor([0.0, 10.0]))
        tensor([0.9808, 9.1261])

    References:
        Lange, Little and Taylor (1989), Robust Statistical Modeling Using the t Distribution, section 2.
    """

    @answering
    def __init__(self, df: float = 4.0, noise_scale: float | Literal["learned"] = "learned") -> None:
        super().__init__()
        self.df = checks.positive_float("df", df)
        self.learned = isinstance(noise_scale, str) and noise_scale == "learned"
        if isinstance(noise_scale, str) and not self.learned:
            raise InvalidArgumentError(f"noise_scale: expected a number > 0 or 'learned', got {noise_scale!r}.")
        start = 0.0 if self.learned else math.log(checks.positive_float("noise_scale", noise_scale))
        log_scale = torch.tensor(start, dtype=torch.float64)
        if self.learned:
            self.log_noise_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_noise_scale", log_scale)

    log_noise_scale: Tensor

    @property
    def noise_scale(self) -> float:
        """τ, the scale of the noise, as it is now."""
        return math.exp(float(self.log_noise_scale.detach()))

    def _constant(self) -> float:
        return math.lgamma(0.5 * self.df) - math.lgamma(0.5 * (self.df + 1.0)) + 0.5 * math.log(math.pi * self.df)

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        mean, observed = aligned(output, target, "StudentT")
        log_scale = self.log_noise_scale.to(mean)
        square = ((observed - mean) * torch.exp(-log_scale)).square()
        return (0.5 * (self.df + 1.0) * torch.log1p(square / self.df) + log_scale + self._constant()).sum(1)

    def _local(self, output: Tensor, target: Tensor) -> Local:
        mean, observed = aligned(output, target, "StudentT")
        rate = math.exp(min(-float(self.log_noise_scale.detach()), _LARGEST))
        residual = (mean - observed) * rate
        square = residual.square() / self.df
        weight = (self.df + 1.0) / self.df * rate / (1.0 + square)
        diagonal = weight * rate * (1.0 - square) / (1.0 + square)
        return Local(self.nll(output, target).detach(), weight * residual, diagonal)

    def settings(self) -> dict[str, Any]:
        """See `Likelihood.settings`."""
        return {"df": self.df, "noise_scale": self.noise_scale, "learned": self.learned}

    def predictive(self, output: Tensor) -> torch.distributions.StudentT:
        return torch.distributions.StudentT(self.df, output, self.log_noise_scale.exp().to(output))

    def _middle(self, output: Tensor) -> Tensor:
        # Of at most one degree of freedom there is no mean.
        return output

    def describe(self) -> str:
        """Return how reports call the likelihood."""
        return f"StudentT(df={self.df:g}, noise_scale={self.noise_scale:.4g}{', learned' if self.learned else ''})"
