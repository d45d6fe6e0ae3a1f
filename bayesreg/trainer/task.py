"""What is trained on what: shared by the full-batch solvers and the stochastic loop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from bayesreg._support.progress import progress_bar
from bayesreg._support.tables import Table
from bayesreg.conversion import LossScale
from bayesreg.data import Metric, Reading, evaluate
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.trainer.off_scale import OFF_SCALE, warn_off_scale
from bayesreg.trainer.result import FitResult, History

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """A model, its prior and likelihood, and the data.

    Attributes:
        model: The model.
        prior: The prior over it.
        reading: The likelihood, and how it reads batches.
        loader: Training batches.
        val_loader: Validation batches, or None.
        num_data: n; None where it is not known.
        loss_scale: s, of the mean NLL over examples: 1/n, or as the caller has it.
        start: When fitting began, by `time.perf_counter`.
        progress: Whether to show a bar; None: only in a terminal.
        metrics: The user's own, on validation data, by name.
    """

    model: nn.Module
    prior: ModelPrior
    reading: Reading
    loader: Any
    val_loader: Any
    num_data: float | None
    loss_scale: LossScale
    start: float
    progress: bool | None
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood."""
        return self.reading.likelihood

    @torch.no_grad()
    def prior_terms(self) -> tuple[float, float]:
        """Return penalty and constant of the log-prior, that of a learned noise included, nats."""
        own = self.likelihood.penalty()
        return float(self.prior.penalty()) + (0.0 if own is None else float(own)), float(self.prior.log_constant())

    def bar(self, total: int | None, label: str, main: bool = True) -> Any:
        """Return a progress bar."""
        return progress_bar(total, label, self.progress, main=main)

    def result(self, history: History, routes: Table, batches: Any = None, **more: Any) -> FitResult:
        """Measure the trained model and put everything together.

        Args:
            history: The records.
            routes: Which prior reached which parameters how.
            batches: All the data, where it is in memory; default the loader's.
            **more: Further fields of the result.

        Returns:
            The outcome.
        """
        device = next(self.model.parameters()).device
        own = self.likelihood.metric_name
        found = evaluate(self.model, self.reading, self.loader if batches is None else batches, device)
        self._require_scale(found[own])
        if self.val_loader is not None:
            validated = self.validated(device)
            more |= {"val_nll": validated.pop("nll"), "val_metric": validated.pop(own), "val_metrics": validated}
        return self._together(found["nll"], history, routes, **more)

    def validated(self, device: torch.device) -> dict[str, float]:
        """Return NLL, the likelihood's metric and the user's on the validation data."""
        return evaluate(self.model, self.reading, self.val_loader, device, self.metrics)

    def _require_scale(self, mean_square: float) -> None:
        noise = self.likelihood.gaussian_noise_std
        if noise is None or self.likelihood.metric_name != "mse" or not mean_square > (OFF_SCALE * noise) ** 2:
            return
        warn_off_scale(mean_square**0.5 / noise)

    def unmeasured(self, history: History, routes: Table, **more: Any) -> FitResult:
        """Return an outcome without another pass over the data: the NLL is what was met on the way."""
        kept = history[more["kept_record"] - 1] if history and more.get("kept_record") else {}
        val = {"val_nll": kept.get("val_nll"), "val_metric": kept.get(f"val_{self.likelihood.metric_name}")}
        others = {name: kept[f"val_{name}"] for name in self.metrics if f"val_{name}" in kept}
        mean_nll = kept.get("running_nll", kept.get("mean_nll", float("nan")))
        return self._together(mean_nll, history, routes, **val, val_metrics=others, measured=False, **more)

    def _together(self, mean_nll: float, history: History, routes: Table, **more: Any) -> FitResult:
        penalty, constant = self.prior_terms()
        return FitResult(
            mean_nll=mean_nll,
            log_prior=constant - penalty,
            log_prior_constant=constant,
            objective=mean_nll + self.loss_scale.value * penalty,
            num_data=self.num_data,
            loss_scale=self.loss_scale,
            history=history,
            routes=routes,
            exact_zeros=self.exact_zeros(),
            multimodal=tuple(entry.name for entry, prior in self.prior.active() if not prior.traits.convex),
            metric_name=self.likelihood.metric_name,
            seconds=time.perf_counter() - self.start,
            unit=self.likelihood.unit if self.likelihood.counts_within else "example",
            **more,
        )

    def exact_zeros(self) -> float | None:
        """Return the share of the weights under kinked priors that sit at the kink; None without such priors."""
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
