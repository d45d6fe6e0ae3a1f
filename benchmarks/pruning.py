"""A CNN made smaller by a group prior, against magnitude pruning to the same size; draws docs/images/pruning.png.

    BAYESREG_DATA=... python benchmarks/pruning.py            # 5 seeds, about an hour on one core
    BAYESREG_DATA=... python benchmarks/pruning.py --seeds 1  # a look, kept nowhere
    python benchmarks/pruning.py --draw                       # the table and the figure from the numbers kept

6,000 images of Fashion-MNIST, two convolutions and two dense layers, trained densely for 15 epochs under a Gaussian
prior that is weight_decay=1e-4. From there: 10 epochs under `GroupLaplace` of rate λ·√m on every unit of the three
hidden layers (m weights each); `br.sparsity.compact` removes the units that are zero; 10 epochs under the Gaussian
again take the shrinkage away. Magnitude pruning keeps, in each layer of the same dense network, as many units as the
prior has left, those of the largest norm, and trains the 20 epochs under the Gaussian: both end with the same layers,
the same number of parameters and the same number of epochs. The pipeline was settled on seed 0, which is not
reported; every λ is.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _common import interleaved, machine, markdown, paired_ratio
from _transfer_tasks import folder, idx
from torch import Tensor, nn

import bayesreg as br

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = ROOT / "docs" / "data" / "pruning.json"
FIGURE = ROOT / "docs" / "images" / "pruning.png"

STRENGTHS = (2.0, 4.0, 8.0, 16.0)
NUM_DATA, BATCH, DENSE, SPARSE, TUNING = 6_000, 100, 15, 10, 10
HIDDEN = ("0", "3", "7")

Data = tuple[Tensor, Tensor]


def images(part: str) -> Data:
    """Return standardised images and labels of Fashion-MNIST."""
    where = folder() / "fashion_mnist"
    x = idx(where / f"{part}-images-idx3-ubyte.gz").float().div(255.0).sub(0.2860).div(0.3530)
    return x[:, None], idx(where / f"{part}-labels-idx1-ubyte.gz").long()


def network(seed: int) -> nn.Sequential:
    """Return the dense network, 80,202 parameters."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def gaussian() -> br.Gaussian:
    """Return the prior that is weight_decay=1e-4."""
    return br.Gaussian.from_weight_decay(1e-4, NUM_DATA)


def group_prior(model: nn.Module, strength: float) -> br.ModelPrior:
    """Return the prior on the units of the hidden layers."""
    rules: dict[Any, br.Prior] = {}
    for name in HIDDEN:
        weight = model.get_submodule(name).weight
        rate = strength * math.sqrt(weight[0].numel())
        rules[f"{name}.weight"] = br.GroupLaplace(rate, "row")
    return br.ModelPrior(model, {**rules, br.biases: br.Flat(), "*": gaussian()})


def train(model: nn.Module, prior: br.ModelPrior | br.Prior, data: Data, epochs: int, seed: int) -> None:
    """Train with Adam and a learning rate that falls to 0 along a cosine."""
    br.MAPTrainer(
        model, prior, br.likelihoods.Categorical(), optimizer=partial(torch.optim.Adam, lr=1e-3), max_epochs=epochs,
        batch_size=BATCH, seed=seed, progress=False, restore_best=False,
        scheduler=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs * NUM_DATA // BATCH),
    ).fit(data)  # fmt: skip


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """Return the share of right answers."""
    model.eval()
    right = [(model(x).argmax(1) == y).float() for x, y in zip(data[0].split(1000), data[1].split(1000), strict=True)]
    return float(torch.cat(right).mean())


def by_magnitude(dense: nn.Module, units: Sequence[int], inputs: Tensor) -> nn.Module:
    """Return the dense network with so many units in each hidden layer: those of the largest norm."""
    model = copy.deepcopy(dense)
    for name, left in zip(HIDDEN, units, strict=True):
        layer = model.get_submodule(name)
        smallest = layer.weight.detach().flatten(1).norm(dim=1).argsort()[: len(layer.weight) - left]
        with torch.no_grad():
            layer.weight[smallest] = 0.0
            layer.bias[smallest] = 0.0
    return br.sparsity.compact(model, inputs).model


def size(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in model.parameters())


def layers(model: nn.Module) -> list[int]:
    """Return the units of the hidden layers."""
    return [len(model.get_submodule(name).weight) for name in HIDDEN]


def evenly(dense: nn.Module, like: nn.Module) -> list[int]:
    """Return numbers of units, the same share of every hidden layer, that give about another's number of parameters."""

    def count(units: Sequence[int]) -> int:
        first, second, third = units
        return 26 * first + (25 * first + 1) * second + (16 * second + 1) * third + 10 * third + 10

    def at(share: float) -> list[int]:
        return [max(1, round(share * n)) for n in layers(dense)]

    return min((at(k / 1000) for k in range(1, 1001)), key=lambda units: abs(count(units) - size(like)))


def speed(dense: nn.Module, small: nn.Module, inputs: Tensor) -> dict[str, float]:
    """Return how long the small network takes over the dense one's time, for one image and for 256."""
    found = {}
    for batch, calls in ((1, 50), (256, 2)):
        x = inputs[:batch]

        def run(model: nn.Module, x: Tensor = x, calls: int = calls) -> None:
            with torch.no_grad():
                for _ in range(calls):
                    model(x)

        times = interleaved({"dense": partial(run, dense), "small": partial(run, small)}, 25)
        found[f"ms, {batch}"] = 1e3 * statistics.median(times["small"]) / calls
        found[f"dense ms, {batch}"] = 1e3 * statistics.median(times["dense"]) / calls
        found[f"time, {batch}"] = paired_ratio(times, "small", "dense")
    return found


def run(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for the dense network and for each strength, per seed."""
    x, y = images("train")
    test = images("t10k")
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:NUM_DATA]
        data = x[order], y[order]
        dense = network(seed)
        train(dense, gaussian(), data, DENSE, seed)
        tuned = copy.deepcopy(dense)
        train(tuned, gaussian(), data, SPARSE + TUNING, seed)
        rows.append({
            "seed": seed, "strength": 0.0, "parameters": size(dense), "layers": layers(dense),
            "after training": accuracy(dense, test), "group prior": accuracy(tuned, test),
            "magnitude": accuracy(tuned, test),
        })  # fmt: skip
        print(rows[-1], flush=True)
        for strength in STRENGTHS:
            model = copy.deepcopy(dense)
            train(model, group_prior(model, strength), data, SPARSE, seed)
            compacted = br.sparsity.compact(model, data[0][:500])
            small = compacted.model
            alike = by_magnitude(dense, layers(small), data[0][:500])
            even = by_magnitude(dense, evenly(dense, small), data[0][:500])
            assert layers(small) == layers(alike)
            row = {
                "seed": seed, "strength": strength, "parameters": size(small), "layers": layers(small),
                "difference": compacted.difference, "after training": accuracy(model, test),
                "even parameters": size(even), "even layers": layers(even),
            }  # fmt: skip
            train(small, gaussian(), data, TUNING, seed)
            train(alike, gaussian(), data, SPARSE + TUNING, seed)
            train(even, gaussian(), data, SPARSE + TUNING, seed)
            row |= {
                "group prior": accuracy(small, test), "magnitude": accuracy(alike, test), "even": accuracy(even, test),
            }  # fmt: skip
            rows.append(row | speed(dense.eval(), small.eval(), test[0]))
            print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return means over seeds as a Markdown table."""
    lines: list[dict[str, object]] = []
    for strength in (0.0, *STRENGTHS):
        mine = [row for row in rows if row["strength"] == strength]
        paired = [100 * (row["group prior"] - row["magnitude"]) for row in mine]
        spread = statistics.stdev(paired) if len(paired) > 1 else math.nan
        # Student's t at 97.5 % for five seeds.
        half = 2.776 * spread / math.sqrt(len(paired))

        def mean(key: str, mine: list[dict[str, Any]] = mine) -> float:
            return statistics.fmean(row[key] for row in mine)

        lines.append({
            "λ": strength or "dense",
            "units": " + ".join(f"{statistics.fmean(n):.0f}" for n in zip(*(r["layers"] for r in mine), strict=True)),
            "parameters": f"{mean('parameters'):,.0f}",
            "group prior, %": f"{100 * mean('group prior'):.1f}",
            "magnitude, %": f"{100 * mean('magnitude'):.1f}" if strength else "",
            "evenly, %": f"{100 * mean('even'):.1f}" if strength else "",
            "prior minus magnitude": f"{statistics.fmean(paired):+.1f} ± {half:.1f}" if strength else "",
            "time, 1 image": f"{mean('time, 1'):.2f}" if strength else "1",
            "time, 256 images": f"{mean('time, 256'):.2f}" if strength else "1",
        })  # fmt: skip
    return markdown(lines)


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw accuracy against size, and time against size."""
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained")
    pruned = [row for row in rows if row["strength"]]
    dense = [row for row in rows if not row["strength"]]
    kinds = (
        ("group prior", "group prior", "o", "#1b3a57", "-"),
        ("magnitude", "largest norms kept", "s", "#c2571a", "--"),
    )
    for key, label, marker, color, dash in kinds:
        left.plot(
            [r["parameters"] for r in pruned], [100 * r[key] for r in pruned], marker, ms=4, color=color, alpha=0.5
        )
        means = [[r for r in pruned if r["strength"] == s] for s in STRENGTHS]
        left.plot(
            [statistics.fmean(r["parameters"] for r in m) for m in means],
            [100 * statistics.fmean(r[key] for r in m) for m in means], dash, color=color, label=label,
        )  # fmt: skip
    left.axhline(100 * statistics.fmean(r["group prior"] for r in dense), color="0.5", ls=":", label="dense, 80,202")
    left.set(xscale="log", xlabel="parameters", ylabel="test accuracy, %")
    for key, marker, label in (("time, 1", "o", "1 image"), ("time, 256", "^", "256 images")):
        right.plot([r["parameters"] for r in pruned], [r[key] for r in pruned], marker, ms=4, label=label, mfc="none")
    right.axhline(1.0, color="0.5", ls=":")
    right.set(xscale="log", xlabel="parameters", ylabel="time over the dense network's", ylim=(0, 1.1))
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=9)
    figure.savefig(FIGURE, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, keep the numbers, print the table, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draw", action="store_true", help="only draw the numbers kept")
    options = parser.parse_args(arguments)
    if not options.draw:
        torch.set_num_threads(1)
        rows = run(range(1, options.seeds + 1))
        if options.seeds != 5:
            print(table(rows))
            return
        NUMBERS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1), encoding="utf-8")
    kept = json.loads(NUMBERS.read_text(encoding="utf-8"))
    print(kept["machine"])
    print(table(kept["rows"]))
    draw(kept["rows"])


if __name__ == "__main__":
    main()
