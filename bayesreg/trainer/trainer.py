"""MAPTrainer: a model, a prior and a likelihood, trained to their MAP."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.conversion import LossScale
from bayesreg.data import TrainingData, as_loader, dtype_of, num_examples
from bayesreg.errors import InvalidArgumentError, kind_of
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.coverage import check_prior_of
from bayesreg.priors import Belief
from bayesreg.selection import SelectorLike
from bayesreg.trainer.epochs import EpochSettings, OptimizerFactory, fit_epochs
from bayesreg.trainer.result import FitResult
from bayesreg.trainer.solve import Solver, SolveSettings, fit_full_batch
from bayesreg.trainer.task import Task

__all__ = ["MAPTrainer"]

_FULL_BATCHES = 4096


def refuse_given(arguments: Mapping[str, object], why: str) -> None:
    """Raise if one of these was given: the optimizer would ignore it.

    Args:
        arguments: By name; None where it was not given.
        why: What to say of the optimizer.

    Raises:
        InvalidArgumentError: If one was.
    """
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise InvalidArgumentError(f"{given[0]}: {why} takes none; leave it out.")


class MAPTrainer:
    """Train a model to its MAP: minimise mean NLL − s·log p(θ), with s = 1/n.

    Args:
        model: The model; trained in place.
        prior: A `ModelPrior`, or what makes one: a single prior (on matrices and kernels; all else flat) or rules.
        likelihood: From `br.likelihoods`.
        optimizer: A factory that takes param groups (`functools.partial(torch.optim.SGD, lr=0.1)`), a torch
            optimizer built from `prior.param_groups()` or `model.parameters()`, or a full-batch solver that goes to
            optimality: "lbfgs" (smooth priors), "proximal" (priors with kinks). Default Adam with lr 1e-3.
        scheduler: Factory optimizer -> learning-rate scheduler. `ReduceLROnPlateau` is stepped once per epoch with the
            validation NLL (the running objective without validation data).
        scheduler_interval: Whether other schedulers are stepped after each optimizer "step" (default) or "epoch".
        max_epochs: Passes over the data at most. Default 100; a full-batch solver makes one in each iteration, so it
            is `max_iterations` there.
        batch_size: For arrays and datasets. Default 32.
        accumulate: Batches per optimizer step; each example weighs the same. Default 1.
        clip_norm: Clip the gradient of the whole objective (the prior's included) to this norm.
        patience: Stop after this many epochs without a better validation NLL; needs validation data.
        restore_best: Keep the weights of the epoch with the best validation NLL (the last epoch's without
            validation data), the default. Those are not a MAP if training stops before it: pass False to keep the last.
        num_data: Size of the training set, where it cannot be read off the data; or the `LossScale` of the mean NLL
            over examples: `br.LossScale.mean(n, likelihood_weight=2.0)` emphasises the likelihood.
        tolerance: KKT residual, per example, at which a full-batch solver stops. Default 1e-9; models in float32
            are taken as far as their precision goes, about 1e-5.
        max_iterations: Full-batch iterations at most. Default 10,000.
        starts: For full-batch solvers: how many starting points to try, the present weights first, then draws from
            the prior. The lowest optimum is kept and `result.modes` lists all that were found. Default 1.
        seed: Order of the examples, and the draws of `starts`. Default 0.
        mixed_precision: "no", "bf16" or "fp16"; the log-prior stays in float32 or better.
        cpu: Stay on the CPU even where there is an accelerator.
        on_epoch_end: Called with each epoch's record; training stops when it returns True.
        progress: Show a progress bar. Default: yes, unless the output is not a terminal or notebook.

    Arguments that the optimizer would ignore are refused: a full-batch solver takes `tolerance`, `max_iterations` and
    `starts`, every other optimizer what concerns epochs, batches and schedules.

    Raises:
        InvalidArgumentError: If an argument is out of range, or one that this optimizer would ignore.

    Example:
        >>> import bayesreg as br
        >>> X = torch.linspace(-1, 1, 20).double()[:, None]
        >>> model = nn.Linear(1, 1).double()
        >>> trainer = MAPTrainer(model, br.Gaussian(scale=1.0), br.likelihoods.Gaussian(0.1), optimizer="lbfgs")
        >>> result = trainer.fit((X, 3 * X))
        >>> result.converged, round(model.weight.item(), 4)  # 3 · Σx² / (Σx² + 0.1²/1²)
        (True, 2.9959)

    References:
        docs/scaling.md derives the objective.
    """

    @answering
    def __init__(
        self,
        model: nn.Module,
        prior: ModelPrior | Belief | Mapping[SelectorLike, Belief],
        likelihood: Likelihood,
        *,
        optimizer: Optimizer | OptimizerFactory | Solver | None = None,
        scheduler: Callable[[Optimizer], Any] | None = None,
        scheduler_interval: Literal["step", "epoch"] | None = None,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        accumulate: int | None = None,
        clip_norm: float | None = None,
        patience: int | None = None,
        restore_best: bool | None = None,
        num_data: int | LossScale | None = None,
        tolerance: float | None = None,
        max_iterations: int | None = None,
        starts: int | None = None,
        seed: int = 0,
        mixed_precision: Literal["no", "bf16", "fp16"] | None = None,
        cpu: bool | None = None,
        on_epoch_end: Callable[[dict[str, Any]], bool | None] | None = None,
        progress: bool | None = None,
    ) -> None:
        if not isinstance(likelihood, Likelihood):
            raise InvalidArgumentError(
                f"likelihood: expected one of br.likelihoods (Categorical(), Gaussian(noise_std=...), "
                f"FromLoss(loss), ...), got {kind_of(likelihood)}."
            )
        if isinstance(optimizer, str) and optimizer not in ("lbfgs", "proximal"):
            raise InvalidArgumentError(
                f"optimizer: expected 'lbfgs', 'proximal', a torch optimizer or a factory of one such as "
                f"functools.partial(torch.optim.Adam, lr=1e-3), got {optimizer!r}."
            )
        if not (optimizer is None or isinstance(optimizer, str | Optimizer) or callable(optimizer)):
            raise InvalidArgumentError(
                f"optimizer: expected 'lbfgs', 'proximal', a torch optimizer or a factory of one, got "
                f"{kind_of(optimizer)}."
            )
        if not isinstance(optimizer, str | Optimizer):
            checks.accepts("optimizer", optimizer, 1, "param groups")
        checks.accepts("on_epoch_end", on_epoch_end, 1, "the record of an epoch")
        checks.accepts("scheduler", scheduler, 1, "the optimizer")
        self.model = model
        self.prior = prior if isinstance(prior, ModelPrior) else ModelPrior(model, prior)
        self.likelihood = likelihood
        self.optimizer = partial(torch.optim.Adam, lr=1e-3) if optimizer is None else optimizer
        by_epoch: dict[str, Any] = {
            "scheduler": scheduler,
            "scheduler_interval": scheduler_interval,
            "max_epochs": max_epochs,
            "accumulate": accumulate,
            "clip_norm": clip_norm,
            "patience": patience,
            "restore_best": restore_best,
            "mixed_precision": mixed_precision,
            "cpu": cpu,
            "on_epoch_end": on_epoch_end,
        }
        full_batch: dict[str, Any] = {"tolerance": tolerance, "max_iterations": max_iterations, "starts": starts}
        if isinstance(optimizer, str):
            if max_epochs is not None and max_iterations is None:
                full_batch["max_iterations"], by_epoch["max_epochs"] = max_epochs, None
            refuse_given({**by_epoch, "batch_size": batch_size}, f"optimizer={optimizer!r} is a full-batch solver and")
        else:
            solvers = "full-batch solver (optimizer='lbfgs' or 'proximal'), and this optimizer"
            refuse_given({"starts": starts}, f"several starting points need a {solvers}")
            refuse_given(full_batch, f"it is for a {solvers}")
        # What was not given has the default of its class.
        self.settings = EpochSettings(**{name: value for name, value in by_epoch.items() if value is not None})
        self.solving = SolveSettings(**{name: value for name, value in full_batch.items() if value is not None})
        self._batch_size_given = batch_size is not None
        self.batch_size = 32 if batch_size is None else checks.positive_int("batch_size", batch_size)
        self.loss_scale = num_data if isinstance(num_data, LossScale) else None
        self.num_data = None if num_data is None or self.loss_scale else checks.positive_int("num_data", num_data)
        self.generator = torch.Generator().manual_seed(checks.seed("seed", seed))
        self.progress = progress
        self._fits = 0

    @answering
    def fit(self, train: TrainingData, val: TrainingData | None = None) -> FitResult:
        """Train; the fitted weights are then in the model.

        Called again it goes on from the weights that the model has, with a fresh optimizer (one that was given as an
        object keeps its state), and `result.summary()` says so.

        Args:
            train: A DataLoader, a Dataset of (input, target) pairs, or a pair of arrays or tensors.
            val: Validation data of the same kinds.

        Returns:
            The outcome: mean NLL and log prior apart, history, routes.

        Raises:
            NonFiniteObjectiveError: If the objective becomes NaN or infinite; the last good weights are restored.
            DataError: If the data cannot be used.
            CoverageError: If the prior was built from another model than the one that is trained.
            InvalidArgumentError: If the number of training examples cannot be known, or patience has no
                validation data.
        """
        if self.settings.patience is not None and val is None:
            raise InvalidArgumentError("patience: early stopping needs validation data; pass val= to fit().")
        check_prior_of(self.model, self.prior)
        start = time.perf_counter()
        # A full-batch solver holds all examples: of a dataset in few large batches.
        if self._batch_size_given and isinstance(train, DataLoader):
            raise InvalidArgumentError("batch_size: a DataLoader makes batches of its own size; leave it out.")
        size = _FULL_BATCHES if isinstance(self.optimizer, str) else self.batch_size
        make = partial(as_loader, likelihood=self.likelihood, dtype=dtype_of(self.model), batch_size=size)
        loader = make(train, shuffle=True, generator=self.generator)
        # Without a generator of its own a loader draws from torch's global one; this order is fixed, so none is used.
        val_loader = None if val is None else make(val, shuffle=False, generator=torch.Generator())
        n: int | None
        if self.loss_scale is None:
            n = num_examples(loader, self.num_data)
            scale = LossScale.mean(n)
        else:
            n, scale = num_examples(loader, None, known=True), self.loss_scale
        task = Task(self.model, self.prior, self.likelihood, loader, val_loader, n, scale, start, self.progress)
        modes = {module: module.training for module in self.model.modules()}
        try:
            if isinstance(self.optimizer, str):
                result = fit_full_batch(task, self.optimizer, self.solving, self.generator)
            else:
                result = fit_epochs(task, self.optimizer, self.settings)
        finally:
            for module, training in modes.items():
                module.training = training
        self._fits += 1
        return result if self._fits == 1 else replace(result, continued=self._how_it_went_on())

    def _how_it_went_on(self) -> str:
        began = f"Fit {self._fits} of this trainer: it began at the weights that the model had"
        if isinstance(self.optimizer, str):
            return f"{began}."
        kept = isinstance(self.optimizer, Optimizer)
        return f"{began}, with {'the optimizer as it was' if kept else 'a fresh optimizer'} and a schedule of its own."
