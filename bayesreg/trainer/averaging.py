"""Averages of the weights along the way, by torch's own `AveragedModel`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bayesreg._support import checks
from bayesreg._support.calls import answering_class
from bayesreg.errors import InvalidArgumentError
from bayesreg.model_prior import ModelPrior
from bayesreg.trainer.stepping.guard import Snapshot

__all__ = ["Averager", "WeightAverage"]

# Of the epochs, the share before stochastic weight averaging begins.
_BEFORE_SWA = 0.75


@answering_class
@dataclass(frozen=True)
class WeightAverage:
    """How weights are averaged while they move; the average is what is validated, compared and kept.

    "ema": θ̄ ← decay·θ̄ + (1 − decay)·θ after each step. "swa": the equal mean of the weights at the ends of epochs. Both
    by `torch.optim.swa_utils.AveragedModel`, buffers (the statistics of batch norms) included.

    Args:
        kind: "ema" or "swa".
        decay: Of "ema", in (0, 1): the average reaches back about 1/(1 − decay) steps, which should be a small part
            of the training. Default 0.999.
        start: Epoch, from 1, from which is averaged. Default 1 for "ema", after three quarters of them for "swa".
        keep_zeros: Whether a weight that sits on its prior's kink (an exact zero of a sparse MAP) is there in the
            average too. Default True; a plain average of weights that left zero and came back has hardly any zeros.

    Raises:
        InvalidArgumentError: If one is out of range.

    Example:
        >>> import bayesreg as br
        >>> br.WeightAverage("ema", decay=0.99)
        WeightAverage(kind='ema', decay=0.99, start=None, keep_zeros=True)

    References:
        Polyak and Juditsky (1992); Izmailov et al. (2018), Averaging Weights Leads to Wider Optima, Algorithm 1.
    """

    kind: Literal["ema", "swa"] = "ema"
    decay: float = 0.999
    start: int | None = None
    keep_zeros: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("ema", "swa"):
            raise InvalidArgumentError(f"kind: expected 'ema' or 'swa', got {self.kind!r}.")
        if not 0.0 < checks.finite_float("decay", self.decay) < 1.0:
            raise InvalidArgumentError(f"decay: expected a number between 0 and 1, got {self.decay:g}.")
        if self.start is not None:
            checks.positive_int("start", self.start)
        checks.flag("keep_zeros", self.keep_zeros)

    def _begins(self, epochs: float) -> int:
        """Return the epoch from which is averaged, of so many.

        Args:
            epochs: How many there are at most.

        Returns:
            The epoch, from 1.

        Raises:
            InvalidArgumentError: If it is not given and cannot be said, or beyond the last.
        """
        if self.start is not None:
            if self.start > epochs:
                raise InvalidArgumentError(f"average: begins in epoch {self.start}, and there are {epochs:g}.")
            return self.start
        if self.kind == "ema":
            return 1
        if math.isinf(epochs):
            raise InvalidArgumentError(
                "average: how many epochs there will be is not known; pass start= or max_epochs=."
            )
        return 1 + int(_BEFORE_SWA * epochs)


class Averager:
    """The running average of a model.

    Args:
        model: The model.
        prior: The prior over it.
        how: What is averaged.
        epochs: How many there are at most.
    """

    def __init__(self, model: nn.Module, prior: ModelPrior, how: WeightAverage, epochs: float) -> None:
        self._model, self._prior, self._how = model, prior, how
        self._begins = how._begins(epochs)
        rule = get_ema_multi_avg_fn(how.decay) if how.kind == "ema" else None
        self._averaged = AveragedModel(model, multi_avg_fn=rule, use_buffers=True)

    @property
    def ready(self) -> bool:
        """Whether there is an average yet."""
        return int(self._averaged.n_averaged) > 0

    def after_step(self, epoch: int) -> None:
        """Take in the weights after a step."""
        if self._how.kind == "ema" and epoch >= self._begins:
            self._averaged.update_parameters(self._model)

    def after_epoch(self, epoch: int) -> None:
        """Take in the weights at the end of an epoch."""
        if self._how.kind == "swa" and epoch >= self._begins:
            self._averaged.update_parameters(self._model)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the average in the model for a while."""
        if not self.ready:
            yield
            return
        before = Snapshot(self._model)
        self.put()
        try:
            yield
        finally:
            before.restore()

    @torch.no_grad()
    def put(self) -> None:
        """Put the average into the model, for good."""
        at_kinks = [
            (entry.parameter, mask, entry.parameter[mask].clone())
            for entry, prior in self._prior.kinked()
            if self._how.keep_zeros and bool((mask := prior.at_kink(entry.parameter)).any())
        ]
        self._model.load_state_dict(self._averaged.module.state_dict())
        for parameter, mask, values in at_kinks:
            parameter[mask] = values

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return dict(self._averaged.state_dict())

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        self._averaged.load_state_dict(state)
