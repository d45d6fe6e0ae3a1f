"""MAPTrainer: a model, a prior and a likelihood, trained to their MAP."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bayesreg import _checks
from bayesreg._describe import equivalent
from bayesreg._tables import Table
from bayesreg.errors import InvalidArgumentError
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Prior
from bayesreg.routes.attach import Handle
from bayesreg.scale import LossScale
from bayesreg.selection import SelectorLike
from bayesreg.trainer.data import TrainingData, as_loader, num_examples, whole
from bayesreg.trainer.full_batch import FullBatchProblem
from bayesreg.trainer.guard import Snapshot
from bayesreg.trainer.lbfgs import minimise_lbfgs
from bayesreg.trainer.loop import Loop, evaluate
from bayesreg.trainer.proximal import minimise_proximal
from bayesreg.trainer.result import FitResult, History

__all__ = ["MAPTrainer"]

Solver = Literal["lbfgs", "proximal"]
OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]


class MAPTrainer:
    """Train a model to its MAP: minimise mean NLL − log p(θ)/n.

    Args:
        model: The model; trained in place.
        prior: A `ModelPrior`, or what makes one: a single prior (on the weights; biases and norms flat) or rules.
        likelihood: From `br.likelihoods`.
        optimizer: A factory that takes param groups (`functools.partial(torch.optim.SGD, lr=0.1)`), a torch
            optimizer built from `prior.param_groups()` or `model.parameters()`, or a full-batch solver that goes to
            optimality: "lbfgs" (smooth priors), "proximal" (priors with kinks). Default Adam with lr 1e-3.
        scheduler: Factory optimizer -> learning-rate scheduler, stepped after each optimizer step.
        max_epochs: Epochs at most. Default 100.
        batch_size: For arrays and datasets. Default 32.
        accumulate: Batches per optimizer step; each example weighs the same. Default 1.
        clip_norm: Clip the gradient of the whole objective (the prior's included) to this norm.
        patience: Stop after this many epochs without a better validation NLL; needs validation data.
        restore_best: Keep the weights of the epoch with the best validation NLL (the last epoch's without
            validation data). Those are not a MAP if training stops before it: pass False to keep the last.
        num_data: Size of the training set, where it cannot be read off the data.
        tolerance: KKT residual, per example, at which a full-batch solver stops. Default 1e-9.
        max_iterations: Full-batch iterations at most. Default 10,000.
        seed: Order of the examples. Default 0.
        mixed_precision: "no", "bf16" or "fp16"; the log-prior stays in float32 or better.
        cpu: Stay on the CPU even where there is an accelerator.
        on_epoch_end: Called with each epoch's record; training stops when it returns True.
        progress: Show a progress bar. Default: yes, unless the output is not a terminal or notebook.

    Raises:
        InvalidArgumentError: If an argument is out of range.

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

    def __init__(
        self,
        model: nn.Module,
        prior: ModelPrior | Prior | Mapping[SelectorLike, Prior],
        likelihood: Likelihood,
        *,
        optimizer: Optimizer | OptimizerFactory | Solver | None = None,
        scheduler: Callable[[Optimizer], Any] | None = None,
        max_epochs: int = 100,
        batch_size: int = 32,
        accumulate: int = 1,
        clip_norm: float | None = None,
        patience: int | None = None,
        restore_best: bool = True,
        num_data: int | None = None,
        tolerance: float = 1e-9,
        max_iterations: int = 10_000,
        seed: int = 0,
        mixed_precision: Literal["no", "bf16", "fp16"] = "no",
        cpu: bool = False,
        on_epoch_end: Callable[[dict[str, Any]], bool | None] | None = None,
        progress: bool | None = None,
    ) -> None:
        if not isinstance(likelihood, Likelihood):
            raise InvalidArgumentError(
                f"likelihood: expected one of br.likelihoods (Categorical(), Gaussian(noise_std=...), "
                f"FromLoss(loss), ...), got {type(likelihood).__name__}."
            )
        if isinstance(optimizer, str) and optimizer not in ("lbfgs", "proximal"):
            raise InvalidArgumentError(
                f"optimizer: expected 'lbfgs', 'proximal', a torch optimizer or a factory of one, got {optimizer!r}."
            )
        self.model = model
        self.prior = prior if isinstance(prior, ModelPrior) else ModelPrior(model, prior)
        self.likelihood = likelihood
        self.optimizer = partial(torch.optim.Adam, lr=1e-3) if optimizer is None else optimizer
        self.scheduler = scheduler
        self.max_epochs = _checks.positive_int("max_epochs", max_epochs)
        self.batch_size = _checks.positive_int("batch_size", batch_size)
        self.accumulate = _checks.positive_int("accumulate", accumulate)
        self.clip_norm = None if clip_norm is None else _checks.positive_float("clip_norm", clip_norm)
        self.patience = None if patience is None else _checks.positive_int("patience", patience)
        self.restore_best = restore_best
        self.num_data = None if num_data is None else _checks.positive_int("num_data", num_data)
        self.tolerance = _checks.positive_float("tolerance", tolerance)
        self.max_iterations = _checks.positive_int("max_iterations", max_iterations)
        self.generator = torch.Generator().manual_seed(seed)
        if mixed_precision not in ("no", "bf16", "fp16"):
            raise InvalidArgumentError(f"mixed_precision: expected 'no', 'bf16' or 'fp16', got {mixed_precision!r}.")
        self.mixed_precision, self.cpu = mixed_precision, cpu
        self.on_epoch_end = on_epoch_end
        self.progress = progress
        if isinstance(optimizer, str):
            self._refuse_for_solver(optimizer)

    def _refuse_for_solver(self, solver: str) -> None:
        given = {"scheduler": self.scheduler, "clip_norm": self.clip_norm, "patience": self.patience}
        for name, value in given.items():
            if value is not None:
                raise InvalidArgumentError(f"{name}: optimizer={solver!r} is a full-batch solver and takes none.")

    def fit(self, train: TrainingData, val: TrainingData | None = None) -> FitResult:
        """Train; the fitted weights are then in the model.

        Args:
            train: A DataLoader, a Dataset of (input, target) pairs, or a pair of arrays or tensors.
            val: Validation data of the same kinds.

        Returns:
            The outcome: mean NLL and log prior apart, history, routes.

        Raises:
            NonFiniteObjectiveError: If the objective becomes NaN or infinite; the last good weights are restored.
            DataError: If the data cannot be used.
            InvalidArgumentError: If the number of training examples cannot be known, or patience has no
                validation data.
        """
        if self.patience is not None and val is None:
            raise InvalidArgumentError("patience: early stopping needs validation data; pass val= to fit().")
        start = time.perf_counter()
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.get_default_dtype())
        make = partial(as_loader, likelihood=self.likelihood, dtype=dtype, batch_size=self.batch_size)
        loader = make(train, shuffle=True, generator=self.generator)
        # Without a generator of its own a loader draws from torch's global one; this order is fixed, so none is used.
        val_loader = None if val is None else make(val, shuffle=False, generator=torch.Generator())
        n = num_examples(loader, self.num_data)
        training = self.model.training
        try:
            if isinstance(self.optimizer, str):
                return self._fit_full_batch(self.optimizer, loader, val_loader, n, start)
            return self._fit_stochastic(self.optimizer, loader, val_loader, n, start)
        finally:
            self.model.train(training)

    # -- full batch ------------------------------------------------------------------------------------

    def _fit_full_batch(self, solver: str, loader: Any, val_loader: Any, n: int, start: float) -> FitResult:
        device = next(self.model.parameters()).device
        self.likelihood.to(device)
        self.model.eval()
        problem = FullBatchProblem(self.model, self.prior, self.likelihood, whole(loader, device), n)
        good = Snapshot(self.model, self.likelihood)
        history = History()
        bar = self._bar(self.max_iterations, solver)

        def report(iteration: int, flat: Tensor, residual: float) -> None:
            value = problem.value(flat)
            record = {"iteration": iteration, **self._terms_at(problem, value, flat), "kkt_residual": residual}
            history.append(record)
            bar.n = min(iteration, self.max_iterations)
            bar.set_postfix_str(
                f"NLL {record['mean_nll']:.4f}, log prior {record['log_prior']:.4g}, KKT {residual:.1e}"
            )

        with torch.no_grad():
            first = float(problem.mean_nll())
        if not abs(first) < float("inf"):
            from bayesreg.trainer.guard import stop

            stop(self.model.named_parameters(), good, epoch=1, batch=1, loss=first)
        minimise = minimise_lbfgs if solver == "lbfgs" else minimise_proximal
        flat = minimise(problem, self.tolerance, self.max_iterations, report)
        bar.close()
        problem.set(flat)
        _, grad = problem.value_and_grad(flat)
        residual = problem.residual(flat, grad)
        if residual > self.tolerance and residual > 100 * torch.finfo(problem.dtype).eps:
            warnings.warn(
                f"optimizer={solver!r} stopped at a KKT residual of {residual:.1e} (asked for {self.tolerance:.1e}): "
                f"raise max_iterations, or check that a minimum exists (without a prior it may lie at infinity).",
                RuntimeWarning,
                stacklevel=4,
            )
        return self._result(
            n, whole(loader, device), val_loader, history, self._routes(solver, n), start,
            converged=residual <= self.tolerance, kkt_residual=residual,
        )  # fmt: skip

    def _terms_at(self, problem: FullBatchProblem, smooth: float, flat: Tensor) -> dict[str, float]:
        with torch.no_grad():
            penalty = float(self.prior.penalty())
            constant = float(self.prior.log_constant())
        objective = smooth + problem.kinked_value(flat)
        return {
            "mean_nll": objective - penalty * problem.scale,
            "log_prior": constant - penalty,
            "objective": objective,
        }

    def _routes(self, solver: str, n: int) -> Table:
        scale = LossScale.mean(n)
        rows: dict[str, list[str]] = {}
        kinds: dict[str, Prior] = {}
        for entry, prior in self.prior.active():
            rows.setdefault(prior.describe(), []).append(entry.name)
            kinds[prior.describe()] = prior
        table = [
            (
                ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else ""),
                words,
                "none" if words.startswith("flat") else ("loss" if kinds[words].traits.smooth else "proximal"),
                equivalent(kinds[words], scale),
            )
            for words, names in rows.items()
        ]
        return Table(
            f"Prior with the {solver} solver",
            ("parameters", "prior", "route", "weight_decay"),
            table,
            (f"Training loss = s x NLL with s = {scale.value:.4g} ({scale.origin}).",),
        )

    # -- stochastic ------------------------------------------------------------------------------------

    def _fit_stochastic(
        self, optimizer: Optimizer | OptimizerFactory, loader: Any, val_loader: Any, n: int, start: float
    ) -> FitResult:
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True) if self.cpu else Accelerator()
        self.model.to(accelerator.device)
        self.likelihood.to(accelerator.device)
        self.prior.to(accelerator.device)
        extra = [p for p in self.likelihood.parameters() if p.requires_grad]
        if not isinstance(optimizer, Optimizer):
            groups = self.prior.param_groups()
            optimizer = optimizer([*groups, {"params": extra, "weight_decay": 0.0}] if extra else groups)
        elif extra:
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            missing = [p for p in extra if id(p) not in held]
            if missing:
                optimizer.add_param_group({"params": missing, "weight_decay": 0.0})
        handle = Handle(
            optimizer,
            self.prior,
            LossScale.mean(n),
            before_clip=self.clip_norm is not None,
            without_prior=extra,
        )
        try:
            scheduler = None if self.scheduler is None else self.scheduler(optimizer)
            model, _, batches = accelerator.prepare(self.model, optimizer, loader)
            loop = Loop(
                accelerator,
                model,
                self.likelihood,
                optimizer,
                handle,
                scheduler,
                self.clip_norm,
                self.accumulate,
                self.mixed_precision,
            )
            history, best_epoch = self._epochs(loop, batches, val_loader, n)
            return self._result(n, batches, val_loader, history, handle.describe(), start, best_epoch=best_epoch)
        finally:
            handle.remove()

    def _epochs(self, loop: Loop, batches: Any, val_loader: Any, n: int) -> tuple[History, int]:
        history = History()
        good = Snapshot(self.model, self.likelihood)
        best, best_nll, best_epoch = good, float("inf"), 0
        bar = self._bar(self.max_epochs, "MAP", main=loop.accelerator.is_main_process)
        for epoch in range(1, self.max_epochs + 1):
            began = time.perf_counter()
            nll = loop.epoch(batches, epoch, good)
            good = Snapshot(self.model, self.likelihood)
            with torch.no_grad():
                penalty, constant = float(self.prior.penalty()), float(self.prior.log_constant())
            record: dict[str, Any] = {
                "epoch": epoch,
                "mean_nll": nll,
                "log_prior": constant - penalty,
                "objective": nll + penalty / n,
            }
            if val_loader is not None:
                device = loop.accelerator.device
                record["val_nll"], metric = evaluate(self.model, self.likelihood, val_loader, device)
                record[f"val_{self.likelihood.metric_name}"] = metric
            record["lr"] = float(loop.optimizer.param_groups[0]["lr"])
            record["seconds"] = time.perf_counter() - began
            history.append(record)
            bar.update()
            bar.set_postfix_str(f"NLL {nll:.4f}, log prior {record['log_prior']:.4g}")
            if val_loader is None or record["val_nll"] < best_nll:
                best, best_nll, best_epoch = good, record.get("val_nll", 0.0), epoch
            wants_stop = self.on_epoch_end is not None and bool(self.on_epoch_end(record))
            if wants_stop or (self.patience is not None and epoch - best_epoch >= self.patience):
                break
        bar.close()
        if not self.restore_best:
            return history, epoch
        if best_epoch != epoch:
            best.restore()
        return history, best_epoch

    # -- both ------------------------------------------------------------------------------------------

    def _result(
        self, n: int, batches: Any, val_loader: Any, history: History, routes: Table, start: float, **more: Any
    ) -> FitResult:
        device = next(self.model.parameters()).device
        mean_nll, _ = evaluate(self.model, self.likelihood, batches, device)
        with torch.no_grad():
            penalty, constant = float(self.prior.penalty()), float(self.prior.log_constant())
        val_nll, val_metric = (None, None)
        if val_loader is not None:
            val_nll, val_metric = evaluate(self.model, self.likelihood, val_loader, device)
        return FitResult(
            mean_nll=mean_nll,
            log_prior=constant - penalty,
            log_prior_constant=constant,
            objective=mean_nll + penalty / n,
            num_data=n,
            history=history,
            routes=routes,
            exact_zeros=self._exact_zeros(),
            val_nll=val_nll,
            val_metric=val_metric,
            metric_name=self.likelihood.metric_name,
            seconds=time.perf_counter() - start,
            **more,
        )

    def _exact_zeros(self) -> float | None:
        kinked = [(e.parameter, p) for e, p in self.prior.active() if not p.traits.smooth and p.traits.has_prox]
        if not kinked:
            return None
        zeros = sum(int(p.at_kink(parameter).sum()) for parameter, p in kinked)
        return zeros / sum(parameter.numel() for parameter, _ in kinked)

    def _bar(self, total: int, label: str, main: bool = True) -> Any:
        from tqdm.auto import tqdm

        # tqdm's None means: only where the output is a terminal.
        disable = None if self.progress is None else not self.progress
        return tqdm(total=total, desc=label, disable=disable if main else True, leave=False)
