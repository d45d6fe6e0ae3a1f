"""Binary targets."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesreg.errors import DataError
from bayesreg.likelihoods.base import Likelihood, aligned
from bayesreg.likelihoods.local import Local

__all__ = ["Bernoulli"]


@final
class Bernoulli(Likelihood):
    """Zeros and ones from logits: −target·log σ(output) − (1 − target)·log(1 − σ(output)), summed per example.

    Targets may be probabilities in [0, 1] (soft labels).

    Example:
        >>> Bernoulli().nll(torch.zeros(2, 1), torch.tensor([0.0, 1.0]))
        tensor([0.6931, 0.6931])
    """

    metric_name = "accuracy"

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        logits, labels = aligned(output, target, "Bernoulli")
        if bool(((labels < 0) | (labels > 1)).any()):
            raise DataError(
                f"Bernoulli: expected targets in [0, 1], got values from {labels.min():g} to {labels.max():g}."
            )
        return _nll(logits, labels)

    def _local(self, output: Tensor, target: Tensor) -> Local:
        logits, labels = aligned(output, target, "Bernoulli")
        share = torch.sigmoid(logits)
        # 1 − share would round where the share is nearly 1.
        return Local(_nll(logits, labels), share - labels, share * torch.sigmoid(-logits))

    def predictive(self, output: Tensor) -> torch.distributions.Bernoulli:
        return torch.distributions.Bernoulli(logits=output)

    def settings(self) -> dict[str, Any]:
        """See `Likelihood.settings`."""
        return {}

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        logits, labels = aligned(output, target, "Bernoulli")
        return ((logits > 0) == (labels > 0.5)).to(output.dtype).mean(1)


def _nll(logits: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1)
