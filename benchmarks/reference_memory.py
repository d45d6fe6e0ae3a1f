"""What does a centre cost in memory and per step, copied, memory-mapped and in bfloat16?

A model of 50 million weights in float32; each way of keeping the reference in a process of its own, which reports the
growth of its private memory (RssAnon) and of the file pages that it shares with others (RssFile), from before the prior
to after 20 steps, and the median time of `handle`'s part of a step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from _common import machine, markdown
from safetensors.torch import save_file
from torch import nn

import bayesreg as br

WIDTH, LAYERS, STEPS = 5000, 2, 20
WAYS = ("none", "copy", "memory_map", "bfloat16")


def network() -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))


def resident(kind: str) -> float:
    """Return this process's memory of a kind, in MB."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(kind))
    return int(line.split()[1]) / 1024


def one(way: str, path: str) -> dict[str, float]:
    model = network()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    # Everything is imported before the first measurement.
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.1)})
    br.ModelPrior(nn.Linear(1, 1), {"*": br.Gaussian.centered_at(nn.Linear(1, 1), 0.1)})
    before = {kind: resident(kind) for kind in ("RssAnon", "RssFile")}
    if way != "none":
        prior = br.ModelPrior(model, {"*": br.Gaussian.centered_at(path, 0.1, storage=way)})  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(prior.param_groups(), lr=1e-3)
    br.attach(optimizer, prior, num_data=1000)
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return {
        "private MB": resident("RssAnon") - before["RssAnon"],
        "shared file MB": resident("RssFile") - before["RssFile"],
        "ms per step": 1e3 * statistics.median(times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(*arguments.one)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.safetensors"
        save_file(network().state_dict(), path)
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for round_ in range(5):
            for way in WAYS if round_ % 2 else reversed(WAYS):
                command = [sys.executable, __file__, "--one", way, str(path)]
                found[way].append(
                    json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
                )
    weights = LAYERS * WIDTH**2
    rows: list[dict[str, object]] = [
        {"centre": way} | {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for way, runs in found.items()
    ]
    print(machine(), f"{weights:,} weights, {weights * 4 / 2**20:.0f} MB in float32", sep="\n")
    print(markdown(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
