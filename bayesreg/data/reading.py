"""How batches become numbers: what goes in, what comes out, what counts how much."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bayesreg.data.batch import Batch, BatchFormat, to_device
from bayesreg.data.metrics import Metric, Metrics
from bayesreg.data.size import Counting, count_of
from bayesreg.likelihoods import Likelihood
from bayesreg.likelihoods.output import OutputPick, tensor_output

__all__ = ["Reading", "evaluate", "in_evaluation"]

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Reading:
    """A likelihood on batches of one form.

    Attributes:
        likelihood: The likelihood.
        form: Which entry of a batch is the target, which the sample weights.
        pick: Which output of the model the likelihood takes.
        counting: What n is, and how much of it a batch is.
    """

    likelihood: Likelihood
    form: BatchFormat = field(default_factory=BatchFormat)
    pick: OutputPick | None = None
    counting: Counting = field(default_factory=lambda: Counting(None))

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the model's output, in float32 or better."""
        output = tensor_output(model, batch.inputs, self.pick)
        return output.float() if output.dtype in _HALF else output

    def nll(self, output: Tensor, batch: Batch) -> Tensor:
        """Return the batch's NLL, nats, summed as its examples count."""
        each = self.likelihood.nll(output, batch.target)
        return self._weighted(each, batch).sum()

    def _weighted(self, each: Tensor, batch: Batch) -> Tensor:
        return each if batch.weight is None else each * (self.counting.factor * batch.weight.to(each))

    @torch.no_grad()
    def count(self, batch: Batch) -> float:
        """Return how much of n the batch holds."""
        if batch.weight is None and not self.likelihood.counts_within:
            return float(len(batch.target))
        return self.counting.factor * float(count_of(self.likelihood, batch).sum())

    @torch.no_grad()
    def metric(self, output: Tensor, batch: Batch) -> float:
        """Return the likelihood's metric, summed as examples count."""
        return float(self._weighted(self.likelihood.metric(output, batch.target), batch).sum())


@torch.no_grad()
def evaluate(
    model: nn.Module,
    reading: Reading,
    batches: Iterable[Any],
    device: torch.device,
    metrics: Mapping[str, Metric] | None = None,
) -> dict[str, float]:
    """Return mean NLL, the likelihood's metric and others, in evaluation mode; NaN from the first NLL that is.

    Args:
        model: The model; its modes are as before afterwards.
        reading: How to read batches.
        batches: The data.
        device: Where the model is.
        metrics: Others, by name.

    Returns:
        "nll" and the likelihood's metric, per example as examples count, and the others.
    """
    own = reading.likelihood.metric_name
    nll, metric, count = 0.0, 0.0, 0.0
    others = Metrics(metrics or {})
    with in_evaluation(model):
        for batch in map(reading.form, batches):
            here = to_device(batch, device)
            output = reading.output(model, here)
            nll += float(reading.nll(output, here))
            if not abs(nll) < float("inf"):
                return {"nll": nll, own: float("nan"), **dict.fromkeys(metrics or {}, float("nan"))}
            metric += reading.metric(output, here)
            count += reading.count(here)
            others.update(output, here.target)
    return {"nll": nll / (count or 1.0), own: metric / (count or 1.0), **others.compute()}


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and every module back in its own afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
