"""The demo's experiment: five ways to train on few examples, strengths chosen without the target task."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import bayesreg as br
from bayesreg._support.progress import progress_bar
from bayesreg._support.tables import Table
from bayesreg.conversion import LossScale
from bayesreg.demo.tasks import ROTATION, Split, draw, load_tasks
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Flat, Gaussian, Laplace, Prior
from bayesreg.priors.equivalents import equivalent
from bayesreg.trainer.loop import evaluate

__all__ = ["SIZES", "DemoResult", "run_demo"]

SIZES = (10, 20, 50, 100)
SEEDS = tuple(range(5))
REHEARSALS = (100, 101)
HIDDEN = 32
TOLERANCE = 3e-4


@dataclass(frozen=True)
class Method:
    """One way to train on the target task.

    Attributes:
        start: Where the weights start: "scratch" or "source".
        scales: The prior scales to choose from; none without a prior.
        make: Scale and source model to prior.
    """

    start: str
    scales: tuple[float, ...] = ()
    make: Callable[[float, nn.Module], Prior] = lambda _scale, _source: Flat()


METHODS = {
    "no prior": Method("scratch"),
    "L2": Method("scratch", (0.3, 1.0, 3.0, 10.0, 30.0), lambda scale, _: Gaussian(scale)),
    "L1": Method("scratch", (3.0, 10.0, 30.0, 100.0), lambda scale, _: Laplace(scale)),
    "fine-tuning, no prior": Method("source"),
    "source prior": Method(
        "source", (0.3, 1.0, 3.0, 10.0, 30.0), lambda scale, source: Gaussian.centered_at(source, scale)
    ),
}


@dataclass(frozen=True)
class DemoResult:
    """Everything the demo found.

    Attributes:
        rows: One record per method, n and seed.
        scales: The prior scale chosen for each method and n.
        rehearsal: Mean validation NLL of each method, n and scale in the rehearsal.
        zero_shot: Accuracy and NLL of the source model on the target test images, untrained.
        seconds: Wall-clock time.
    """

    rows: list[dict[str, Any]]
    scales: dict[str, dict[int, float]]
    rehearsal: list[dict[str, Any]] = field(repr=False)
    zero_shot: dict[str, float]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {
            "data": "scikit-learn digits, 8x8",
            "shift": SHIFT,
            "strength": STRENGTH,
            "zero_shot": self.zero_shot,
            "scales": {m: {str(n): s for n, s in by_n.items()} for m, by_n in self.scales.items()},
            "results": self.rows,
            "rehearsal": self.rehearsal,
            "seconds": self.seconds,
            "bayesreg": br.__version__,
            "torch": torch.__version__,
        }

    def cells(self, method: str, n: int, what: str) -> list[float]:
        """Return one number per seed."""
        return [row[what] for row in self.rows if row["method"] == method and row["n"] == n]

    def accuracy_table(self) -> Table:
        """Return accuracy per method and n, mean ± standard deviation over seeds."""
        rows = [(m, *(_spread(self.cells(m, n, "accuracy"), 3) for n in SIZES)) for m in METHODS]
        zero = f"Source model on the same test images without training: accuracy {self.zero_shot['accuracy']:.3f}, "
        zero += f"NLL {self.zero_shot['nll']:.2f}."
        columns = ("method", *(f"n = {n}" for n in SIZES))
        return Table("Accuracy on 497 target test images, mean ± sd over 5 seeds", columns, rows, (SHIFT, START, zero))

    def table(self) -> Table:
        """Return NLL, strength, equivalent constant and zeros per method and n."""
        rows = []
        for method in METHODS:
            for n in SIZES:
                zeros = [z for z in self.cells(method, n, "exact_zeros") if z is not None]
                constant = next(row["equivalent"] for row in self.rows if row["method"] == method and row["n"] == n)
                scale = self.scales.get(method, {}).get(n)
                share = f"{statistics.mean(zeros):.0%}" if zeros else ""
                rows.append((method, n, _spread(self.cells(method, n, "nll"), 2), scale, constant, share))
        early = [row["method"] for row in self.rows if not row["converged"]]
        which = ", ".join(f"{early.count(method)} {method}" for method in dict.fromkeys(early))
        solved = (
            f"Every fit is a full-batch solve, at most 300 iterations, until no gradient exceeds {TOLERANCE:g} nats"
        )
        solved += f" per example; stopped before it: {which or 'none'} of {len(SEEDS) * len(SIZES)}."
        notes = (STRENGTH, self._edges(), "prior scale: the standard deviation; for L1 the Laplace scale b.", solved)
        columns = ("method", "n", "NLL", "prior scale", "equivalent weight_decay", "exact zeros")
        return Table("What each setting is as a weight decay", columns, rows, notes)

    def _edges(self) -> str:
        """Say which choices lie at an end of their grid, where a better one may lie outside."""
        ends = [
            f"{method} at n = {n}"
            for method, by_n in self.scales.items()
            for n, scale in by_n.items()
            if scale in (METHODS[method].scales[0], METHODS[method].scales[-1])
        ]
        return f"Chosen at an end of the grid, so a better strength may lie outside: {', '.join(ends) or 'none'}."


START = "fine-tuning and source prior start at the source weights, the others from scratch."
SHIFT = (
    f"Shift: the source task is upright digits, the target task other digits turned by {ROTATION:g} degrees about the "
    f"image centre (bilinear, 8x8 pixels)."
)
STRENGTH = (
    f"Strength: chosen per method and n on a rehearsal made of source images only, turned by {-ROTATION:g} degrees: "
    f"n of them train, the rest validate, the scale of the best mean validation NLL is kept. Target labels other than "
    f"the n training ones are used for the final numbers alone."
)


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def _network(seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 10)).double()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            assert isinstance(layer, nn.Linear)
            bound = 1.0 / math.sqrt(layer.in_features)
            for parameter in (layer.weight, layer.bias):
                draw_ = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(bound * (2.0 * draw_ - 1.0))
    return model


def _fit(model: nn.Module, prior: Prior, data: Split) -> br.FitResult:
    solver = "lbfgs" if prior.traits.smooth else "proximal"
    trainer = br.MAPTrainer(
        model,
        prior,
        br.likelihoods.Categorical(),
        optimizer=solver,  # type: ignore[arg-type]
        tolerance=TOLERANCE,
        max_iterations=300,
        progress=False,
    )
    with warnings.catch_warnings():
        # Whether the tolerance was reached is recorded with every fit; without a prior the optimum lies at infinity.
        warnings.simplefilter("ignore", RuntimeWarning)
        return trainer.fit(data)


def _score(model: nn.Module, data: Split) -> tuple[float, float]:
    nll, accuracy = evaluate(model, br.likelihoods.Categorical(), [data], torch.device("cpu"))
    return accuracy, nll


def _train(method: str, scale: float | None, source: nn.Sequential, data: Split, seed: int) -> tuple[Any, ...]:
    model = _network(seed)
    if METHODS[method].start == "source":
        model.load_state_dict(source.state_dict())
    return model, _fit(model, _prior(method, scale, source), data)


def _prior(method: str, scale: float | None, source: nn.Module) -> Prior:
    return Flat() if scale is None else METHODS[method].make(scale, source)


def run_demo(progress: bool | None = None) -> DemoResult:
    """Run the experiment: a source model, a rehearsal that chooses strengths, and the target task.

    Args:
        progress: Show a progress bar; default only in a terminal.

    Returns:
        The result.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    start = time.perf_counter()
    threads = torch.get_num_threads()
    # Tensors this small are slower on many threads, and very slow where the cores are shared.
    torch.set_num_threads(1)
    try:
        return _run(start, progress)
    finally:
        torch.set_num_threads(threads)


def _run(start: float, progress: bool | None) -> DemoResult:
    tasks = load_tasks()
    settings = sum(len(method.scales) for method in METHODS.values())
    fits = len(SIZES) * (settings * len(REHEARSALS) + len(METHODS) * len(SEEDS))
    bar = progress_bar(fits, "demo", progress)
    source = _network(seed=1)
    _fit(source, Gaussian(0.3), tasks.source)

    rehearsal: list[dict[str, Any]] = []
    scales: dict[str, dict[int, float]] = {}
    for method in [name for name, kind in METHODS.items() if kind.scales]:
        for n in SIZES:
            means: dict[float, float] = {}
            for scale in METHODS[method].scales:
                scores = []
                for seed in REHEARSALS:
                    few, rest = draw(tasks.rehearsal, n, seed)
                    model, _ = _train(method, scale, source, few, seed)
                    scores.append(_score(model, rest)[1])
                    bar.update()
                means[scale] = statistics.mean(scores)
                rehearsal.append({"method": method, "n": n, "scale": scale, "nll": means[scale]})
            scales.setdefault(method, {})[n] = min(means, key=lambda s: means[s])

    rows: list[dict[str, Any]] = []
    for method in METHODS:
        for n in SIZES:
            for seed in SEEDS:
                few, _ = draw(tasks.target_pool, n, seed)
                strength = scales.get(method, {}).get(n)
                model, result = _train(method, strength, source, few, seed)
                accuracy, nll = _score(model, tasks.target_test)
                rows.append({
                    "method": method,
                    "n": n,
                    "seed": seed,
                    "accuracy": accuracy,
                    "nll": nll,
                    "exact_zeros": result.exact_zeros,
                    "converged": result.converged,
                    "scale": strength,
                    "equivalent": _equivalent(model, method, strength, source, n),
                })
                bar.update()
    bar.close()
    accuracy, nll = _score(source, tasks.target_test)
    zero_shot = {"accuracy": accuracy, "nll": nll}
    return DemoResult(rows, scales, rehearsal, zero_shot, time.perf_counter() - start)


def _equivalent(model: nn.Module, method: str, scale: float | None, source: nn.Module, n: int) -> str:
    prior = ModelPrior(model, _prior(method, scale, source))["0.weight"]
    return equivalent(prior, LossScale.mean(n))
