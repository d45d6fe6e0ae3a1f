"""A training that uses everything that must survive: an order, dropout, random transforms, a schedule, records."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import bayesreg as br

SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
ADAM = partial(torch.optim.Adam, lr=0.01)
COSINE = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=60)

#: What is asked of the trainer beside that.
HOW: dict[str, dict[str, Any]] = {
    "plain": {"optimizer": SGD},
    "accumulated": {"optimizer": ADAM, "accumulate": 3},
    "fp16-scaled": {"optimizer": ADAM, "mixed_precision": "fp16", "clip_norm": 1.0},
    "kinked": {"optimizer": ADAM, "prior": br.Laplace(0.1)},
    "by steps": {"optimizer": ADAM, "evaluate_every": 7, "max_steps": 45},
    "learned noise": {"optimizer": ADAM, "likelihood": lambda: br.likelihoods.Gaussian("learned")},
    "centred": {"optimizer": SGD, "prior": "centred", "patience": 50},
}


class Jittered(Dataset[tuple[Tensor, Tensor]]):
    """Examples that are another each time they are read, from torch's and Python's randomness."""

    def __init__(self, real: bool, stop_at: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(101, 6, generator=generator)
        self.y = self.x[:, :1].clone() if real else (self.x[:, 0] > 0).long()
        self.reads, self.stop_at = 0, stop_at

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.reads += 1
        if self.reads == self.stop_at:
            raise Stop
        return self.x[index] + 0.1 * torch.randn(6) + 0.1 * random.random(), self.y[index]


class Stop(Exception):
    """Stands for whatever ends a process."""


def network(outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, outputs))


def train(
    folder: Path | None,
    *,
    resume: bool = False,
    stop_at: int | None = None,
    loader: dict[str, Any] | None = None,
    seed: int = 1,
    **how: Any,
) -> tuple[Tensor, br.FitResult] | None:
    """Train as the first time or go on; return all that a model's state holds, None if reading an example raised."""
    torch.manual_seed(seed)
    random.seed(seed)
    likelihood = how.pop("likelihood", br.likelihoods.Categorical)()
    real = likelihood.target_kind == "real"
    model = network(1 if real else 2)
    prior = how.pop("prior", br.Gaussian(0.3))
    if prior == "centred":
        generator = torch.Generator().manual_seed(4)
        centre = {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}
        prior = br.Gaussian.centered_at(centre, 0.3)
    data = Jittered(real, stop_at)
    trainer = br.MAPTrainer(
        model,
        prior,
        likelihood,
        scheduler=how.pop("scheduler", COSINE),
        checkpoint=folder,
        progress=False,
        **{"max_epochs": 4, **how},
    )
    batches = DataLoader(data, **{"batch_size": 8, "shuffle": True, **(loader or {})})
    try:
        result = trainer.fit(batches, (data.x, data.y), resume=resume)
    except Stop:
        return None
    state = [value.reshape(-1).double() for value in model.state_dict().values()]
    return torch.cat([*state, *(p.detach().reshape(-1) for p in likelihood.parameters())]), result


def records(result: br.FitResult) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in result.history]
