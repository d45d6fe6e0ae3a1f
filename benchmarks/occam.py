"""Which model does each way of choosing prefer, where a cheap evidence is known to prefer the wrong one?

    python benchmarks/occam.py --json docs/data/occam.json

Twenty points of y = sin 3x + 0.1 ε, x standard normal; a linear model on 1,024 random Fourier features. Two things are
open: the features' length, out of 13, and the strength of the prior, with the noise. A small length can fit anything;
the evidence, exact, holds that against it, and its mean-field bound does not: there every weight has a posterior of its
own, as in variational networks. Each way picks the length and the strength with its own lowest objective:

- evidence, loo, gcv, folds: `br.choose_strength(method=...)` at every length.
- mean-field bound: in closed form, over a grid of 400 strengths.

Shown are medians over seeds (from 100, not looked at before): the length, the std of the noise (the truth is 0.1), the
root mean square error against sin 3x at 2,000 fresh x, and its worst. The example is that of Harvey and Hughes (2026),
Occam's razor is only as sharp as your ELBO.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import warnings
from pathlib import Path
from typing import Any

import torch
from _common import machine, markdown
from torch import Tensor, nn

import bayesreg as br

LENGTHS = [float(f"{0.1 * 2 ** (k / 2.6):.3g}") for k in range(13)]
WAYS = ("evidence", "loo", "gcv", "folds")
FEATURES, EXAMPLES, SEEDS = 1024, 20, range(100, 106)
STD = 0.1


class Fourier(nn.Module):
    """cos(ωx/length + b)·√(2/R): with standard normal ω the features of a Gaussian kernel."""

    def __init__(self, length: float, generator: torch.Generator) -> None:
        super().__init__()
        self.frequency = torch.randn(FEATURES, generator=generator).double() / length
        self.phase = 2.0 * math.pi * torch.rand(FEATURES, generator=generator).double()

    def forward(self, x: Tensor) -> Tensor:
        return math.sqrt(2.0 / FEATURES) * torch.cos(x * self.frequency + self.phase)


def by_bound(features: Tensor, y: Tensor) -> tuple[float, Tensor, float]:
    """Return the mean-field bound's least −ELBO, with its weights and its noise std.

    With λ = noise variance / prior variance, the best means are ridge regression's, the best variances
    σ²/(‖x_j‖² + λ), and −ELBO = n/2·log(2πe·Q/n) + ½ Σ_j log(1 + ‖x_j‖²/λ), Q = ‖y − Xm‖² + λ‖m‖², σ² = Q/n.
    """
    lengths, best = features.square().sum(0), (math.inf, features.new_zeros(FEATURES, 1), 0.0)
    kernel, n = features @ features.T, len(y)
    for exponent in torch.linspace(-6.0, 4.0, 400).tolist():
        ratio = 10.0**exponent
        solved = torch.linalg.solve(kernel + ratio * torch.eye(n).to(kernel), y)
        variance = ratio * float((y * solved).sum()) / n
        value = 0.5 * (n * math.log(2.0 * math.pi * math.e * variance) + float(torch.log1p(lengths / ratio).sum()))
        if value < best[0]:
            best = (value, features.T @ solved, math.sqrt(variance))
    return best


def draw(seed: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(EXAMPLES, 1, generator=generator).double()
    y = torch.sin(3.0 * x) + STD * torch.randn(EXAMPLES, 1, generator=generator).double()
    fresh = torch.randn(2000, 1, generator=generator).double()
    found: dict[str, tuple[float, float, Tensor, float]] = {}
    for length in LENGTHS:
        fourier = Fourier(length, torch.Generator().manual_seed(seed))
        for way in WAYS:
            model = nn.Sequential(fourier, nn.Linear(FEATURES, 1, bias=False).double())
            choice = br.choose_strength(
                model, br.Gaussian(1.0), br.likelihoods.Gaussian("learned"), (x, y), method=way, hyperprior=None
            )
            value = min(step.objective for step in choice.steps)
            with torch.no_grad():
                said = choice.model(fresh)
            if way not in found or value < found[way][0]:
                found[way] = (value, length, said, float(choice.likelihood.noise_std))
        value, weights, std = by_bound(fourier(x), y)
        if "mean-field bound" not in found or value < found["mean-field bound"][0]:
            found["mean-field bound"] = (value, length, fourier(fresh) @ weights, std)
    return [
        {
            "seed": seed,
            "way": way,
            "length": length,
            "noise": std,
            "rmse": float((said - torch.sin(3.0 * fresh)).square().mean().sqrt()),
        }
        for way, (_, length, said, std) in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="Where to write all draws.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    draws = [row for seed in SEEDS for row in draw(seed)]
    rows: list[dict[str, object]] = []
    for way in (*WAYS, "mean-field bound"):
        here = [row for row in draws if row["way"] == way]
        rows.append({
            "way": way,
            "length": statistics.median(row["length"] for row in here),
            "noise std": statistics.median(row["noise"] for row in here),
            "error": statistics.median(row["rmse"] for row in here),
            "worst error": max(row["rmse"] for row in here),
        })
    print(machine())
    print(markdown(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "draws": draws}, indent=1) + "\n")


if __name__ == "__main__":
    main()
