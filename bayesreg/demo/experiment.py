"""The demo's experiment: five ways to train on few examples, strengths chosen without a grid."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

import bayesreg as br
from bayesreg._support.progress import progress_bar
from bayesreg._support.tables import Table
from bayesreg.conversion import LossScale
from bayesreg.data import Batch, Reading, evaluate
from bayesreg.demo.tasks import ROTATION, Split, draw, load_tasks
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Flat, Gaussian, Laplace, Prior
from bayesreg.priors.equivalents import equivalent

__all__ = ["SIZES", "DemoResult", "run_demo"]

SIZES = (10, 20, 50, 100)
SEEDS = tuple(range(5))
REHEARSALS = 3
HIDDEN = 32
TOLERANCE = 3e-4


@dataclass(frozen=True)
class Method:
    """One way to train on the target task.

    Attributes:
        start: Where the weights start: "scratch" or "source".
        prior: Scale and source model to prior; None without one.
        strength: Whether "choice" or "rehearsal" says how strong it is.
        rehearsed: Whether source data are asked how strong it should be: of a choice, the hyperprior's middle.
    """

    start: Literal["scratch", "source"]
    prior: Callable[[float, nn.Module], Prior] | None = None
    strength: Literal["choice", "rehearsal"] = "choice"
    rehearsed: bool = False


METHODS = {
    "no prior": Method("scratch"),
    "L2": Method("scratch", lambda scale, _: Gaussian(scale)),
    # Five folds of a network with kinks, for every draw, take longer than a demo may.
    "L1": Method("scratch", lambda scale, _: Laplace(scale), "rehearsal", rehearsed=True),
    "fine-tuning, no prior": Method("source"),
    "source prior": Method("source", lambda scale, source: Gaussian.centered_at(source, scale), rehearsed=True),
}


@dataclass(frozen=True)
class DemoResult:
    """Everything the demo found.

    Attributes:
        rows: One record per method, n and seed.
        rehearsed: The scale that source data ask for, of each method that asks them, by n.
        zero_shot: Accuracy and NLL of the source model on the target test images, untrained.
        seconds: Wall-clock time.
    """

    rows: list[dict[str, Any]]
    rehearsed: dict[str, dict[int, float]]
    zero_shot: dict[str, float]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {
            "data": "scikit-learn digits, 8x8",
            "shift": SHIFT,
            "strength": STRENGTH,
            "zero_shot": self.zero_shot,
            "rehearsed": {m: {str(n): s for n, s in by_n.items()} for m, by_n in self.rehearsed.items()},
            "results": self.rows,
            "seconds": self.seconds,
            "bayesreg": br.__version__,
            "torch": torch.__version__,
        }

    def cells(self, method: str, n: int, what: str) -> list[Any]:
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
        for method, kind in METHODS.items():
            for n in SIZES:
                zeros = [z for z in self.cells(method, n, "exact_zeros") if z is not None]
                share = f"{statistics.mean(zeros):.0%}" if zeros else ""
                middle = sorted(self.cells(method, n, "scale"))[len(SEEDS) // 2] if kind.prior else None
                constant = dict(zip(self.cells(method, n, "scale"), self.cells(method, n, "equivalent"), strict=True))
                by = ", ".join(sorted(set(self.cells(method, n, "chosen by"))))
                rows.append((method, n, _spread(self.cells(method, n, "nll"), 2), middle, by, constant[middle], share))
        early = [row["method"] for row in self.rows if row["converged"] is False]
        which = ", ".join(f"{early.count(method)} {method}" for method in dict.fromkeys(early))
        solved = (
            f"Fits without a choice are full-batch solves, at most 300 iterations, until no gradient exceeds "
            f"{TOLERANCE:g} nats per example; stopped before it: {which or 'none'} of {len(SEEDS) * len(SIZES)}."
        )
        scale = "prior scale: the standard deviation, for L1 the Laplace scale b; the median of five draws."
        columns = ("method", "n", "NLL", "prior scale", "chosen by", "equivalent weight_decay", "exact zeros")
        return Table("What each setting is as a weight decay", columns, rows, (STRENGTH, scale, solved))


START = "fine-tuning and source prior start at the source weights, the others from scratch."
SHIFT = (
    f"Shift: the source task is upright digits, the target task other digits turned by {ROTATION:g} degrees about the "
    f"image centre (bilinear, 8x8 pixels)."
)
STRENGTH = (
    f"Strength: by br.choose_strength, from the n training examples alone (by leave-one-out; at one example per class, "
    f"and about the source at fewer than five, they cannot tell, and the hyperprior's centre is taken). About the "
    f"source that centre is what br.transfer.rehearse finds on source images turned by {-ROTATION:g} degrees; L1 has "
    f"the rehearsed strength itself. No other target label has a part in it."
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
    found = evaluate(model, Reading(br.likelihoods.Categorical()), [Batch(*data)], torch.device("cpu"))
    return found["accuracy"], found["nll"]


def run_demo(progress: bool | None = None) -> DemoResult:
    """Run the experiment: a source model, a rehearsal, and the target task with strengths that are chosen.

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
    asked = [method for method, kind in METHODS.items() if kind.rehearsed]
    bar = progress_bar(len(SIZES) * (len(asked) + len(METHODS) * len(SEEDS)), "demo", progress)
    source = _network(seed=1)
    _fit(source, Gaussian(0.3), tasks.source)

    rehearsed: dict[str, dict[int, float]] = {}
    for method in asked:
        for n in SIZES:
            rehearsed.setdefault(method, {})[n] = _rehearse(method, source, tasks.rehearsal, n)
            bar.update()

    rows: list[dict[str, Any]] = []
    for method in METHODS:
        for n in SIZES:
            for seed in SEEDS:
                few, _ = draw(tasks.target_pool, n, seed)
                model, found = _train(method, rehearsed.get(method, {}).get(n), source, few, seed)
                accuracy, nll = _score(model, tasks.target_test)
                rows.append({
                    "method": method,
                    "n": n,
                    "seed": seed,
                    "accuracy": accuracy,
                    "nll": nll,
                    **found,
                    "equivalent": _equivalent(model, method, found["scale"], source, n),
                })
                bar.update()
    bar.close()
    accuracy, nll = _score(source, tasks.target_test)
    zero_shot = {"accuracy": accuracy, "nll": nll}
    return DemoResult(rows, rehearsed, zero_shot, time.perf_counter() - start)


def _started(method: str, source: nn.Sequential, seed: int) -> nn.Sequential:
    model = _network(seed)
    if METHODS[method].start == "source":
        model.load_state_dict(source.state_dict())
    return model


def _prior(method: str, scale: float | None, source: nn.Module) -> Prior:
    make = METHODS[method].prior
    return Flat() if make is None or scale is None else make(scale, source)


def _rehearse(method: str, source: nn.Sequential, data: Split, n: int) -> float:
    """Return the scale that small tasks made of source images ask for."""
    model = _started(method, source, 100)
    prior = ModelPrior(model, {"*": _prior(method, 1.0, source)})
    found = br.transfer.rehearse(model, prior, br.likelihoods.Categorical(), data, num_data=n, draws=REHEARSALS)
    return found.scale


def _train(
    method: str, rehearsed: float | None, source: nn.Sequential, data: Split, seed: int
) -> tuple[nn.Module, dict[str, Any]]:
    model, kind = _started(method, source, seed), METHODS[method]
    if kind.prior is None or kind.strength == "rehearsal":
        result = _fit(model, _prior(method, rehearsed, source), data)
        found = {"scale": rehearsed, "chosen by": "rehearsal" if rehearsed else ""}
        return model, {**found, "exact_zeros": result.exact_zeros, "converged": result.converged}
    choice = br.choose_strength(
        model,
        {"*": _prior(method, 1.0, source)},
        br.likelihoods.Categorical(),
        data,
        hyperprior=br.hyperpriors.HalfCauchy(rehearsed or 1.0),
        seed=seed,
    )
    by = "hyperprior" if choice.method == "centre" else choice.method
    return choice.model, {"scale": choice.scale, "chosen by": by, "exact_zeros": None, "converged": None}


def _equivalent(model: nn.Module, method: str, scale: float | None, source: nn.Module, n: int) -> str:
    prior = ModelPrior(model, _prior(method, scale, source))["0.weight"]
    return equivalent(prior, LossScale.mean(n))
