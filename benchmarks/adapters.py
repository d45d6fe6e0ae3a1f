"""What does the prior on a merged update cost, through r x r matrices and through the update itself?

`python benchmarks/adapters.py` times value and gradients for both factors of one update (p = q), interleaved in one
process, measures what each takes in memory in a process of its own, and times a training step of a small transformer
with adapters on all its linear layers, without a prior, with weight decay on the factors, and with this prior.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from _common import bootstrap, interleaved, write
from torch import nn

import bayesreg as br

SIZES, RANKS, ROUNDS = (768, 2048, 4096), (8, 64), 15
SCALE = 0.02


class Factors(nn.Module):
    """The two factors of one square update."""

    def __init__(self, size: int, rank: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.A, self.B = nn.Parameter(torch.randn(rank, size)), nn.Parameter(torch.randn(size, rank))


def through_the_update(size: int, rank: int) -> Callable[[], object]:
    """Return what one writes without the identity."""
    model = Factors(size, rank)

    def step() -> None:
        (0.5 * ((model.B @ model.A) / SCALE).square().sum()).backward()

    return step


def through_bayesreg(size: int, rank: int, each: bool = False) -> Callable[[], object]:
    """Return what the gradient route does; `each`: with a scale for every element."""
    model = Factors(size, rank)
    scale = torch.full((size, size), SCALE) if each else SCALE
    prior = br.ModelPrior(model, {"*": br.AdapterGaussian(scale, [("B", "A")])})
    [(term, entries)] = prior.active_terms()
    values = {entry.name: entry.parameter.detach() for entry in entries}
    grads = {name: torch.zeros_like(value) for name, value in values.items()}

    @torch.no_grad()
    def step() -> float:
        term.add_grad_(grads, values, 1e-3)
        return float(term.penalty(values))

    return step


WAYS: dict[str, Callable[[int, int], Callable[[], object]]] = {
    "update formed, autograd": through_the_update,
    "bayesreg, one scale": through_bayesreg,
    "bayesreg, a scale for each element": lambda size, rank: through_bayesreg(size, rank, each=True),
}


def resident(kind: str) -> float:
    """Return this process's memory of a kind, in MB."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(kind))
    return int(line.split()[1]) / 1024


def memory(way: str, size: int, rank: int) -> float:
    """Return what a step takes beyond what persists, in MB, measured in another process."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory", way, str(size), str(rank)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def report_memory(way: str, size: int, rank: int) -> None:
    WAYS[way](64, 4)()  # what the libraries allocate once
    step = WAYS[way](size, rank)
    # Forget the peak of what was done so far (Linux).
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    for _ in range(2):
        step()
    print(resident("VmHWM") - before)


# -- in training -------------------------------------------------------------------------------------------


class LoRALinear(nn.Module):
    """A frozen linear layer and its adapter."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base, self.scaling = base.requires_grad_(False), 2.0
        self.lora_A = nn.Parameter(0.02 * torch.randn(rank, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.scaling * (x @ self.lora_A.T) @ self.lora_B.T


class Block(nn.Module):
    """A transformer block with adapters on all linear layers."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = (LoRALinear(nn.Linear(width, k * width), rank) for k in (3, 1))
        self.up, self.down = (
            LoRALinear(nn.Linear(width, 4 * width), rank),
            LoRALinear(nn.Linear(4 * width, width), rank),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v))
        return x + self.down(nn.functional.gelu(self.up(x)))


def training_steps(width: int = 256, depth: int = 4, rank: int = 8) -> dict[str, Callable[[], object]]:
    """Return a step of AdamW under each prior; 16 sequences of 64."""
    steps = {}
    for name in ("no prior", "weight decay on the factors", "bayesreg on the updates"):
        torch.manual_seed(0)
        model = nn.Sequential(*(Block(width, rank) for _ in range(depth)))
        for parameter in (p for block in model for p in block.norm.parameters()):
            parameter.requires_grad_(False)
        trained = [p for p in model.parameters() if p.requires_grad]
        decay = 0.01 if name.startswith("weight") else 0.0
        optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=decay)
        if name.startswith("bayesreg"):
            br.attach(optimizer, br.transfer.lora_prior(model, SCALE), num_data=1000)
        x = torch.randn(16, 64, width)

        def step(model: nn.Module = model, optimizer: torch.optim.Optimizer = optimizer, x: torch.Tensor = x) -> None:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

        steps[name] = step
    return steps


def main() -> None:
    rows: list[dict[str, object]] = []
    for size in SIZES:
        for rank in RANKS:
            times = interleaved({name: make(size, rank) for name, make in WAYS.items()}, ROUNDS)
            base = next(iter(WAYS))
            for name in WAYS:
                middle, low, high = bootstrap(times, name, base)
                rows.append({
                    "what": f"value and gradients, p = q = {size}, r = {rank}",
                    "way": name,
                    "ms": 1e3 * sorted(times[name])[ROUNDS // 2],
                    "ratio (95 %)": "1" if name == base else f"{middle:.3g} ({low:.3g} to {high:.3g})",
                    "MB beyond what persists": round(memory(name, size, rank), 1),
                })
    times = interleaved(training_steps(), 2 * ROUNDS)
    for name in times:
        middle, low, high = bootstrap(times, name, "no prior")
        rows.append({
            "what": "a step of AdamW, 4 blocks of width 256, r = 8",
            "way": name,
            "ms": 1e3 * sorted(times[name])[ROUNDS],
            "ratio (95 %)": "1" if name == "no prior" else f"{middle:.3g} ({low:.3g} to {high:.3g})",
            "MB beyond what persists": "",
        })
    write(rows, __doc__ or "")


if __name__ == "__main__":
    if "--memory" in sys.argv:
        report_memory(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
