"""Fits by any torch optimizer in batches, for a walk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from bayesreg.strength.walk.held_out import HeldOut, Task
from bayesreg.trainer import MAPTrainer

__all__ = ["Stochastic"]

State = dict[str, Tensor]
#: Epochs of a step; the mean of the weights over the second half is what is scored.
_STEP = 10
_FIRST = 100
#: A start that still gains more than this share by a step at the same width is trained on, so many times at most: else
#: the walk takes time for strength.
_GAIN, _MORE = 0.01, 10


class Trained(NamedTuple):
    """Where training goes on from, and what is scored."""

    last: State
    mean: State


class Stochastic(HeldOut[Trained]):
    """Fits of a model in batches.

    Args:
        task: What is fitted.
        settings: `MAPTrainer`'s, of one fit from scratch; `max_epochs` is that of the first fit, and half of it is that
            of the last.
        seed: Of the order of the examples and of what is random in the model.

    Attributes:
        at_rest: Whether the first fit gained nothing more by training on at its own strength.
    """

    def __init__(self, task: Task, settings: Mapping[str, Any], seed: int) -> None:
        super().__init__(task)
        self.settings, self.seed = dict(settings), seed
        self._epochs = int(self.settings.pop("max_epochs", None) or _FIRST)
        scheduler, interval = self.settings.pop("scheduler", None), self.settings.pop("scheduler_interval", None)
        self._schedule = {} if scheduler is None else {"scheduler": scheduler, "scheduler_interval": interval}
        self._initial = _state(task.model)
        self.at_rest = True

    def begin(self, at: float) -> list[Trained]:
        """See `Ground`; the weights have come to rest, as far as held-out examples tell."""
        state = [self._whole(at, part, self._initial, self._epochs) for part in range(len(self.task.parts))]
        measured = self.measure(at, state)
        self.tune(measured, at)
        score = measured.held_out
        for _ in range(_MORE):
            state = self.go_on(at, state)
            before, score = score, self.measure(at, state).held_out
            self.at_rest = not before - score > _GAIN * abs(before)
            if self.at_rest:
                break
        return state

    def go_on(self, at: float, state: list[Trained]) -> list[Trained]:
        """See `Ground`."""
        found = [self._short(at, part, fit.last) for part, fit in enumerate(state)]
        self.tune(self.measure(at, found), at)
        return found

    def finish(self, at: float, state: list[Trained]) -> None:
        self._whole(at, None, state[0].mean, max(1, self._epochs // 2))

    def use(self, fit: Trained) -> None:
        self.task.model.load_state_dict(fit.mean)

    def _whole(self, at: float, part: int | None, start: State, epochs: int) -> Trained:
        """Train with a schedule that ends at rest: the user's, or a cosine."""

        def cosine(optimizer: Optimizer) -> LambdaLR:
            steps = epochs * math.ceil(self._size(part) / self._batch())
            return LambdaLR(optimizer, lambda step: 0.5 * (1.0 + math.cos(math.pi * min(step / steps, 1.0))))

        self._train(at, part, start, epochs, **(self._schedule or {"scheduler": cosine}))
        state = _state(self.task.model)
        return Trained(state, state)

    def _short(self, at: float, part: int, start: State) -> Trained:
        mean = _Mean(self.task.model)

        def counted(groups: list[dict[str, Any]]) -> Optimizer:
            optimizer: Optimizer = self.settings["optimizer"](groups)
            optimizer.register_step_post_hook(lambda *_: mean.step())
            return optimizer

        def halfway(record: dict[str, Any]) -> None:
            mean.open = record["epoch"] >= _STEP // 2

        self._train(at, part, start, _STEP, optimizer=counted, on_epoch_end=halfway)
        last = _state(self.task.model)
        mean.put()
        self._statistics(part)
        return Trained(last, _state(self.task.model))

    def _train(self, at: float, part: int | None, start: State, epochs: int, **given: Any) -> None:
        task = self.task
        task.model.load_state_dict(start)
        task.model.train()
        prior, likelihood = self.fitted_with(at)
        trainer = MAPTrainer(
            task.model,
            prior,
            likelihood,
            max_epochs=epochs,
            seed=self.seed,
            # The walk scores by itself; with unknown noise it goes in units of it, in which residuals may be anything.
            **{**self.settings, "progress": False, "measure": part is None and task.noise is None, **given},
        )
        with _seeded(self.seed):
            trainer.fit(self._data(part))
        task.model.eval()
        self.spent += epochs * self._size(part) / len(task.targets)

    def _data(self, part: int | None) -> tuple[Tensor, Tensor]:
        inside = slice(None) if part is None else self.task.parts[part][0]
        return self.task.inputs[inside], self.task.targets[inside]

    def _size(self, part: int | None) -> int:
        return len(self._data(part)[1])

    def _batch(self) -> int:
        return int(self.settings.get("batch_size") or 32) * int(self.settings.get("accumulate") or 1)

    def _statistics(self, part: int) -> None:
        """Let norms see what the mean of the weights gives: those that they have are of the last weights."""
        model = self.task.model
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
            loader = DataLoader(TensorDataset(*self._data(part)), batch_size=self._batch())
            with _seeded(self.seed):
                torch.optim.swa_utils.update_bn(loader, model, device=next(model.parameters()).device)


class _Mean:
    """The running mean of a model's weights over steps."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._sums = [torch.zeros_like(p, dtype=torch.float64) for p in self._parameters]
        self._steps, self.open = 0, False

    @torch.no_grad()
    def step(self) -> None:
        if self.open:
            self._steps += 1
            for total, parameter in zip(self._sums, self._parameters, strict=True):
                total.add_(parameter.to(total))

    @torch.no_grad()
    def put(self) -> None:
        if self._steps:
            for total, parameter in zip(self._sums, self._parameters, strict=True):
                parameter.copy_(total / self._steps)


def _state(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from a seed, and leave the global generators as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
