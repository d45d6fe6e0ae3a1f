"""MAPTrainer: a model, a prior and a likelihood, trained to their MAP."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.callbacks import Callback
from bayesreg.conversion import LossScale
from bayesreg.data import (
    BatchFormat,
    Counting,
    Kind,
    Metric,
    Reading,
    TrainingData,
    WeightsAre,
    as_loader,
    check_metrics,
    dtype_of,
    evaluate,
    feature_columns,
    in_order,
    makes_batches,
    predicted,
    size_of,
)
from bayesreg.errors import InvalidArgumentError, kind_of
from bayesreg.horizon.schedules import ScheduleName
from bayesreg.likelihoods import Likelihood, Tokens
from bayesreg.likelihoods.output import OutputPick, check_pick
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.coverage import check_prior_of
from bayesreg.priors import Belief
from bayesreg.selection import SelectorLike
from bayesreg.trainer.averaging import WeightAverage
from bayesreg.trainer.checkpoint.folder import RunFolder
from bayesreg.trainer.checkpoint.keeper import Keeper
from bayesreg.trainer.checkpoint.setup import named, of_arrays, of_module, of_prior
from bayesreg.trainer.epochs import EpochFit
from bayesreg.trainer.making import OptimizerFactory
from bayesreg.trainer.result import FitResult
from bayesreg.trainer.settings import EpochSettings, Keeping
from bayesreg.trainer.solve import FullBatchFit, Solver, SolveSettings
from bayesreg.trainer.task import Task

__all__ = ["MAPTrainer"]

_FULL_BATCHES = 4096
# Of data that are only looked at.
_AT_ONCE = 1024


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


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _weights_are(given: object, sample_weight: object) -> WeightsAre:
    if given is None:
        return "counts"
    if given not in ("counts", "relative"):
        raise InvalidArgumentError(f"weights_are: expected 'counts' or 'relative', got {given!r}.")
    if sample_weight is None:
        raise InvalidArgumentError("weights_are: there are no weights; say which entry they are, sample_weight=.")
    return given


def _scale_of(counting: Counting, *, tokens: bool) -> LossScale:
    n = counting.num_data
    assert n is not None
    if n == int(n):
        return LossScale.tokens(int(n)) if tokens else LossScale.mean(int(n))
    return LossScale(1.0 / n, origin=f"mean NLL over {n:g} examples, by their weights")


def _require_shift(model: nn.Module, likelihood: Likelihood) -> None:
    """Raise if a causal model of Hugging Face would learn to repeat its input: its labels are not shifted."""
    name = type(model).__name__
    if isinstance(likelihood, Tokens) and not likelihood.shift and name.endswith(("ForCausalLM", "LMHeadModel")):
        raise InvalidArgumentError(
            f"likelihood: the labels of {name} are its inputs, and each position predicts the token after it: "
            f"br.likelihoods.Tokens(shift=True)."
        )


class MAPTrainer:
    """Train a model to its MAP: minimise mean NLL − s·log p(θ), with s = 1/n.

    Args:
        model: The model; trained in place.
        prior: A `ModelPrior`, or what makes one: a single prior (on matrices and kernels; all else flat) or rules.
        likelihood: From `br.likelihoods`.
        optimizer: A factory that takes param groups (`functools.partial(torch.optim.SGD, lr=0.1)`), a torch
            optimizer built from `prior.param_groups()` or `model.parameters()`, or a full-batch solver that goes to
            optimality: "lbfgs" (smooth priors), "proximal" (priors with kinks); of a model that is one linear layer
            both begin with Newton's method. Default Adam with lr 1e-3.
        scheduler: "constant", "linear" or "cosine" (to 0 over all steps), or a factory optimizer -> learning-rate
            scheduler. `ReduceLROnPlateau` is stepped once per epoch with the validation NLL (the running objective
            without validation data).
        warmup: Optimizer steps, or a share of all of them, in which the learning rate of a schedule by name rises.
        scheduler_interval: Whether other schedulers are stepped after each optimizer "step" (default) or "epoch".
        max_epochs: Passes over the data at most. Default 100, or as many as `max_steps` needs; a full-batch solver
            makes one in each iteration, so it is `max_iterations` there.
        max_steps: Optimizer steps at most.
        evaluate_every: Measure, note and compare after so many optimizer steps, not at the end of each epoch; what is
            said of epochs (`patience`, `restore_best`, `on_epoch_end`) then goes for those records.
        batch_size: For arrays and datasets. Default 32.
        accumulate: Batches per optimizer step; each example weighs the same. Default 1.
        clip_norm: Clip the gradient of the whole objective (the prior's included) to this norm.
        patience: Stop after this many epochs without a better validation NLL; needs validation data.
        restore_best: Keep the weights of the epoch with the best validation NLL (the last epoch's without
            validation data), the default. Those are not a MAP if training stops before it: pass False to keep the last.
        monitor: The number of the record that says which epoch is best, for both: "val_nll" (default), or that of
            another metric, such as "val_accuracy".
        monitor_mode: Whether its "min" or its "max" is best; needed where its name does not tell.
        metrics: Functions by name, measured on validation data and by `evaluate`: of all outputs and all targets, or
            objects with update, compute and reset, as torchmetrics has them.
        average: "ema" or "swa", or a `br.WeightAverage`: the average of the weights along the way is what is
            validated, compared and kept.
        measure: Whether the training data are read once more at the end, for the exact `mean_nll` of the final
            weights. Default True; False spares a pass, and what was met on the way stands for it, as for a stream
            whose end was not met.
        num_data: Size of the training set, where it cannot be read off the data (of texts the number of unmasked
            tokens, of weighted examples the sum of the weights); or the `LossScale` of the mean NLL over examples:
            `br.LossScale.mean(n, likelihood_weight=2.0)` emphasises the likelihood.
        target: Which entry of a batch is the target: a key of mappings and tables (default "labels"), a place in
            tuples (default the second of two). All other entries are inputs, and go into the model by keyword or one
            after another.
        sample_weight: Which entry is the weight of each example; default none is.
        weights_are: "counts" (default): an example of weight 2 is two of them, in the NLL and in n, so that the
            prior loses as the weights grow. "relative": only their ratios count; they are divided by their mean, and n
            is the number of examples.
        output: Which output of the model the likelihood takes: a key, a place, or a function of what the model
            returned. Default: the tensor it returned, or `logits` of a mapping or a dataclass.
        tolerance: KKT residual, per example, at which a full-batch solver stops. Default 1e-9; models in float32
            are taken as far as their precision goes, about 1e-5.
        max_iterations: Full-batch iterations at most. Default 10,000.
        starts: For full-batch solvers: how many starting points to try, the present weights first, then draws from
            the prior. The lowest optimum is kept and `result.modes` lists all that were found. Default 1.
        seed: Order of the examples, and the draws of `starts`. Default 0.
        mixed_precision: "no", "bf16" or "fp16"; the log-prior stays in float32 or better.
        cpu: Stay on the CPU even where there is an accelerator.
        checkpoint: Folder in which the run's whole state is kept, at the end of each epoch (of a solver: every ten
            seconds), so that `fit(..., resume=True)` goes on to the same weights after a kill. One run each.
        checkpoint_every: Optimizer steps from one checkpoint to the next, instead (of a solver: at each report).
        deterministic: Have torch use deterministic algorithms alone while it trains, and raise where it has none.
        callbacks: Objects of `br.callbacks`, or of a class made from `br.callbacks.Callback`: loggers, a profiler, own
            ones. Called at the start, after each step, after each record, at the end; they may stop the training.
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
        scheduler: Callable[[Optimizer], Any] | ScheduleName | None = None,
        scheduler_interval: Literal["step", "epoch"] | None = None,
        warmup: float | None = None,
        max_epochs: int | None = None,
        max_steps: int | None = None,
        evaluate_every: int | None = None,
        batch_size: int | None = None,
        accumulate: int | None = None,
        clip_norm: float | None = None,
        patience: int | None = None,
        restore_best: bool | None = None,
        monitor: str | None = None,
        monitor_mode: Literal["min", "max"] | None = None,
        metrics: Mapping[str, Metric] | None = None,
        average: Literal["ema", "swa"] | WeightAverage | None = None,
        measure: bool | None = None,
        num_data: int | LossScale | None = None,
        target: str | int | None = None,
        sample_weight: str | int | None = None,
        weights_are: WeightsAre | None = None,
        output: OutputPick | None = None,
        tolerance: float | None = None,
        max_iterations: int | None = None,
        starts: int | None = None,
        seed: int = 0,
        mixed_precision: Literal["no", "bf16", "fp16"] | None = None,
        cpu: bool | None = None,
        deterministic: bool | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        callbacks: Callback | Sequence[Callback] | None = None,
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
        _require_shift(model, likelihood)
        checks.accepts("on_epoch_end", on_epoch_end, 1, "the record of an epoch")
        if not isinstance(scheduler, str):
            checks.accepts("scheduler", scheduler, 1, "the optimizer")
        self.model = model
        self.prior = prior if isinstance(prior, ModelPrior) else ModelPrior(model, prior)
        self.likelihood = likelihood
        self.optimizer = partial(torch.optim.Adam, lr=1e-3) if optimizer is None else optimizer
        by_epoch: dict[str, Any] = {
            "scheduler": scheduler,
            "scheduler_interval": scheduler_interval,
            "warmup": warmup,
            "max_epochs": max_epochs,
            "max_steps": max_steps,
            "evaluate_every": evaluate_every,
            "accumulate": accumulate,
            "clip_norm": clip_norm,
            "patience": patience,
            "restore_best": restore_best,
            "monitor": monitor,
            "monitor_mode": monitor_mode,
            "average": average,
            "measure": measure,
            "mixed_precision": mixed_precision,
            "cpu": cpu,
            "deterministic": deterministic,
            "callbacks": callbacks,
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
        self.metrics = check_metrics(metrics, likelihood.metric_name)
        self.keeping = Keeping(checkpoint, checkpoint_every)
        self.form = BatchFormat(target, sample_weight)
        self.weights_are: WeightsAre = _weights_are(weights_are, sample_weight)
        check_pick(output)
        self.output = output
        self._batch_size_given = batch_size is not None
        self.batch_size = 32 if batch_size is None else checks.positive_int("batch_size", batch_size)
        self.loss_scale = num_data if isinstance(num_data, LossScale) else None
        self.num_data = None if num_data is None or self.loss_scale else checks.positive_int("num_data", num_data)
        self.generator = torch.Generator().manual_seed(checks.seed("seed", seed))
        self.seed, self.progress = seed, progress
        #: The columns of a table that was trained on, in order; None without one.
        self.feature_names: tuple[Any, ...] | None = None
        #: The outcome of the last fit, of one that was interrupted too.
        self.result: FitResult | None = None
        self._fits = 0

    @answering
    def fit(self, train: TrainingData, val: TrainingData | None = None, *, resume: bool = False) -> FitResult:
        """Train; the fitted weights are then in the model.

        Called again it goes on from the weights that the model has, with a fresh optimizer (one that was given as an
        object keeps its state), and `result.summary()` says so. An error or an interrupt passes through; the best
        weights before it are then in the model, and `trainer.result` has the history.

        Args:
            train: A DataLoader, a Dataset (of pairs, or of mappings as Hugging Face has them), a table with the target
                as a column, a mapping of arrays, or a pair of arrays or tensors.
            val: Validation data of the same kinds.
            resume: Go on from the newest good checkpoint in the folder `checkpoint`; begin where there is none.

        Returns:
            The outcome: mean NLL and log prior apart, history, routes.

        Raises:
            NonFiniteObjectiveError: If the objective becomes NaN or infinite; the last good weights are restored.
            DataError: If the data cannot be used: what a batch was, and what was expected.
            CoverageError: If the prior was built from another model than the one that is trained.
            InvalidArgumentError: If the number of training examples cannot be known, patience has no validation
                data, or resume no folder.
            CheckpointError: If the folder holds a run and `resume` is False, a run of other settings, one that is
                still at work, or none that can be read.
            OSError: If a checkpoint cannot be written; those before it are as they were.
        """
        if val is None and (self.settings.patience is not None or self.settings.monitor != "val_nll"):
            name = "monitor" if self.settings.patience is None else "patience"
            raise InvalidArgumentError(f"{name}: early stopping needs validation data; pass val= to fit().")
        if val is not None and not isinstance(self.optimizer, str):
            _ = self.settings.sign
        if checks.flag("resume", resume) and self.keeping.checkpoint is None:
            raise InvalidArgumentError("resume: needs the folder of the run; MAPTrainer(..., checkpoint='runs/a').")
        check_prior_of(self.model, self.prior)
        task = self._task(train, val)
        modes = {module: module.training for module in self.model.modules()}
        folders: list[RunFolder] = []
        keep = None if self.keeping.checkpoint is None else partial(self._keeper, task, resume, folders)
        run: EpochFit | FullBatchFit | None = None
        try:
            if isinstance(self.optimizer, str):
                run = FullBatchFit(task, self.optimizer, self.solving, self.generator, keep)
            else:
                run = EpochFit(task, self.optimizer, self.settings, keep)
            result = run.fit()
        except BaseException:
            self.result = None if run is None else run.partial
            raise
        finally:
            for folder in folders:
                folder.close()
            for module, training in modes.items():
                module.training = training
        self._fits += 1
        self.result = result if self._fits == 1 else replace(result, continued=self._how_it_went_on())
        return self.result

    def _task(self, train: TrainingData, val: TrainingData | None) -> Task:
        """Return what is trained on what."""
        start = time.perf_counter()
        # A full-batch solver holds all examples: of a dataset in few large batches.
        if self._batch_size_given and makes_batches(train):
            kind = "DataLoader" if isinstance(train, DataLoader) else "stream of batches"
            raise InvalidArgumentError(f"batch_size: a {kind} makes batches of its own size; leave it out.")
        size = _FULL_BATCHES if isinstance(self.optimizer, str) else self.batch_size
        self.feature_names = feature_columns(train, self.form)
        loader = self._loader(train, size, shuffle=True, generator=self.generator)
        val_loader = None if val is None else self._loader(val, size)
        known = self.loss_scale is not None
        counting = size_of(
            loader, self.likelihood, self.form, num_data=self.num_data, known=known, weights_are=self.weights_are
        )
        scale = self.loss_scale or _scale_of(counting, tokens=self.likelihood.counts_within)
        n = counting.num_data
        n = int(n) if n is not None and n == int(n) else n
        reading = Reading(self.likelihood, self.form, self.output, counting)
        return Task(self.model, self.prior, reading, loader, val_loader, n, scale, start, self.progress, self.metrics)

    def _loader(
        self, data: TrainingData, size: int, *, shuffle: bool = False, generator: torch.Generator | None = None
    ) -> DataLoader[Any]:
        # Without a generator of its own a loader draws from torch's global one; a fixed order has no use for it.
        draws = torch.Generator() if generator is None else generator
        dtype = dtype_of(self.model)
        data = in_order(data, self.feature_names)
        return as_loader(
            data, self.likelihood, dtype, batch_size=size, shuffle=shuffle, generator=draws, form=self.form
        )

    def _keeper(self, task: Task, resume: bool, folders: list[RunFolder], main: bool) -> Keeper:
        """Return what keeps this run in its folder."""
        assert self.keeping.checkpoint is not None
        folder = RunFolder(self.keeping.checkpoint, main=main)
        folders.append(folder)
        how: dict[str, Any] = {
            "seed": self.seed,
            "output": named(self.output),
            "target": self.form.target,
            "sample_weight": self.form.sample_weight,
            "weights_are": self.weights_are,
        }
        if isinstance(self.optimizer, str):
            how |= {"optimizer": self.optimizer, "starts": self.solving.starts}
        else:
            names = ("accumulate", "clip_norm", "mixed_precision", "scheduler_interval", "evaluate_every", "warmup")
            how |= {name: getattr(self.settings, name) for name in names}
            average = self.settings.average
            how |= {"average": None if average is None else str(average), "monitor": self.settings.monitor}
            how |= {"scheduler": named(self.settings.scheduler), "batch_size": task.loader.batch_size}
        likelihood = self.likelihood
        given = likelihood.settings() or {"described": likelihood.describe()}
        learned = {"noise_std"} if given.get("learned") else set()
        setup = {
            "model": of_module(task.model),
            "prior": of_prior(task.prior),
            "likelihood": {
                "kind": type(likelihood).__name__, **{k: v for k, v in given.items() if k not in learned},
            },
            "training set": {"size": task.num_data, "content": of_arrays(task.loader.dataset)},
            "loss scale": task.loss_scale.value,
            "setting": how,
        }  # fmt: skip
        return Keeper(folder, self.keeping.checkpoint_every, resume=resume, setup=setup, prior=task.prior)

    @answering
    def evaluate(self, data: TrainingData, *, batch_size: int | None = None) -> dict[str, float]:
        """Measure the model as it is on data with targets, in evaluation mode.

        Args:
            data: As `fit` takes it.
            batch_size: For arrays and datasets. Default 1024.

        Returns:
            "nll", the mean NLL per example as examples count, the likelihood's metric ("accuracy", "mse", ...), and
            each of `metrics`.

        Raises:
            DataError: If the data cannot be used.
            InvalidArgumentError: If the batch size is not positive.

        Example:
            >>> import bayesreg as br
            >>> trainer = MAPTrainer(nn.Linear(2, 2), br.Gaussian(1.0), br.likelihoods.Categorical())
            >>> sorted(trainer.evaluate((torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))))
            ['accuracy', 'nll']
        """
        size = _AT_ONCE if batch_size is None else checks.positive_int("batch_size", batch_size)
        reading = Reading(self.likelihood, self.form, self.output)
        return evaluate(self.model, reading, self._loader(data, size), _device(self.model), self.metrics)

    @answering
    def predict(
        self, data: Any, *, kind: Kind = "distribution", batch_size: int | None = None
    ) -> Distribution | Tensor:
        """Return what the model as it is predicts, batch by batch, in evaluation mode.

        Args:
            data: Inputs: an array, tensor or table, several in a tuple or a mapping, or a loader or dataset of inputs
                or of batches as in training, whose targets are not looked at.
            kind: "distribution" (default), that of the target given the inputs at the trained weights, with the
                noise and without what is not known of the weights; "mean"; "probabilities" of classes; "classes", the
                likeliest; or "output", what the model returned.
            batch_size: For arrays and datasets. Default 1024.

        Returns:
            For all inputs in their order, on the model's device: a torch distribution, or a tensor.

        Raises:
            DataError: If the data cannot be used, or outputs differ in shape from batch to batch.
            InvalidArgumentError: If the kind is none of these, or the batch size not positive.
            UnsupportedError: If the likelihood has no such prediction, as classes have no mean.

        Example:
            >>> import bayesreg as br
            >>> trainer = MAPTrainer(nn.Linear(2, 3), br.Gaussian(1.0), br.likelihoods.Categorical())
            >>> trainer.predict(torch.zeros(4, 2), kind="probabilities").shape
            torch.Size([4, 3])
        """
        size = _AT_ONCE if batch_size is None else checks.positive_int("batch_size", batch_size)
        reading = Reading(self.likelihood, self.form, self.output)
        return predicted(self.model, reading, in_order(data, self.feature_names), kind, size)

    def _how_it_went_on(self) -> str:
        began = f"Fit {self._fits} of this trainer: it began at the weights that the model had"
        if isinstance(self.optimizer, str):
            return f"{began}."
        kept = isinstance(self.optimizer, Optimizer)
        return f"{began}, with {'the optimizer as it was' if kept else 'a fresh optimizer'} and a schedule of its own."
