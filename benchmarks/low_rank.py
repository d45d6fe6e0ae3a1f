"""What does a low-rank Gaussian over 11 M weights cost, against torch.distributions with autograd?

`python benchmarks/low_rank.py` times value and gradient, and the gradient alone, interleaved in one process; measures
the memory that a step takes beyond the tensors that persist, each in a process of its own; and compares the values with
float64. bayesreg is timed on one flat vector, like torch's distribution, and on tensors of the shapes of ResNet-18.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import torch
from _common import bootstrap, interleaved, write

import bayesreg as br

RANK = 5
ROUNDS = 15
SCALE = 1e-3
# The weights of ResNet-18 for 1000 classes: 11.7 M in 21 convolutions and matrices (norms and biases left out).
WIDTHS = (64, 128, 256, 512)


def shapes() -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [(64, 3, 7, 7)]
    before = 64
    for width in WIDTHS:
        found += [(width, before, 3, 3), (width, width, 3, 3), (width, width, 3, 3), (width, width, 3, 3)]
        if width != before:
            found.append((width, before, 1, 1))
        before = width
    return [*found, (1000, 512)]


SHAPES = shapes()
SIZE = sum(torch.Size(shape).numel() for shape in SHAPES)


def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    loc = 0.1 * torch.randn(SIZE, generator=generator)
    diag = 0.5 + torch.rand(SIZE, generator=generator)
    factor = 0.01 * torch.randn(SIZE, RANK, generator=generator)
    return loc, diag, factor, loc + torch.randn(SIZE, generator=generator)


def torch_steps() -> dict[str, Callable[[], object]]:
    loc, diag, factor, value = tensors()
    distribution = torch.distributions.LowRankMultivariateNormal(loc, factor, diag, validate_args=False)
    weights, grad = value.requires_grad_(), torch.zeros(SIZE)

    def step() -> float:
        penalty = -distribution.log_prob(weights)
        (slope,) = torch.autograd.grad(penalty, weights)
        grad.add_(slope, alpha=SCALE)
        return -float(penalty.detach())

    return {"torch, prebuilt, autograd": step}


def flat_steps() -> dict[str, Callable[[], object]]:
    loc, diag, factor, value = tensors()
    prior, grad = br.LowRankGaussian(diag, factor, loc=loc), torch.zeros(SIZE)

    def gradient() -> None:
        prior.add_grad_([grad], [value], SCALE)

    @torch.no_grad()
    def both() -> float:
        gradient()
        return float(prior.log_prob(value))

    return {"bayesreg, value and gradient": both, "bayesreg, gradient alone": gradient}


def model_steps() -> dict[str, Callable[[], object]]:
    loc, diag, factor, value = tensors()
    sizes = [torch.Size(shape).numel() for shape in SHAPES]
    cut = [
        [part.reshape(shape) for part, shape in zip(t.split(sizes), SHAPES, strict=True)] for t in (loc, diag, value)
    ]
    rows = [part.reshape(*shape, RANK) for part, shape in zip(factor.split(sizes), SHAPES, strict=True)]
    model = torch.nn.Module()
    for i, part in enumerate(cut[2]):
        model.register_parameter(f"p{i}", torch.nn.Parameter(part))
    named = [{f"p{i}": part for i, part in enumerate(parts)} for parts in (cut[0], cut[1], rows)]
    belief = br.JointLowRankGaussian(named[1], named[2], loc=named[0])
    [(term, entries)] = br.ModelPrior(model, {"*": belief}).active_terms()
    values = {entry.name: entry.parameter.detach() for entry in entries}
    grads = {name: torch.zeros_like(value) for name, value in values.items()}
    shapes = {name: value.shape for name, value in values.items()}

    @torch.no_grad()
    def gradient() -> None:
        term.add_grad_(grads, values, SCALE)

    @torch.no_grad()
    def both() -> float:
        gradient()
        return float(term.log_constant(shapes)) - float(term.penalty(values))

    return {"bayesreg, 21 tensors, value and gradient": both, "bayesreg, 21 tensors, gradient alone": gradient}


MAKERS = {"torch": torch_steps, "flat": flat_steps, "model": model_steps}


def resident() -> float:
    """Return the resident memory of this process, MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


def peak_of(step: Callable[[], object]) -> float:
    """Return by how much resident memory rises over that before the first step, sampled from another thread, MB."""
    before, highest, done = resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.is_set():
            highest = max(highest, resident())
            time.sleep(2e-4)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(5):
        step()
    done.set()
    watcher.join()
    return highest - before


def measured_memory(maker: str, name: str) -> float:
    """Return the extra memory of one variant, measured in a process of its own."""
    code = f"import low_rank; print(low_rank.peak_of(low_rank.MAKERS[{maker!r}]()[{name!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=__file__.rsplit("/", 1)[0]
    )
    return float(done.stdout)


def reference() -> float:
    """Return log p in float64."""
    loc, diag, factor, value = (part.double() for part in tensors())
    prior = br.LowRankGaussian(diag, factor, loc=loc)
    with torch.no_grad():
        return float(prior.log_prob(value))


def main() -> None:
    made = {maker: build() for maker, build in MAKERS.items()}
    variants = {name: step for steps in made.values() for name, step in steps.items()}
    times = interleaved(variants, ROUNDS)
    exact = reference()
    base = "torch, prebuilt, autograd"
    rows = []
    for maker, steps in made.items():
        for name, step in steps.items():
            ratio, low, high = bootstrap(times, base, name)
            value = step()
            rows.append({
                "variant": name,
                "median ms": 1e3 * sorted(times[name])[ROUNDS // 2],
                "times faster (95 %)": f"{ratio:.1f} ({low:.1f} to {high:.1f})",
                "extra memory, MB": measured_memory(maker, name),
                "value off float64, relative": "" if value is None else f"{abs(float(value) - exact) / abs(exact):.1e}",
            })
    write(rows, __doc__ or "")


if __name__ == "__main__":
    main()
