"""What do the checksum and the careful writing of prior files cost, beside safetensors alone?

A Gaussian centred on 25 million weights in float32 (100 MB) is saved and loaded by `ModelPrior` and, the same tensors,
by safetensors' own functions, in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
from _common import bootstrap, interleaved, machine, markdown
from safetensors.torch import load_file, save_file
from torch import nn

import bayesreg as br

WIDTH = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    model = nn.Linear(WIDTH, WIDTH, bias=False)
    prior = br.ModelPrior(model, {"*": br.Gaussian.centered_at(model, 0.1)})
    tensors = {"weight": model.weight.detach().clone()}
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "prior.safetensors"), Path(folder, "weights.safetensors")
        save_file(tensors, theirs)
        prior.save(ours)
        variants = {
            "safetensors: save_file": lambda: save_file(tensors, theirs),
            "ModelPrior.save": lambda: prior.save(ours),
            # Every byte is used: a mapped file costs nothing until it is.
            "safetensors: load_file": lambda: {name: t.clone() for name, t in load_file(theirs).items()},
            "ModelPrior.load": lambda: br.ModelPrior.load(ours, model),
        }
        times = interleaved(variants, given.rounds)
    rows: list[dict[str, object]] = []
    for name, held in times.items():
        base = "safetensors: save_file" if "save" in name else "safetensors: load_file"
        ratio, low, high = bootstrap(times, name, base)
        rows.append({
            "call": name,
            "ms": f"{1e3 * statistics.median(held):.0f}",
            "beside safetensors": "" if name == base else f"{ratio:.2f} ({low:.2f} to {high:.2f})",
        })
    print(markdown(rows))
    print(machine())
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "machine": machine()}, indent=2))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
