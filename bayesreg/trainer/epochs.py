"""Fitting by epochs with a torch optimizer: early stopping, best weights, history."""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from bayesreg._support import checks
from bayesreg.errors import InvalidArgumentError, NonFiniteObjectiveError, UnsupportedError, kind_of
from bayesreg.routes.attach import Handle
from bayesreg.trainer.guard import Snapshot
from bayesreg.trainer.loop import Loop, evaluate
from bayesreg.trainer.result import FitResult, History
from bayesreg.trainer.task import Task

__all__ = ["EpochSettings", "OptimizerFactory", "fit_epochs"]

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]


@dataclass(frozen=True)
class EpochSettings:
    """How to train by epochs; the fields are `MAPTrainer`'s arguments.

    Raises:
        InvalidArgumentError: If a number is out of range, or mixed_precision or scheduler_interval not known.
    """

    scheduler: Callable[[Optimizer], Any] | None = None
    scheduler_interval: str = "step"
    max_epochs: int = 100
    accumulate: int = 1
    clip_norm: float | None = None
    patience: int | None = None
    restore_best: bool = True
    mixed_precision: str = "no"
    cpu: bool = False
    on_epoch_end: Callable[[dict[str, Any]], bool | None] | None = None

    def __post_init__(self) -> None:
        checks.positive_int("max_epochs", self.max_epochs)
        checks.positive_int("accumulate", self.accumulate)
        if self.clip_norm is not None:
            object.__setattr__(self, "clip_norm", checks.positive_float("clip_norm", self.clip_norm))
        if self.patience is not None:
            checks.positive_int("patience", self.patience)
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise InvalidArgumentError(
                f"mixed_precision: expected 'no', 'bf16' or 'fp16', got {self.mixed_precision!r}."
            )
        if self.scheduler_interval not in ("step", "epoch"):
            raise InvalidArgumentError(
                f"scheduler_interval: expected 'step' or 'epoch', got {self.scheduler_interval!r}."
            )


def fit_epochs(task: Task, optimizer: Optimizer | OptimizerFactory, settings: EpochSettings) -> FitResult:
    """Train epoch by epoch.

    Args:
        task: What to train.
        optimizer: The optimizer, or what makes one from param groups.
        settings: How to train.

    Returns:
        The outcome.

    Raises:
        NonFiniteObjectiveError: If the training or validation NLL becomes NaN or infinite.
        UnsupportedError: If LBFGS is asked for what its line search cannot do.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True) if settings.cpu else Accelerator()
    for module in (task.model, task.likelihood, task.prior):
        module.to(accelerator.device)
    extra = [p for p in task.likelihood.parameters() if p.requires_grad]
    optimizer = _with_likelihood(optimizer, task, extra)
    if isinstance(optimizer, LBFGS):
        limits = (settings.clip_norm, settings.mixed_precision != "no", accelerator.num_processes > 1)
        if any(limits):
            raise UnsupportedError(
                "LBFGS compares values along its line search, which clipping, mixed precision or several processes "
                "would change between them; leave those out, or use another optimizer."
            )
        if isinstance(task.loader.dataset, Sized) and len(task.loader) > 1:
            raise UnsupportedError(
                f"LBFGS keeps the curvature of one function, and {len(task.loader)} batches are as many functions; "
                f"write optimizer='lbfgs', or give all examples as one batch."
            )
    handle = Handle(
        optimizer,
        task.prior,
        task.loss_scale,
        before_clip=settings.clip_norm is not None,
        without_prior=extra,
    )
    model = task.model
    try:
        scheduler = None if settings.scheduler is None else _scheduler(settings.scheduler, optimizer)
        model, _, batches = accelerator.prepare(task.model, optimizer, task.loader)
        by_epoch = settings.scheduler_interval == "epoch" or isinstance(scheduler, ReduceLROnPlateau)
        loop = Loop(
            accelerator,
            model,
            task.likelihood,
            optimizer,
            handle,
            None if by_epoch else scheduler,
            settings.clip_norm,
            settings.accumulate,
            settings.mixed_precision,
            task.loss_scale.value,
        )
        history, best_epoch = _epochs(loop, batches, task, settings, scheduler if by_epoch else None)
        return task.result(task.loader, history, handle.describe(), best_epoch=best_epoch)
    finally:
        handle.remove()
        # Accelerate may have wrapped the forward of the user's model.
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)


def _made(name: str, factory: Callable[[Any], Any], given: Any, of: str, is_one: Callable[[Any], bool]) -> Any:
    """Call a factory that the user gave, and make sure of what it returns."""
    shown = getattr(factory, "__name__", type(factory).__name__)
    try:
        made = factory(given)
    except (TypeError, AttributeError, NotImplementedError, InvalidArgumentError) as error:
        raise InvalidArgumentError(f"{name}: expected a factory {of}, got {shown} ({error}).") from error
    if not is_one(made):
        raise InvalidArgumentError(f"{name}: expected a factory {of}, got {shown}, which returns {kind_of(made)}.")
    return made


def _scheduler(factory: Callable[[Optimizer], Any], optimizer: Optimizer) -> Any:
    of = "optimizer -> scheduler, which has step()"
    return _made("scheduler", factory, optimizer, of, lambda made: callable(getattr(made, "step", None)))


def _optimizer(factory: OptimizerFactory, groups: list[dict[str, Any]]) -> Optimizer:
    of = "param groups -> torch optimizer"
    found: Optimizer = _made("optimizer", factory, groups, of, lambda made: isinstance(made, Optimizer))
    return found


def _with_likelihood(optimizer: Optimizer | OptimizerFactory, task: Task, extra: list[Any]) -> Optimizer:
    """Return the optimizer, holding the likelihood's own parameters too."""
    if not isinstance(optimizer, Optimizer):
        groups = task.prior.param_groups()
        if optimizer is LBFGS or getattr(optimizer, "func", None) is LBFGS:
            # It takes one group only; the prior reaches it through the gradient and the value.
            return _optimizer(optimizer, [{"params": [p for group in groups for p in group["params"]] + extra}])
        return _optimizer(optimizer, [*groups, {"params": extra, "weight_decay": 0.0}] if extra else groups)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [p for p in extra if id(p) not in held]
    if missing:
        optimizer.add_param_group({"params": missing, "weight_decay": 0.0})
    return optimizer


def _epochs(
    loop: Loop, batches: Any, task: Task, settings: EpochSettings, scheduler: Any | None
) -> tuple[History, int]:
    history = History()
    good = Snapshot(task.model, task.likelihood)
    best, best_nll, best_epoch = good, float("inf"), 0
    bar = task.bar(settings.max_epochs, "MAP", main=loop.accelerator.is_main_process)
    for epoch in range(1, settings.max_epochs + 1):
        began = time.perf_counter()
        nll = loop.epoch(batches, epoch, good)
        good = Snapshot(task.model, task.likelihood)
        penalty, constant = task.prior_terms()
        record: dict[str, Any] = {
            "epoch": epoch,
            "running_nll": nll,
            "log_prior": constant - penalty,
            "running_objective": nll + task.loss_scale.value * penalty,
        }
        if task.val_loader is not None:
            record.update(_validated(task, loop.accelerator.device, epoch))
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(record.get("val_nll", record["running_objective"]))
        elif scheduler is not None:
            scheduler.step()
        record["lr"] = float(loop.optimizer.param_groups[0]["lr"])
        record["seconds"] = time.perf_counter() - began
        history.append(record)
        bar.update()
        bar.set_postfix_str(f"NLL {nll:.4f}, log prior {record['log_prior']:.4g}")
        if task.val_loader is None or record["val_nll"] < best_nll:
            best, best_nll, best_epoch = good, record.get("val_nll", 0.0), epoch
        wants_stop = settings.on_epoch_end is not None and bool(settings.on_epoch_end(record))
        if wants_stop or (settings.patience is not None and epoch - best_epoch >= settings.patience):
            break
    bar.close()
    if not settings.restore_best:
        return history, epoch
    if best_epoch != epoch:
        best.restore()
    return history, best_epoch


def _validated(task: Task, device: torch.device, epoch: int) -> dict[str, float]:
    nll, metric = evaluate(task.model, task.likelihood, task.val_loader, device)
    if not nll < float("inf"):
        raise NonFiniteObjectiveError(
            f"the validation NLL became {nll} in epoch {epoch}, while the training NLL is finite: look for NaN or "
            f"impossible targets in the validation data. The weights of this epoch are in the model.",
            epoch=epoch,
            batch=0,
            parameter=None,
        )
    return {"val_nll": nll, f"val_{task.likelihood.metric_name}": metric}
