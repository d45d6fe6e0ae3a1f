"""What does a prior cost per optimizer step? Each route beside the plain step, torch's weight_decay and the loss."""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _common import bootstrap, interleaved, machine, markdown
from torch import nn

import bayesreg as br

NUM_DATA = 50_000
DECAY = 5e-4
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def resnet18() -> nn.ModuleDict:
    """Modules with the parameters of ResNet-18, without its forward."""
    widths = [(64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    parts: dict[str, nn.Module] = {"conv1": nn.Conv2d(3, 64, 7, bias=False), "bn1": nn.BatchNorm2d(64)}
    for index, (inputs, outputs) in enumerate(widths):
        parts[f"conv{index}a"] = nn.Conv2d(inputs, outputs, 3, bias=False)
        parts[f"bn{index}a"] = nn.BatchNorm2d(outputs)
        parts[f"conv{index}b"] = nn.Conv2d(outputs, outputs, 3, bias=False)
        parts[f"bn{index}b"] = nn.BatchNorm2d(outputs)
        if inputs != outputs:
            parts[f"down{index}"] = nn.Conv2d(inputs, outputs, 1, bias=False)
            parts[f"bn{index}d"] = nn.BatchNorm2d(outputs)
    parts["fc"] = nn.Linear(512, 1000)
    return nn.ModuleDict(parts)


def vit_b() -> nn.ModuleDict:
    """Modules with the parameters of ViT-B/16."""
    parts: dict[str, nn.Module] = {"patch": nn.Conv2d(3, 768, 16), "position": nn.Embedding(197, 768)}
    for index in range(12):
        parts[f"block{index}"] = nn.ModuleList([
            nn.LayerNorm(768), nn.Linear(768, 3 * 768), nn.Linear(768, 768), nn.LayerNorm(768),
            nn.Linear(768, 3072), nn.Linear(3072, 768),
        ])  # fmt: skip
    parts["norm"], parts["head"] = nn.LayerNorm(768), nn.Linear(768, 1000)
    return nn.ModuleDict(parts)


def thousand() -> nn.ModuleList:
    """1,000 tensors of 32 × 32."""
    return nn.ModuleList(nn.Linear(32, 32, bias=False) for _ in range(1000))


MODELS: dict[str, Callable[[], nn.Module]] = {"ResNet-18": resnet18, "ViT-B/16": vit_b, "1,000 small tensors": thousand}


def with_gradients(base: nn.Module) -> nn.Module:
    model = copy.deepcopy(base).to(DEVICE)
    for parameter in model.parameters():
        parameter.grad = 1e-3 * torch.randn_like(parameter)
    return model


def make(optimizer: str, groups: Any, fused: bool, decay: float = 0.0) -> torch.optim.Optimizer:
    if optimizer == "SGD":
        return torch.optim.SGD(groups, lr=1e-6, momentum=0.9, weight_decay=decay, fused=fused)
    return torch.optim.AdamW(groups, lr=1e-6, weight_decay=decay, fused=fused)


class Step:
    """A step whose gradients are new tensors each time, as `zero_grad` and `backward` leave them."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer

    def fresh(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = parameter.grad.detach()

    def __call__(self) -> None:
        self.optimizer.step()


def plain(base: nn.Module, optimizer: str, fused: bool, decay: float = 0.0) -> Callable[[], Any]:
    model = with_gradients(base)
    return Step(model, make(optimizer, model.parameters(), fused, decay))


def with_prior(base: nn.Module, optimizer: str, fused: bool, rules: Callable[[nn.Module], Any], **keywords: Any):
    model = with_gradients(base)
    prior = br.ModelPrior(model, rules(model))
    made = make(optimizer, prior.param_groups(), fused)
    br.attach(made, prior, num_data=NUM_DATA, **keywords)
    return Step(model, made)


def penalty_in_the_loss(base: nn.Module, optimizer: str, fused: bool, centred: bool) -> Callable[[], None]:
    """What people write by hand: the penalty in the loss, a backward pass, and the step."""
    model = with_gradients(base)
    centre = [p.detach().clone() if centred else None for p in model.parameters()]
    made = make(optimizer, model.parameters(), fused)

    def run() -> None:
        pairs = zip(model.parameters(), centre, strict=True)
        penalty = sum((p if c is None else p - c).square().sum() for p, c in pairs)
        (0.5 * DECAY * penalty).backward()
        made.step()

    return run


Build = Callable[[], Callable[[], Any]]


def variants(base: nn.Module, source: nn.Module, optimizer: str) -> dict[str, Build]:
    """Builders, so that only one variant beside the two baselines is in memory at a time."""
    scale = (1.0 / (NUM_DATA * DECAY)) ** 0.5

    def centred(_: nn.Module) -> Any:
        return {"*": br.Gaussian.centered_at(source, scale, extra="ignore")}

    def diagonal(model: nn.Module) -> Any:
        return {name: br.Gaussian(torch.full(p.shape, scale)) for name, p in model.named_parameters()}

    def zero(_: nn.Module) -> Any:
        return {"*": br.Gaussian(scale)}

    def laplace(_: nn.Module) -> Any:
        return {"*": br.Laplace(scale)}

    found: dict[str, Build] = {
        "Gaussian(0)": partial(with_prior, base, optimizer, True, zero),
        "Gaussian(loc)": partial(with_prior, base, optimizer, True, centred),
        "Gaussian, one std per weight": partial(with_prior, base, optimizer, True, diagonal),
        "Laplace (proximal)": partial(with_prior, base, optimizer, True, laplace),
        "penalty in the loss": partial(penalty_in_the_loss, base, optimizer, True, False),
        "penalty in the loss, centred": partial(penalty_in_the_loss, base, optimizer, True, True),
    }
    if optimizer == "SGD":
        found["Gaussian(0), one plain param group"] = partial(one_group, base, scale)
    else:
        found["Gaussian(loc), decoupled"] = partial(with_prior, base, optimizer, True, centred, route="decoupled")
    return found


def one_group(base: nn.Module, scale: float) -> Callable[[], Any]:
    """An optimizer built from model.parameters(), whose one group mixes two stds: the gradient route."""
    model = with_gradients(base)
    made = make("SGD", model.parameters(), True)
    first = next(name for name, _ in model.named_parameters())
    br.attach(made, br.ModelPrior(model, {first: br.Gaussian(2 * scale), "*": br.Gaussian(scale)}), num_data=NUM_DATA)
    return Step(model, made)


def against_baselines(build: Build, base: nn.Module, optimizer: str, rounds: int) -> dict[str, list[float]]:
    steps = {
        "plain": plain(base, optimizer, True),
        "torch's weight_decay": plain(base, optimizer, True, DECAY),
        "variant": build(),
    }
    return interleaved(steps, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="interleaved rounds")
    parser.add_argument("--model", choices=list(MODELS), action="append")
    parser.add_argument("--optimizer", choices=["SGD", "AdamW"], action="append")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    # The learning rate is tiny so that the weights stay where they are.
    warnings.simplefilter("ignore", br.RoundingWarning)
    rows: list[dict[str, object]] = []
    print(machine())
    for model in arguments.model or MODELS:
        base, source = MODELS[model](), MODELS[model]()
        for optimizer in arguments.optimizer or ["SGD", "AdamW"]:
            own = partial(plain, base, optimizer, True, DECAY)
            block: list[dict[str, object]] = []
            for name, build in {"torch's weight_decay": own, **variants(base, source, optimizer)}.items():
                times = against_baselines(build, base, optimizer, arguments.rounds)
                ratios = {f"÷ {other}": bootstrap(times, "variant", other) for other in list(times)[:2]}
                shown = {key: f"{middle:.2f} ({low:.2f} to {high:.2f})" for key, (middle, low, high) in ratios.items()}
                block.append({"step": name, "median ms": 1e3 * statistics.median(times["variant"]), **shown})
            title = f"{model}, {optimizer}{' with momentum' if optimizer == 'SGD' else ''}, fused"
            print(f"\n{title}\n\n{markdown(block)}", flush=True)
            rows += [{"model": model, "optimizer": optimizer, **row} for row in block]
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
