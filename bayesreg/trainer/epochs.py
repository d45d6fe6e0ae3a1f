"""Fitting by epochs with a torch optimizer: one loop, from a beginning or from a checkpoint."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from bayesreg._support.progress import load_tqdm
from bayesreg.callbacks import Training
from bayesreg.errors import DataError, InvalidArgumentError, NonFiniteObjectiveError, UnsupportedError, nearest
from bayesreg.horizon.schedules import named_schedule
from bayesreg.routes.attach import Handle
from bayesreg.trainer.averaging import Averager, WeightAverage
from bayesreg.trainer.checkpoint.keeper import Keeper
from bayesreg.trainer.checkpoint.setup import of_optimizer
from bayesreg.trainer.making import OptimizerFactory, optimizer_with_likelihood, scheduler_for
from bayesreg.trainer.result import FitResult, History
from bayesreg.trainer.settings import EpochSettings
from bayesreg.trainer.stepping.feed import Feed
from bayesreg.trainer.stepping.guard import Snapshot, first_non_finite, stop
from bayesreg.trainer.stepping.loop import Stepper, windows
from bayesreg.trainer.stepping.run import Run
from bayesreg.trainer.task import Task

__all__ = ["EpochFit"]


@dataclass
class Position:
    """How far training is.

    Attributes:
        epoch: The epoch at work, from 1.
        within: Steps done in it.
        step: Steps done in all.
        nll: What was met since the last record, summed.
        count: How much of n that was.
        rounds: Records made: one an epoch, or one in `evaluate_every` steps.
        recorded: The step of the last one.
        best: The best value of what is monitored, lower for better.
        best_round: The record it is in.
        best_epoch: Its epoch.
        stopped: What has ended the training: "patience" or "callback"; empty: nothing has.
    """

    epoch: int = 1
    within: int = 0
    step: int = 0
    nll: float = 0.0
    count: float = 0.0
    rounds: int = 0
    recorded: int = 0
    best: float = float("inf")
    best_round: int = 0
    best_epoch: int = 0
    stopped: str = ""


class EpochFit:
    """One training by epochs.

    Args:
        task: What to train.
        optimizer: The optimizer, or what makes one from param groups.
        settings: How to train.
        keep: Makes what keeps the run's state, told whether this is the main process; None: nobody keeps it.

    Raises:
        UnsupportedError: If LBFGS is asked for what its line search cannot do.
        CheckpointError: If the run that is resumed is another one.
    """

    def __init__(
        self,
        task: Task,
        optimizer: Optimizer | OptimizerFactory,
        settings: EpochSettings,
        keep: Callable[[bool], Keeper] | None = None,
    ) -> None:
        load_tqdm()
        from accelerate import Accelerator

        self.task, self.settings = task, settings
        try:
            self.accelerator = Accelerator(cpu=True) if settings.cpu else Accelerator()
        except ValueError as error:
            raise InvalidArgumentError(
                f"cpu: Accelerate fixes the device once per process, and it was another before ({error})."
            ) from error
        for module in (task.model, task.likelihood, task.prior):
            module.to(self.accelerator.device)
        self.at, self.history = Position(), History()
        self.notes: tuple[str, ...] = ()
        #: What there was when an error or an interrupt ended it.
        self.partial: FitResult | None = None
        self.good = self.best = Snapshot(task.model, task.likelihood)
        self.keeper: Keeper | None = None
        if keep is not None:
            # All look into the folder at one time: after what was written before, before what will be.
            self.accelerator.wait_for_everyone()
            self.keeper = keep(self.accelerator.is_main_process)
            self.accelerator.wait_for_everyone()
            self.keeper.restore_prior()
        extra = [p for p in task.likelihood.parameters() if p.requires_grad]
        self.optimizer = optimizer_with_likelihood(optimizer, task, extra)
        self._refuse_for_lbfgs()
        self.handle = Handle(
            self.optimizer,
            task.prior,
            task.loss_scale,
            before_clip=settings.clip_norm is not None,
            without_prior=extra,
        )
        try:
            self._set_up()
        except BaseException:
            self.handle.remove()
            raise

    def _refuse_for_lbfgs(self) -> None:
        if not isinstance(self.optimizer, LBFGS):
            return
        settings, loader = self.settings, self.task.loader
        if settings.clip_norm is not None or settings.mixed_precision != "no" or self.accelerator.num_processes > 1:
            raise UnsupportedError(
                "LBFGS compares values along its line search, which clipping, mixed precision or several processes "
                "would change between them; leave those out, or use another optimizer."
            )
        if isinstance(loader.dataset, Sized) and len(loader) > 1:
            raise UnsupportedError(
                f"LBFGS keeps the curvature of one function, and {len(loader)} batches are as many functions; "
                f"write optimizer='lbfgs', or give all examples as one batch."
            )

    def _set_up(self) -> None:
        settings, task = self.settings, self.task
        self._optimizer_was = of_optimizer(self.optimizer)
        self.scheduler = self._schedule()
        self.averager: Averager | None = None
        if isinstance(settings.average, WeightAverage):
            self.averager = Averager(task.model, task.prior, settings.average, settings.epochs)
        self.model, loader = task.model, task.loader
        if self.accelerator.num_processes > 1:
            self.model, loader = self.accelerator.prepare(task.model, task.loader)
        self.feed = Feed(self.accelerator, task.loader, loader, task.reading.form)
        self._by_epoch = settings.scheduler_interval == "epoch" or isinstance(self.scheduler, ReduceLROnPlateau)
        self.stepper = Stepper(
            self.accelerator,
            self.model,
            task.reading,
            self.optimizer,
            self.handle,
            None if self._by_epoch else self.scheduler,
            settings.clip_norm,
            task.loss_scale.value,
            settings.mixed_precision,
        )
        self.training = Training(
            task.model, task.prior, task.likelihood, self.optimizer, self.handle, task.num_data, task.loss_scale.value,
            resumed=self.keeper is not None and self.keeper.resume, main=self.accelerator.is_main_process,
        )  # fmt: skip
        self.run = Run(self.accelerator, self.optimizer, self.scheduler, self.stepper.scaler, self.feed)
        if self.keeper is not None:
            self.keeper.require_places(self.feed.cannot_resume_within, exact=self.feed.replays_epochs)
            self._go_on(self.keeper.found)

    def _schedule(self) -> Any | None:
        """Return the schedule, made for the optimizer."""
        settings, loader = self.settings, self.task.loader
        self._total: float | None = None
        if settings.scheduler is None:
            return None
        if not isinstance(settings.scheduler, str):
            return scheduler_for(settings.scheduler, self.optimizer)
        try:
            batches = math.ceil(len(loader) / self.accelerator.num_processes)
            per_epoch: float = math.ceil(batches / settings.accumulate)
        except TypeError:
            per_epoch = math.inf
        # A constant rate has no end to change.
        total = min(settings.epochs * per_epoch, settings.steps)
        self._total = None if settings.scheduler == "constant" and not isinstance(settings.warmup, float) else total
        return named_schedule(self.optimizer, settings.scheduler, settings.warmup, total)

    def fit(self) -> FitResult:
        """Train.

        Returns:
            The outcome.

        Raises:
            NonFiniteObjectiveError: If the training or validation NLL becomes NaN or infinite.
            DataError: If the loader gives no examples.
        """
        try:
            with _deterministic(self.settings.deterministic):
                self._train()
            self._put_the_kept()
            # A stream whose end was not met may have none.
            ended = isinstance(self.task.loader.dataset, Sized) or self.at.epoch > 1
            if self.settings.measure and ended:
                return self.task.result(self.history, self.handle.describe(), **self._how_it_ended())
            return self.task.unmeasured(self.history, self.handle.describe(), **self._how_it_ended())
        except BaseException as error:
            self.partial = self._stopped(error)
            raise
        finally:
            self.handle.remove()
            # Accelerate may have wrapped the forward of the user's model.
            self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)

    def _stopped(self, error: BaseException) -> FitResult:
        """Return what there is after an error or an interrupt, with the best weights so far in the model.

        Args:
            error: What stopped the training.

        Returns:
            The outcome; what would need another pass over the data is NaN.
        """
        ended = self._how_it_ended()
        if isinstance(error, NonFiniteObjectiveError):
            # The weights of the last record are in the model already.
            last = self.history[-1]["epoch"] if self.history else None
            ended |= {"best_epoch": last, "kept_record": self.at.rounds}
        elif self.at.rounds:
            self._put_the_kept()
            ended["notes"] = self.notes
            if not self._keeps_best and self.at.recorded < self.at.step:
                # Nothing was measured at these weights.
                ended["kept_record"] = None
        why = f"{type(error).__name__} in epoch {self.at.epoch}, after {self.at.step} steps"
        return self.task.unmeasured(self.history, self.handle.describe(), interrupted=why, **ended)

    def _put_the_kept(self) -> None:
        """Put the weights that are kept into the model: the best, or the last ones or their average."""
        at = self.at
        before = None if self.averager is None else self.task.exact_zeros()
        if self._keeps_best:
            if at.best_round != at.rounds or at.recorded != at.step or self.averager is not None:
                self.best.restore()
        elif self.averager is not None and self.averager.ready:
            self.averager.put()
        after = None if before is None else self.task.exact_zeros()
        if self.settings.restore_best and not self._keeps_best and at.rounds:
            self.notes += (f"{self.settings.monitor} was never a finite number, so the last weights are kept.",)
        if self.averager is not None and not self.averager.ready:
            self.notes += ("Training ended before the average of the weights began: these are the last ones.",)
        if before is not None and after is not None and after < before:
            self.notes += (
                f"The average of the weights has {after:.0%} exact zeros, the last weights had {before:.0%}: "
                f"br.WeightAverage(..., keep_zeros=True) keeps them.",
            )

    @property
    def _keeps_best(self) -> bool:
        """Whether the weights of the best record are kept: there is one, unless what is monitored was never finite."""
        return self.settings.restore_best and self.at.best_round > 0

    def _how_it_ended(self) -> dict[str, Any]:
        kept = self._keeps_best
        return {
            "best_epoch": self.at.best_epoch if kept else (self.history[-1]["epoch"] if self.history else None),
            "kept_record": self.at.best_round if kept else self.at.rounds,
            "notes": self.notes,
        }

    # -- the loop ----------------------------------------------------------------------------------------

    def _train(self) -> None:
        at, settings, self._since = self.at, self.settings, time.perf_counter()
        bar = self.task.bar(_finite(settings.epochs), "MAP", main=self.accelerator.is_main_process)
        bar.n = min(at.epoch - 1, bar.total or 0)
        try:
            self._tell("on_start")
            self._steps(bar)
        finally:
            self._tell("on_end")
        bar.close()

    def _steps(self, bar: Any) -> None:
        at, settings = self.at, self.settings
        while not self._over():
            batches = self.run.epoch(at.epoch, at.within * settings.accumulate, kept=self.keeper is not None)
            for window in windows(batches, settings.accumulate):
                if settings.callbacks:
                    self.stepper.measure_norm = any(c.wants_grad_norm(at.step + 1) for c in settings.callbacks)
                nll, count = self.stepper.step(window, at.epoch, at.within + 1, self.good)
                at.step, at.within = at.step + 1, at.within + 1
                at.nll, at.count = at.nll + nll, at.count + count
                if self.averager is not None:
                    self.averager.after_step(at.epoch)
                if settings.callbacks:
                    self.training.nll = nll / (count or 1.0)
                    self.training.grad_norm = self.stepper.grad_norm if self.stepper.measure_norm else None
                    self._tell("on_step")
                if settings.evaluate_every is not None and at.step % settings.evaluate_every == 0:
                    self._record(bar)
                if self.keeper is not None and self.keeper.is_due(at.step, self._state):
                    self._keep()
                if self._over():
                    break
            else:
                self._end_of_epoch(bar)
        if at.recorded < at.step:
            self._record(bar)
        if self.keeper is not None and self.keeper.last != at.step:
            self._keep()

    def _tell(self, what: str, epoch: int | None = None) -> None:
        """Call what looks on."""
        self.training.epoch, self.training.step = epoch or self.at.epoch, self.at.step
        self.training.recorded = self.at.recorded
        for callback in self.settings.callbacks:
            getattr(callback, what)(self.training)
        if self.training.stopped:
            self.at.stopped = "callback"

    def _over(self) -> bool:
        at, settings = self.at, self.settings
        return bool(at.stopped) or at.epoch > settings.epochs or at.step >= settings.steps

    def _end_of_epoch(self, bar: Any) -> None:
        at = self.at
        if at.within == 0:
            raise DataError(
                "train: the loader gave no examples, so nothing was trained (drop_last=True with fewer examples than a "
                "batch does that)."
            )
        if self.scheduler is not None and self._by_epoch and not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
        if self.averager is not None:
            self.averager.after_epoch(at.epoch)
        if self.settings.evaluate_every is None:
            self._record(bar)
        bar.update()
        at.epoch, at.within = at.epoch + 1, 0
        if self.keeper is not None and self.keeper.every is None:
            self._keep()

    def _record(self, bar: Any) -> None:
        """Measure, note and compare: the end of an epoch, or of as many steps as were asked for."""
        at, task, settings = self.at, self.task, self.settings
        bad = first_non_finite(self.stepper.named)
        if bad is not None:
            stop(self.stepper.named, self.good, epoch=at.epoch, batch=at.within, loss=float("nan"))
        # Over all processes: each has met its own share.
        met = torch.tensor([at.nll, at.count], dtype=torch.float64, device=self.accelerator.device)
        nll, count = self.accelerator.reduce(met, "sum").tolist()
        nll /= count or 1.0
        at.nll, at.count, at.rounds, at.recorded = 0.0, 0.0, at.rounds + 1, at.step
        self.good = Snapshot(task.model, task.likelihood)
        penalty, constant = task.prior_terms()
        # After an epoch's end the next one is at work already.
        epoch = at.epoch if at.within else at.epoch - 1
        record: dict[str, Any] = {
            "epoch": epoch,
            "step": at.step,
            "running_nll": nll,
            "log_prior": constant - penalty,
            "running_objective": nll + task.loss_scale.value * penalty,
        }
        kept = self.good
        with contextlib.nullcontext() if self.averager is None else self.averager.in_place():
            if task.val_loader is not None:
                record.update(_validated(task, self.accelerator.device, epoch))
            if self.averager is not None and self.averager.ready:
                kept = Snapshot(task.model, task.likelihood)
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(record.get("val_nll", record["running_objective"]))
        record["lr"] = float(self.optimizer.param_groups[0]["lr"])
        now = time.perf_counter()
        record["seconds"], self._since = now - self._since, now
        self.history.append(record)
        bar.set_postfix_str(f"NLL {nll:.4f}, log prior {record['log_prior']:.4g}")
        value = self._monitored(record)
        if value is None or value < at.best:
            self.best, at.best = kept, 0.0 if value is None else value
            at.best_round, at.best_epoch = at.rounds, epoch
        if settings.on_epoch_end is not None and settings.on_epoch_end(record):
            at.stopped = "callback"
        if settings.callbacks:
            self.training.record = record
            self._tell("on_epoch_end", epoch)
        if settings.patience is not None and at.rounds - at.best_round >= settings.patience:
            at.stopped = "patience"

    def _monitored(self, record: dict[str, Any]) -> float | None:
        """Return what says which weights are best, lower for better; None without validation data."""
        if self.task.val_loader is None:
            return None
        name = self.settings.monitor
        if name not in record:
            measured = [key for key in record if key.startswith("val_")]
            raise InvalidArgumentError(
                f"monitor: expected one of {', '.join(measured)}, got {name!r}{nearest(name, measured)}"
            )
        return self.settings.sign * float(record[name])

    # -- checkpoints -------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Write a checkpoint."""
        if self.keeper is not None:
            self.keeper.save(self.at.step, self._state())

    def _state(self) -> dict[str, Any]:
        """Return all that the run is."""
        at = self.at
        current = at.best_round == at.rounds and at.recorded == at.step and self.averager is None
        return {
            "at": asdict(at),
            "history": [dict(record) for record in self.history],
            "modules": Snapshot(self.task.model, self.task.likelihood).states,
            "best": None if current else self.best.states,
            "made": self._made(),
            "average": None if self.averager is None else self.averager.state(),
            "callbacks": [callback.state_dict() for callback in self.settings.callbacks],
            **self.run.state(at.within),
        }

    def _made(self) -> dict[str, Any]:
        """Return what was made of the settings, and must be the same for a run to go on."""
        return {"optimizer": self._optimizer_was, "schedule's number of steps": self._total}

    def _go_on(self, state: dict[str, Any] | None) -> None:
        """Put everything where a checkpoint says it was."""
        if state is None:
            return
        modules = (self.task.model, self.task.likelihood)
        current = Snapshot.of(state["modules"], *modules)
        current.restore()
        self.good = Snapshot(*modules)
        self.best = self.good if state["best"] is None else Snapshot.of(state["best"], *modules)
        self.at = Position(**{f.name: state["at"][f.name] for f in fields(Position)})
        self.history[:] = state["history"]
        assert self.keeper is not None
        self.keeper.last = self.at.step
        self.keeper.require_same(state["made"], self._made())
        # Patience that ended it then need not end it now.
        patience = self.settings.patience
        if self.at.stopped == "patience" and (patience is None or self.at.rounds - self.at.best_round < patience):
            self.at.stopped = ""
        if self.averager is not None:
            self.averager.restore(state["average"])
        for callback, own in zip(self.settings.callbacks, state["callbacks"], strict=False):
            callback.load_state_dict(own)
        self.run.restore(state)


def _finite(count: float) -> int | None:
    return None if count == float("inf") else int(count)


def _validated(task: Task, device: torch.device, epoch: int) -> dict[str, float]:
    found = task.validated(device)
    if not found["nll"] < float("inf"):
        raise NonFiniteObjectiveError(
            f"the validation NLL became {found['nll']} in epoch {epoch}, while the training NLL is finite: look for "
            f"NaN or impossible targets in the validation data. The weights of this epoch are in the model.",
            epoch=epoch,
            batch=0,
            parameter=None,
        )
    return {f"val_{name}": value for name, value in found.items()}


@contextlib.contextmanager
def _deterministic(asked: bool) -> Iterator[None]:
    """Have torch use deterministic algorithms alone, and raise where there is none."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    if asked:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        if asked:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.backends.cudnn.benchmark = benchmark
