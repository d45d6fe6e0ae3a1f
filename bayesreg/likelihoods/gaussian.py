"""Real targets with Gaussian noise."""

from __future__ import annotations

import math
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError, kind_of
from bayesreg.hyperpriors import HyperPrior
from bayesreg.likelihoods.base import Likelihood, aligned
from bayesreg.likelihoods.local import Local

__all__ = ["Gaussian"]

# Of an exponent: beyond it there is no float.
_LARGEST = 700.0


@final
class Gaussian(Likelihood):
    """Real numbers with Gaussian noise: ½((target − output)/noise_std)² + log noise_std + ½ log 2π, summed.

    Args:
        noise_std: τ > 0, in the units of the target, or "learned": then log τ is a parameter without prior, which
            the trainer fits together with the weights (start: τ = 1).
        prior: Of a learned noise: `br.hyperpriors.HalfNormal(scale)` of τ, `InverseGamma(concentration, rate)` of τ²,
            or another hyperprior. What is maximised is its density of log τ, the coordinate that is fitted. Default:
            none, which is flat in log τ.

    Raises:
        InvalidArgumentError: If `noise_std` is neither, or there is a prior on a noise that is not learned.

    Example:
        >>> Gaussian(noise_std=0.5).nll(torch.zeros(1, 1), torch.tensor([1.0]))
        tensor([2.2258])
    """

    @answering
    def __init__(self, noise_std: float | Literal["learned"], *, prior: HyperPrior | None = None) -> None:
        super().__init__()
        self.learned = isinstance(noise_std, str) and noise_std == "learned"
        if isinstance(noise_std, str) and not self.learned:
            raise InvalidArgumentError(f"noise_std: expected a number > 0 or 'learned', got {noise_std!r}.")
        if not (prior is None or isinstance(prior, HyperPrior)):
            raise InvalidArgumentError(
                f"prior: expected a hyperprior such as br.hyperpriors.HalfNormal(1.0), got {kind_of(prior)}."
            )
        if prior is not None and not self.learned:
            raise InvalidArgumentError(
                "prior: is on a noise that is learned; leave it out, or say noise_std='learned'."
            )
        self.prior = prior
        start = 0.0 if self.learned else math.log(checks.positive_float("noise_std", noise_std))
        log_std = torch.tensor(start, dtype=torch.float64)
        if self.learned:
            self.log_noise_std = nn.Parameter(log_std)
        else:
            self.register_buffer("log_noise_std", log_std)

    log_noise_std: Tensor

    @property
    def noise_std(self) -> float:
        """τ, the standard deviation of the noise, as it is now."""
        return math.exp(float(self.log_noise_std.detach()))

    @property
    def gaussian_noise_std(self) -> float:
        """See `Likelihood.gaussian_noise_std`."""
        return self.noise_std

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        mean, observed = aligned(output, target, "Gaussian")
        log_std = self.log_noise_std.to(mean)
        squared = 0.5 * ((observed - mean) * torch.exp(-log_std)).square()
        return (squared + log_std + 0.5 * math.log(2.0 * math.pi)).sum(1)

    def _local(self, output: Tensor, target: Tensor) -> Local:
        mean, observed = aligned(output, target, "Gaussian")
        log_std = float(self.log_noise_std.detach())
        precision, residual = math.exp(min(-2.0 * log_std, _LARGEST)), mean - observed
        nll = 0.5 * precision * residual.square().sum(1) + mean.shape[1] * (log_std + 0.5 * math.log(2.0 * math.pi))
        return Local(nll, precision * residual, precision)

    def settings(self) -> dict[str, Any]:
        """See `Likelihood.settings`."""
        prior = None if self.prior is None else self.prior.to_dict()
        return {"noise_std": self.noise_std, "learned": self.learned, "prior": prior}

    def penalty(self) -> Tensor | None:
        """Return −log p(log τ), nats; see `Likelihood.penalty`."""
        return None if self.prior is None else -self.prior.log_scale_density(self.log_noise_std)[0]

    def predictive(self, output: Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(output, self.log_noise_std.exp().to(output))

    def describe(self) -> str:
        """Return how reports call the likelihood."""
        under = "" if self.prior is None else f" under {self.prior!r}"
        return f"Gaussian(noise_std={self.noise_std:.4g}{', learned' if self.learned else ''}{under})"
