"""The problem that all frameworks get, and the loop that bayesreg did not write."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

import bayesreg as br

N, BATCH, EPOCHS, RATE, STD = 60, 20, 4, 0.1, 0.6


def data():
    generator = torch.Generator().manual_seed(5)
    X = torch.randn(N, 6, generator=generator, dtype=torch.float64)
    return X, torch.randint(0, 3, (N,), generator=generator)


class Net(nn.Sequential):
    """6-5-3, tanh, float64, the same start each time."""

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        super().__init__(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
        self.double()


PRIORS = {
    "l2": lambda: {"*": br.Gaussian(STD)},
    "centred": lambda: {"*": br.Gaussian.centered_at(Net(seed=9), STD)},
    "laplace": lambda: {"*.weight": br.Laplace(0.1), "*": br.Flat()},
}


def by_hand(rules, *, clip=None, epochs=EPOCHS, momentum=0.0, rows=N, net=None):
    """The MAP loop, with nothing of bayesreg in it but the values of the prior: SGD, the prior before the clip."""
    net = Net() if net is None else net
    prior = None if rules is None else br.ModelPrior(net, rules)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=momentum)
    X, y = data()
    shrunk = rules is not None and any(isinstance(one, br.Laplace) for one in rules.values())
    for _ in range(epochs):
        for first in range(0, rows, BATCH):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(X[first : min(first + BATCH, rows)]), y[first : min(first + BATCH, rows)])
            if prior is not None and not shrunk:
                loss = loss + prior.penalty() / rows
            loss.backward()
            factor = 1.0
            if clip is not None:
                norm = torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
                factor = min(1.0, clip / (float(norm) + 1e-6))
            optimizer.step()
            if shrunk:
                with torch.no_grad():
                    for name, weight in net.named_parameters():
                        if name.endswith("weight"):
                            step = RATE / (1.0 - momentum) * factor / (rows * 0.1)
                            weight.copy_(weight.sign() * (weight.abs() - step).clamp_min(0.0))
    return [p.detach().clone() for p in net.parameters()]


def gap(one, other):
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
