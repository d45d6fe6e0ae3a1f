"""Numbers of a training under flat names, to any function."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.callbacks.base import Callback, Training

__all__ = ["Log"]

Sink = Callable[[int, Mapping[str, float]], object]


class Log(Callback):
    """Call a function with the step and the numbers there: NLL, log-prior by part, gradient norm, learning rate.

    Every so many steps: `train/nll` (mean over the step's examples), `train/grad_norm` (of the gradient of the mean
    NLL, before prior and clip), `train/lr`, and `prior/penalty`, `prior/log_prior`, `prior/<family>/penalty` in nats.
    At each record of the history: its numbers, `epoch/running_nll`, `val/nll`, `val/accuracy` and so on.

    Args:
        sink: Called with (step, numbers by name), on the main process alone.
        every: Steps between two logs; None: only records. Default 50.

    Example:
        >>> import torch, bayesreg as br
        >>> rows = []
        >>> log = br.callbacks.Log(lambda step, values: rows.append((step, list(values))), every=1)
        >>> model = torch.nn.Linear(2, 2)
        >>> how = dict(max_epochs=1, callbacks=[log], progress=False)
        >>> trainer = br.MAPTrainer(model, br.Gaussian(1.0), br.likelihoods.Categorical(), **how)
        >>> _ = trainer.fit((torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])))
        >>> rows[0]  # doctest: +ELLIPSIS
        (1, ['train/nll', 'train/lr', 'train/grad_norm', 'prior/log_prior', 'prior/penalty', ...])
    """

    @answering
    def __init__(self, sink: Sink, *, every: int | None = 50) -> None:
        checks.accepts("sink", sink, 2, "the step and the numbers")
        self.sink = sink
        self.every = None if every is None else checks.positive_int("every", every)

    def wants_grad_norm(self, step: int) -> bool:
        """See `Callback.wants_grad_norm`."""
        return self.every is not None and step % self.every == 0

    def on_step(self, training: Training) -> None:
        """Log the step, if it is one of those."""
        if not training.main or not self.wants_grad_norm(training.step):
            return
        values = {"train/nll": training.nll, "train/lr": float(training.optimizer.param_groups[0]["lr"])}
        if training.grad_norm is not None:
            values["train/grad_norm"] = training.grad_norm
        self.sink(training.step, {**values, **training.prior_terms()})

    def on_epoch_end(self, training: Training) -> None:
        """Log the record."""
        if not training.main:
            return
        values = {
            name.replace("val_", "val/", 1) if name.startswith("val_") else f"epoch/{name}": float(value)
            for name, value in training.record.items()
            if name != "step"
        }
        self.sink(training.step, values)
