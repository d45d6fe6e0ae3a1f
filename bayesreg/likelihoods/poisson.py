"""Counts."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from bayesreg.errors import DataError
from bayesreg.likelihoods.base import Likelihood, aligned
from bayesreg.likelihoods.local import Local

__all__ = ["Poisson"]


@final
class Poisson(Likelihood):
    """Counts from log rates: exp(output) − target·output + log target!, summed per example.

    Example:
        >>> Poisson().nll(torch.zeros(1, 1), torch.tensor([2.0]))
        tensor([1.6931])
    """

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        log_rate, counts = aligned(output, target, "Poisson")
        if bool((counts < 0).any()):
            raise DataError(f"Poisson: expected counts >= 0 as targets, got a smallest value of {counts.min():g}.")
        return (log_rate.exp() - counts * log_rate + torch.lgamma(counts + 1.0)).sum(1)

    def _local(self, output: Tensor, target: Tensor) -> Local:
        log_rate, counts = aligned(output, target, "Poisson")
        rate = log_rate.exp()
        return Local(self.nll(output, target), rate - counts, rate)

    def settings(self) -> dict[str, Any]:
        """See `Likelihood.settings`."""
        return {}

    def predictive(self, output: Tensor) -> torch.distributions.Poisson:
        return torch.distributions.Poisson(output.exp())
