"""Is the strength that `br.choose_strength` picks as good as one from a grid, and what does it cost?

    BAYESREG_DATA=... python benchmarks/strength.py --json docs/data/strength.json --figure docs/images/strength.png

Every draw is fitted by all ways in turn, with the same data, the same initial weights and the same solver (L-BFGS; but
`choose`, as it comes, fits a linear layer by Newton's method):

- choose: `br.choose_strength`, as it comes.
- grid: 40 precisions over seven decades (10⁻⁴ to 10³; about pretrained weights 10⁻² to 10⁵), each fitted from scratch
  to four fifths of the data, the lowest NLL of the last fifth picked, and all data fitted with it. "grid and
  hyperprior" picks by the same score with the same hyperprior, from the same fits.
- five: precisions 0.01 to 100, each fitted from scratch to four fifths and stopped where the last fifth's NLL is
  lowest; the best of those weights, as they are.
- N(0, 1): no choice at all.
- oracle: the point of the grid, fitted to all data, with the lowest *test* NLL, which nobody has.

About pretrained weights all ways begin at those, and the hyperprior is what `br.transfer.rehearse` finds on data of the
source, once for each n; what that takes is counted for no way.

Evaluations are passes over all the data (of value and gradient; a Jacobian counts as many as there are outputs);
seconds are of the processor, on one thread. Finished draws are kept in --out, so that a run that was stopped goes on.
Seeds from 200 on: none of them was looked at while the method was built.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _common import machine, markdown
from _strength_report import COLUMNS, costs, draw_figure, misses, scores
from _strength_tasks import SETTINGS, Problem, Setting
from torch import Tensor

import bayesreg as br
from bayesreg.hyperpriors import HyperPrior
from bayesreg.model_prior.times import stretched
from bayesreg.strength.walk.full_batch import FullBatch
from bayesreg.strength.walk.held_out import Task
from bayesreg.strength.walk.parts import parts_of

FIVE = [-2.0, -1.0, 0.0, 1.0, 2.0]
FIRST_SEED = 200
_CHUNK, _PATIENCE = 10, 5


class Fits(FullBatch):
    """Fits from scratch, of four fifths or of all the data, by log₁₀ of the precision."""

    def __init__(self, problem: Problem, seed: int) -> None:
        model = copy.deepcopy(problem.model)
        prior = br.ModelPrior(model, problem.prior)
        learned = bool(list(problem.likelihood.parameters()))
        inputs, targets = problem.train
        task = Task(
            model,
            lambda at, unit: stretched(prior, unit * 10.0**at, ""),
            br.likelihoods.Gaussian(1.0) if learned else problem.likelihood,
            inputs,
            targets,
            parts_of(targets, "split", seed),
            functools.partial(_hyper, problem.hyperprior),
            noise=(lambda square, _: square) if learned else None,
            linear=False,
        )
        super().__init__(task, leave_one_out=False)

    def fit(self, precision: float, part: int | None, iterations: int) -> Tensor:
        return self._solve(-0.5 * precision, part, self._initial, iterations, 1e-5)


def _hyper(hyperprior: HyperPrior, scale: float) -> float:
    at = torch.tensor(math.log(scale), dtype=torch.float64)
    return -float(hyperprior.log_scale_density(at)[0])


@torch.no_grad()
def tested(model: torch.nn.Module, likelihood: Any, problem: Problem) -> dict[str, float]:
    X, y = problem.test
    output = model(X)
    return {"nll": float(likelihood.nll(output, y).mean()), "metric": float(likelihood.metric(output, y).mean())}


def by_choice(problem: Problem, seed: int) -> dict[str, Any]:
    choice = br.choose_strength(
        problem.model, problem.prior, problem.likelihood, problem.train, hyperprior=problem.hyperprior, seed=seed
    )
    return {
        **tested(choice.model, choice.likelihood, problem),
        "log10_precision": -2.0 * math.log10(choice.scale),
        "evaluations": choice.evaluations,
        "method": choice.method,
        "warnings": sorted(choice.warnings),
    }


def _noisy(problem: Problem, measured: Any, precision: float) -> Any:
    """Return the likelihood with the noise that the held-out fifth has."""
    if not list(problem.likelihood.parameters()):
        return problem.likelihood
    return br.likelihoods.Gaussian(measured.scale / 10.0 ** (-0.5 * precision))


def by_grid(problem: Problem, seed: int, setting: Setting) -> dict[str, dict[str, Any]]:
    fits = Fits(problem, seed)
    measured = {}
    for precision in setting.grid:
        flat = fits.fit(precision, 0, setting.iterations)
        measured[precision] = fits.measure(-0.5 * precision, [flat])
    spent = fits.spent
    found: dict[str, dict[str, Any]] = {}
    for name, penalised in (("grid", False), ("grid and hyperprior", True)):
        best = min(setting.grid, key=lambda p: fits.examples * measured[p].held_out + penalised * measured[p].hyper)
        before = fits.spent
        fits.use(fits.fit(best, None, setting.iterations))
        likelihood = _noisy(problem, measured[best], best)
        found[name] = {
            **tested(fits.task.model, likelihood, problem),
            "log10_precision": best,
            "evaluations": spent + fits.spent - before,
        }
    return found


def by_five(problem: Problem, seed: int, setting: Setting) -> dict[str, Any]:
    """Early stopping on the same fifth that chooses."""
    fits = Fits(problem, seed)
    best: tuple[float, float, Tensor, Any] | None = None
    for precision in FIVE:
        flat, worse, lowest = fits._initial, 0, math.inf
        for _ in range(setting.iterations // _CHUNK):
            flat = fits._solve(-0.5 * precision, 0, flat, _CHUNK, 1e-5)
            measured = fits.measure(-0.5 * precision, [flat])
            worse = 0 if measured.held_out < lowest else worse + 1
            lowest = min(lowest, measured.held_out)
            if best is None or measured.held_out < best[0]:
                best = (measured.held_out, precision, flat, measured)
            if worse >= _PATIENCE:
                break
    assert best is not None
    fits.use(best[2])
    likelihood = _noisy(problem, best[3], best[1])
    return {
        **tested(fits.task.model, likelihood, problem),
        "log10_precision": best[1],
        "evaluations": fits.spent,
    }


def by_default(problem: Problem, setting: Setting) -> dict[str, Any]:
    model, likelihood = copy.deepcopy(problem.model), copy.deepcopy(problem.likelihood)
    trainer = br.MAPTrainer(
        model, problem.prior, likelihood, optimizer="lbfgs", tolerance=1e-5, max_iterations=setting.iterations,
        progress=False,
    )  # fmt: skip
    trainer.fit(problem.train)
    return tested(model, likelihood, problem)


def by_oracle(problem: Problem, seed: int, setting: Setting) -> dict[str, Any]:
    fits = Fits(problem, seed)
    best: dict[str, Any] = {"nll": math.inf}
    for precision in setting.grid[:: setting.every]:
        fits.use(fits.fit(precision, None, setting.iterations))
        likelihood = problem.likelihood
        if list(likelihood.parameters()):
            # The noise of leave-one-out, as the choice has it.
            noise = fits.left_out(-0.5 * precision).noise_std
            likelihood = br.likelihoods.Gaussian(noise or 1.0)
        found = {**tested(fits.task.model, likelihood, problem), "log10_precision": precision}
        best = min(best, found, key=lambda result: result["nll"])
    return best


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return run(), time.process_time() - start


def draw(setting: Setting, seed: int) -> dict[str, Any]:
    problem = setting.draw(seed)
    chosen, seconds = timed(lambda: by_choice(problem, seed))
    grid, grid_seconds = timed(lambda: by_grid(problem, seed, setting))
    five, five_seconds = timed(lambda: by_five(problem, seed, setting))
    return {
        "name": setting.name,
        "n": setting.n,
        "seed": seed,
        "choose": {**chosen, "seconds": seconds},
        **{name: {**found, "seconds": grid_seconds} for name, found in grid.items()},
        "five": {**five, "seconds": five_seconds},
        "default": by_default(problem, setting),
        "oracle": by_oracle(problem, seed, setting),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("strength-draws.jsonl"), help="Finished draws, one a line.")
    parser.add_argument("--json", type=Path, help="Where to write all draws.")
    parser.add_argument("--figure", type=Path, help="Where to draw them.")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--seeds", type=int, help="How many of each setting, in place of its own number.")
    parser.add_argument("--only", nargs="*", help="Names, or beginnings of names, of settings.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    kept = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    done = [json.loads(line) for line in kept]
    # What torch loads when something is done for the first time is no part of any way.
    first = SETTINGS[0].draw(0)
    by_choice(first, 0)
    have = {(d["name"], d["n"], d["seed"]) for d in done}
    for setting in SETTINGS:
        if arguments.only and not any(setting.name.startswith(name) for name in arguments.only):
            continue
        for seed in range(arguments.first_seed, arguments.first_seed + (arguments.seeds or setting.seeds)):
            if (setting.name, setting.n, seed) in have:
                continue
            found = draw(setting, seed)
            done.append(found)
            with arguments.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
            found_by = ", ".join(f"{column} {found[column]['nll']:.4f}" for column in COLUMNS)
            print(f"{setting.name} n={setting.n} seed {seed}: {found_by}", flush=True)
    print(machine())
    print(markdown(scores(done)))
    print(markdown(costs(done)))
    for words in misses(done):
        print(words)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "draws": done}, indent=1) + "\n")
    if arguments.figure:
        draw_figure(done, arguments.figure)


if __name__ == "__main__":
    main()
