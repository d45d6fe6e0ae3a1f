"""One optimizer step: the one place where the order of things is decided."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from bayesreg.data import Batch, Reading
from bayesreg.errors import NonFiniteObjectiveError
from bayesreg.routes.attach import Handle
from bayesreg.trainer.stepping.guard import Snapshot, stop

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Stepper", "windows"]


def windows(batches: Iterable[Batch], length: int) -> Iterator[list[Batch]]:
    """Group batches into the windows of gradient accumulation; the last one may be shorter.

    Args:
        batches: The batches.
        length: Batches per window.

    Yields:
        The windows.

    Example:
        >>> [len(w) for w in windows([1, 2, 3, 4, 5], 2)]
        [2, 2, 1]
    """
    window: list[Batch] = []
    for batch in batches:
        window.append(batch)
        if len(window) == length:
            yield window
            window = []
    if window:
        yield window


class Stepper:
    """What one step needs.

    Order within a step: backward (each micro-batch weighted by its share of the window) → unscale → prior gradient →
    clip → step (native decay, proximal step) → learning-rate schedule.

    Args:
        accelerator: Device, precision and processes.
        model: The model, as the accelerator prepared it.
        reading: From batches to NLL.
        optimizer: The optimizer.
        handle: The attached prior.
        scheduler: Stepped after each optimizer step, or None.
        clip_norm: Largest gradient norm, or None.
        loss_scale: What a prior on the likelihood's own parameters is multiplied by.
        precision: "no", "bf16" or "fp16". Handled here: Accelerate fixes it once per process, for everybody in it.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        reading: Reading,
        optimizer: Optimizer,
        handle: Handle,
        scheduler: Any | None,
        clip_norm: float | None,
        loss_scale: float,
        precision: str,
    ) -> None:
        self.accelerator, self.model, self.reading = accelerator, model, reading
        self.optimizer, self.handle, self.scheduler = optimizer, handle, scheduler
        self.clip_norm, self.loss_scale = clip_norm, loss_scale
        self.half = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        inner = accelerator.unwrap_model(model)
        if not inner.training:
            # A model in evaluation mode is put in training mode as a whole; in one that trains already, modules that
            # were frozen by .eval() stay so.
            model.train()
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=self.half is torch.float16)
        self._shared = accelerator.num_processes > 1
        self._counts = reading.likelihood.counts_within or reading.form.sample_weight is not None
        self._share = torch.ones((), device=accelerator.device)
        self._own = [p for p in reading.likelihood.parameters() if p.requires_grad]
        #: All trained parameters by name.
        self.named: list[tuple[str, Tensor]] = [
            *inner.named_parameters(),
            *((f"likelihood.{n}", p) for n, p in reading.likelihood.named_parameters()),
        ]
        #: Whether the norm of the gradient of the NLL is measured, and what it was at the last step.
        self.measure_norm = False
        self.grad_norm: float | None = None

    def step(self, window: list[Batch], epoch: int, index: int, good: Snapshot) -> tuple[float, float]:
        """Take one optimizer step.

        Args:
            window: Micro-batches, on the device.
            epoch: From 1; for messages.
            index: Of the step within the epoch, from 1.
            good: The last good weights.

        Returns:
            The window's summed NLL, and how much of n it holds.

        Raises:
            NonFiniteObjectiveError: If the NLL or the prior's gradient is not finite; the good weights are back.
        """
        try:
            return self._step(window, epoch, index, good)
        except NonFiniteObjectiveError as error:
            if error.epoch:
                raise
            # From a prior on a function, which knows of no epochs.
            good.restore()
            raise NonFiniteObjectiveError(
                f"epoch {epoch}, batch {index}: {error} The last good weights are back in the model.",
                epoch=epoch, batch=index, parameter=error.parameter,
            ) from error  # fmt: skip

    def _step(self, window: list[Batch], epoch: int, index: int, good: Snapshot) -> tuple[float, float]:
        count, share = self._shares(window)
        if isinstance(self.optimizer, LBFGS):
            met: list[float] = []

            def closure() -> float:
                met.append(self._backward(window, share, epoch, index, good))
                own = self._penalty_of_own()
                return float(met[-1] * share) + (0.0 if own is None else float(own.detach()))

            self.optimizer.step(closure)
            self._schedule()
            return met[0], count
        total = self._backward(window, share, epoch, index, good)
        if self.clip_norm is not None or self.measure_norm:
            self.scaler.unscale_(self.optimizer)
        if self.measure_norm:
            self.grad_norm = float(nn.utils.get_total_norm([p.grad for _, p in self.named if p.grad is not None]))
        if self.clip_norm is not None:
            self.handle.apply_()
            norm = nn.utils.clip_grad_norm_([p for _, p in self.named if p.grad is not None], self.clip_norm)
            self.handle.clipped(norm, self.clip_norm)
        if self.half is not torch.float16:
            self.optimizer.step()
            self._schedule()
            return total, count
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # A smaller scale means that the scaler skipped the step.
        if self.scaler.get_scale() >= scale:
            self._schedule()
        return total, count

    def _shares(self, window: list[Batch]) -> tuple[float, float]:
        """Return how much of n the window holds, and what its summed NLL is multiplied by."""
        rows = float(sum(len(batch.target) for batch in window))
        count = whole = sum(map(self.reading.count, window)) if self._counts else rows
        if self._shared:
            mine = torch.tensor([rows, count], dtype=torch.float64, device=self.accelerator.device)
            rows, whole = self.accelerator.reduce(mine, "sum").tolist()
        per_row = self.reading.counting.per_row
        stands_for = whole if per_row is None else rows * per_row
        # A window in which nothing counts has no gradient either.
        return count, self.accelerator.num_processes / (stands_for or 1.0)

    def _penalty_of_own(self) -> Tensor | None:
        """Return the penalty of what the likelihood learns itself, as it is in the loss."""
        own = self.reading.likelihood.penalty()
        return None if own is None else self.loss_scale * own

    def _schedule(self) -> None:
        if self.scheduler is not None:
            self.scheduler.step()

    def _backward(self, window: list[Batch], share: float, epoch: int, index: int, good: Snapshot) -> float:
        """Make the gradient of the window's mean NLL; return its summed NLL."""
        self.optimizer.zero_grad()
        total = 0.0
        for number, batch in enumerate(window, start=1):
            last = number == len(window)
            with contextlib.nullcontext() if self.half is None else self._autocast():
                output = self.reading.output(self.model, batch)
            nll = self.reading.nll(output, batch)
            value = nll.item()
            if not value < float("inf"):
                (nll * share).backward()
                stop(self.named, good, epoch=epoch, batch=index, loss=value)
            total += value
            own = self._penalty_of_own() if last else None
            with contextlib.nullcontext() if last or not self._shared else self.accelerator.no_sync(self.model):
                if own is None and self.half is not torch.float16:
                    # The derivative of share · NLL, without an operation for the product.
                    nll.backward(self._share.to(nll.dtype).fill_(share))
                else:
                    loss = nll * share if own is None else nll * share + own.to(nll)
                    self.scaler.scale(loss).backward()
        if self._shared:
            for parameter in self._own:
                # Accelerate wraps the model, not the likelihood.
                if parameter.grad is not None:
                    parameter.grad.copy_(self.accelerator.reduce(parameter.grad, "mean"))
        return total

    def _autocast(self) -> Any:
        return torch.autocast(self.accelerator.device.type, dtype=self.half)
