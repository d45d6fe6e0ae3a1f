"""What is trained on what: shared by the full-batch solvers and the stochastic loop."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bayesreg._support.progress import progress_bar
from bayesreg._support.tables import Table
from bayesreg.conversion import LossScale
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.trainer.loop import evaluate
from bayesreg.trainer.result import FitResult, History

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """A model, its prior and likelihood, and the data.

    Attributes:
        model: The model.
        prior: The prior over it.
        likelihood: The likelihood.
        loader: Training batches.
        val_loader: Validation batches, or None.
        num_data: n; None where it is not known.
        loss_scale: s, of the mean NLL over examples: 1/n, or as the caller has it.
        start: When fitting began, by `time.perf_counter`.
        progress: Whether to show a bar; None: only in a terminal.
    """

    model: nn.Module
    prior: ModelPrior
    likelihood: Likelihood
    loader: Any
    val_loader: Any
    num_data: int | None
    loss_scale: LossScale
    start: float
    progress: bool | None

    @torch.no_grad()
    def prior_terms(self) -> tuple[float, float]:
        """Return penalty and constant of the log-prior, that of a learned noise included, nats."""
        own = self.likelihood.penalty()
        return float(self.prior.penalty()) + (0.0 if own is None else float(own)), float(self.prior.log_constant())

    def bar(self, total: int, label: str, main: bool = True) -> Any:
        """Return a progress bar."""
        return progress_bar(total, label, self.progress, main=main)

    def result(self, batches: Any, history: History, routes: Table, **more: Any) -> FitResult:
        """Measure the trained model and put everything together."""
        device = next(self.model.parameters()).device
        mean_nll, _ = evaluate(self.model, self.likelihood, batches, device)
        penalty, constant = self.prior_terms()
        val_nll, val_metric = (None, None)
        if self.val_loader is not None:
            val_nll, val_metric = evaluate(self.model, self.likelihood, self.val_loader, device)
        return FitResult(
            mean_nll=mean_nll,
            log_prior=constant - penalty,
            log_prior_constant=constant,
            objective=mean_nll + self.loss_scale.value * penalty,
            num_data=self.num_data,
            loss_scale=self.loss_scale,
            history=history,
            routes=routes,
            exact_zeros=self._exact_zeros(),
            multimodal=tuple(entry.name for entry, prior in self.prior.active() if not prior.traits.convex),
            val_nll=val_nll,
            val_metric=val_metric,
            metric_name=self.likelihood.metric_name,
            seconds=time.perf_counter() - self.start,
            **more,
        )

    def _exact_zeros(self) -> float | None:
        kinked = [
            (e.parameter, p)
            for e, p in self.prior.kinked()
            if p.traits.has_prox
            # Bounds are no centre to sit on.
            and not all(part.bounds() is not None for part in p.parts)
        ]
        if not kinked:
            return None
        zeros = sum(int(p.at_kink(parameter).sum()) for parameter, p in kinked)
        return zeros / sum(parameter.numel() for parameter, _ in kinked)
