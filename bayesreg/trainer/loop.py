"""The stochastic training loop: one epoch, one step, one place where the order is decided."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from bayesreg.data import as_pair, moved
from bayesreg.errors import DataError, NonFiniteObjectiveError
from bayesreg.likelihoods import Likelihood
from bayesreg.likelihoods.output import tensor_output
from bayesreg.routes.attach import Handle
from bayesreg.trainer.guard import Snapshot, first_non_finite, stop

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Loop", "evaluate", "windows"]

Batch = tuple[Tensor, Tensor]


def windows(loader: Iterable[Batch], length: int) -> Iterator[list[Batch]]:
    """Group batches into the windows of gradient accumulation; the last one may be shorter.

    Args:
        loader: The batches.
        length: Batches per window.

    Yields:
        The windows.

    Example:
        >>> [len(w) for w in windows([1, 2, 3, 4, 5], 2)]
        [2, 2, 1]
    """
    window: list[Batch] = []
    for batch in loader:
        window.append(batch)
        if len(window) == length:
            yield window
            window = []
    if window:
        yield window


class Loop:
    """What one epoch needs.

    Order within a step: backward (each micro-batch weighted by its share of the window) → unscale → prior gradient →
    clip → step (native decay, proximal step) → learning-rate schedule.

    Args:
        accelerator: Device, precision and processes.
        model: The model, as the accelerator prepared it.
        likelihood: The likelihood.
        optimizer: The optimizer.
        handle: The attached prior.
        scheduler: Stepped after each optimizer step, or None.
        clip_norm: Largest gradient norm, or None.
        accumulate: Micro-batches per step.
        loss_scale: What a prior on the likelihood's own parameters is multiplied by.
        precision: "no", "bf16" or "fp16". Handled here: Accelerate fixes it once per process, for everybody in it.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        likelihood: Likelihood,
        optimizer: Optimizer,
        handle: Handle,
        scheduler: Any | None,
        clip_norm: float | None,
        accumulate: int,
        precision: str,
        loss_scale: float,
    ) -> None:
        self.accelerator, self.model, self.likelihood = accelerator, model, likelihood
        self.optimizer, self.handle, self.scheduler = optimizer, handle, scheduler
        self.clip_norm, self.accumulate = clip_norm, accumulate
        self.loss_scale = loss_scale
        self.half = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        if not accelerator.unwrap_model(model).training:
            # A model in evaluation mode is put in training mode as a whole; in one that trains already, modules that
            # were frozen by .eval() stay so.
            model.train()
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=self.half is torch.float16)

    def named(self) -> list[tuple[str, Tensor]]:
        """Return all trained parameters by name."""
        inner = self.accelerator.unwrap_model(self.model)
        extra = [(f"likelihood.{n}", p) for n, p in self.likelihood.named_parameters()]
        return [*inner.named_parameters(), *extra]

    def epoch(self, loader: Iterable[Batch], number: int, good: Snapshot) -> float:
        """Train one epoch; return the mean NLL that was met on the way."""
        total, examples, index = 0.0, 0, 0
        for index, window in enumerate(windows(loader, self.accumulate), start=1):
            try:
                nll, count = self.step(window, number, index, good)
            except NonFiniteObjectiveError as error:
                if error.epoch:
                    raise
                # From a prior on a function, which knows of no epochs.
                good.restore()
                raise NonFiniteObjectiveError(
                    f"epoch {number}, batch {index}: {error} The last good weights are back in the model.",
                    epoch=number, batch=index, parameter=error.parameter,
                ) from error  # fmt: skip
            total, examples = total + nll, examples + count
        if examples == 0:
            raise DataError(
                "train: the loader gave no examples, so nothing was trained (drop_last=True with fewer examples than a "
                "batch does that)."
            )
        bad = first_non_finite(self.named())
        if bad is not None:
            stop(self.named(), good, epoch=number, batch=index, loss=float("nan"))
        # Over all processes: each has met its own share.
        met = torch.tensor([total, examples], dtype=torch.float64, device=self.accelerator.device)
        summed: list[float] = self.accelerator.reduce(met, "sum").tolist()
        return summed[0] / summed[1]

    def step(self, window: list[Batch], epoch: int, index: int, good: Snapshot) -> tuple[float, int]:
        """Take one optimizer step on a window of micro-batches; return the summed NLL and the example count."""
        accelerator = self.accelerator
        window = [as_pair(batch) for batch in window]
        count = sum(len(target) for _, target in window)
        shared = accelerator.reduce(torch.tensor(count, device=accelerator.device), "sum")
        share = accelerator.num_processes / int(shared)
        if isinstance(self.optimizer, LBFGS):
            met: list[float] = []

            def closure() -> float:
                met.append(self._backward(window, share, epoch, index, good))
                own = self._own()
                return float(met[-1] * share) + (0.0 if own is None else float(own.detach()))

            self.optimizer.step(closure)
            self._schedule()
            return met[0], count
        total = self._backward(window, share, epoch, index, good)
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            self.handle.apply_()
            norm = nn.utils.clip_grad_norm_([p for _, p in self.named() if p.grad is not None], self.clip_norm)
            self.handle.clipped(norm, self.clip_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # A smaller scale means that the scaler skipped the step.
        if self.scaler.get_scale() >= scale:
            self._schedule()
        return total, count

    def _own(self) -> Tensor | None:
        """Return the penalty of what the likelihood learns itself, as it is in the loss."""
        own = self.likelihood.penalty()
        return None if own is None else self.loss_scale * own

    def _schedule(self) -> None:
        if self.scheduler is not None:
            self.scheduler.step()

    def _backward(self, window: list[Batch], share: float, epoch: int, index: int, good: Snapshot) -> float:
        """Make the gradient of the window's mean NLL; return its summed NLL."""
        accelerator = self.accelerator
        self.optimizer.zero_grad()
        total = 0.0
        for number, (inputs, target) in enumerate(window, start=1):
            last = number == len(window)
            with torch.autocast(accelerator.device.type, dtype=self.half, enabled=self.half is not None):
                output = tensor_output(self.model, inputs)
            nll = self.likelihood.nll(output.float() if output.dtype in _HALF else output, target).sum()
            value = float(nll.detach())
            if not value < float("inf"):
                accelerator.backward(nll * share)
                stop(self.named(), good, epoch=epoch, batch=index, loss=value)
            total += value
            with contextlib.nullcontext() if last else accelerator.no_sync(self.model):
                own = self._own() if last else None
                loss = nll * share if own is None else nll * share + own.to(nll)
                accelerator.backward(self.scaler.scale(loss))
        return total


_HALF = (torch.float16, torch.bfloat16)


@torch.no_grad()
def evaluate(
    model: nn.Module, likelihood: Likelihood, loader: Iterable[Batch], device: torch.device
) -> tuple[float, float]:
    """Return mean NLL and mean metric per example, in evaluation mode; NaN for both from the first NLL that is."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    nll, metric, examples = 0.0, 0.0, 0
    try:
        for inputs, target in map(as_pair, loader):
            output, target = tensor_output(model, moved(inputs, device)), target.to(device)
            nll += float(likelihood.nll(output, target).sum())
            if not abs(nll) < float("inf"):
                return nll, float("nan")
            metric += float(likelihood.metric(output, target).sum())
            examples += len(target)
    finally:
        for module, training in modes.items():
            module.training = training
    return nll / max(examples, 1), metric / max(examples, 1)
