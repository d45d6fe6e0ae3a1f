"""What does a prior cost per optimizer step? SGD with momentum on the shapes of ResNet-18 (11.7 M weights, float32)."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable

import torch
from _common import interleaved, paired_ratio, write
from torch import nn

import bayesreg as br

ROUNDS = 25
NUM_DATA = 50_000


def resnet18_shapes() -> nn.ModuleDict:
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


def with_gradients(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.grad = 1e-3 * torch.randn_like(parameter)
    return model


def step(rules: Callable[[nn.Module], object] | None, weight_decay: float = 0.0, fused: bool = True):
    """An optimizer step with a prior attached (or, without one, torch's own)."""
    model = with_gradients(copy.deepcopy(BASE)).to(DEVICE)
    for parameter in model.parameters():
        parameter.grad = parameter.grad.to(DEVICE)
    if rules is None:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, weight_decay=weight_decay, fused=fused)
        return optimizer.step
    prior = br.ModelPrior(model, rules(model))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=1e-6, momentum=0.9, fused=fused)
    br.attach(optimizer, prior, num_data=NUM_DATA)
    return optimizer.step


def autograd_penalty(centred: bool):
    """What people write by hand: the penalty in the loss, a backward pass, and the step."""
    model = with_gradients(copy.deepcopy(BASE)).to(DEVICE)
    centre = [p.detach().clone() if centred else torch.zeros(()).to(p) for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, fused=True)

    def run() -> None:
        penalty = sum((p - c).square().sum() for p, c in zip(model.parameters(), centre, strict=True))
        (2.5e-4 * penalty).backward()
        optimizer.step()

    return run


torch.manual_seed(0)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BASE = resnet18_shapes()
SOURCE = resnet18_shapes()


def main() -> None:
    names = {
        "plain torch, fused": step(None),
        "torch weight_decay, fused": step(None, weight_decay=5e-4),
        "Gaussian(0), native": step(lambda m: {"*": br.Gaussian(0.2)}),
        "Gaussian(loc), native + centre": step(lambda m: {"*": br.Gaussian.centered_at(SOURCE, 0.2, extra="ignore")}),
        "Gaussian diagonal, gradient": step(
            lambda m: {n: br.Gaussian(torch.full(p.shape, 0.2)) for n, p in m.named_parameters()}
        ),
        "Laplace, proximal": step(lambda m: {"*": br.Laplace(0.2)}),
        "StudentT by autograd, gradient": step(
            lambda m: {"*": br.FromDistribution(torch.distributions.StudentT(4.0, 0.0, 0.2))}
        ),
        "penalty in the loss, by hand": autograd_penalty(centred=False),
        "penalty in the loss, centred, by hand": autograd_penalty(centred=True),
    }
    times = interleaved(names, ROUNDS)
    rows: list[dict[str, object]] = [
        {
            "step": name,
            "median ms": 1e3 * statistics.median(values),
            "ratio to plain": paired_ratio(times, name, "plain torch, fused"),
        }
        for name, values in times.items()
    ]
    write(rows, __doc__ or "")


if __name__ == "__main__":
    main()
