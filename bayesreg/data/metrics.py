"""Metrics of one's own, measured beside the likelihood's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.errors import DataError, InvalidArgumentError, kind_of

__all__ = ["Metric", "Metrics", "check_metrics"]

#: A function of all outputs and all targets, or an object that is given batches (torchmetrics).
Metric: TypeAlias = "Callable[[Tensor, Tensor], Any]"


def _has_memory(metric: object) -> bool:
    return all(callable(getattr(metric, name, None)) for name in ("update", "compute", "reset"))


def check_metrics(metrics: Mapping[str, Metric] | None, taken: str) -> dict[str, Metric]:
    """Return metrics by name, raising for what is none.

    Args:
        metrics: What the user gave.
        taken: The name of the likelihood's own metric.

    Returns:
        The metrics.

    Raises:
        InvalidArgumentError: If it is no mapping of functions, or a name is taken.
    """
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise InvalidArgumentError(
            f"metrics: expected functions by name, such as {{'f1': f1}}, got {kind_of(metrics)}."
        )
    for name, metric in metrics.items():
        if not isinstance(name, str) or not name or name in ("nll", taken):
            raise InvalidArgumentError(f"metrics: expected a name other than 'nll' and {taken!r}, got {name!r}.")
        if not _has_memory(metric):
            checks.accepts(f"metrics[{name!r}]", metric, 2, "outputs and targets")
    return dict(metrics)


class Metrics:
    """Several metrics over one pass.

    Args:
        metrics: By name. What has update, compute and reset is given batch after batch; functions are called once,
            with all outputs and targets, so that what is no mean over examples (F1, AUC) is right too.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self._fed = {name: metric for name, metric in metrics.items() if _has_memory(metric)}
        self._called = {name: metric for name, metric in metrics.items() if name not in self._fed}
        self._order = list(metrics)
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []
        for metric in self._fed.values():
            metric.reset()  # type: ignore[attr-defined]

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take a batch.

        Args:
            output: The model's output.
            target: The targets.
        """
        for metric in self._fed.values():
            metric.update(output, target)  # type: ignore[attr-defined]
        if self._called:
            self._outputs.append(output)
            self._targets.append(target)

    def compute(self) -> dict[str, float]:
        """Return the values by name.

        Returns:
            The values.

        Raises:
            DataError: If outputs of different lengths cannot be put together, or a metric is no number.
        """
        found = {name: metric.compute() for name, metric in self._fed.items()}  # type: ignore[attr-defined]
        if self._called and self._outputs:
            try:
                output, target = torch.cat(self._outputs), torch.cat(self._targets)
            except RuntimeError as error:
                raise DataError(
                    f"metrics: {', '.join(self._called)} are functions of all outputs at once, which differ in shape "
                    f"from batch to batch ({error}); give an object with update, compute and reset."
                ) from error
            found |= {name: metric(output, target) for name, metric in self._called.items()}
        return {name: _number(name, found[name]) for name in self._order if name in found}


def _number(name: str, value: Any) -> float:
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"metrics[{name!r}]: expected one number, got {kind_of(value)} ({error}).") from error
