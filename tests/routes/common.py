"""What the tests of the routes share: a small problem, every optimizer, and loops that bayesreg did not write."""

from __future__ import annotations

import inspect

import torch
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from tests.versions import ADAM_HAS_FLAG

N = 60
STEPS = 50


def data():
    g = torch.Generator().manual_seed(5)
    X = torch.randn(N, 6, generator=g, dtype=torch.float64)
    return X, torch.randint(0, 3, (N,), generator=g)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def optimizer_of(name, groups, **keywords):
    """Build one of torch's optimizers without any decay of its own."""
    cls = getattr(torch.optim, name)
    if "weight_decay" in inspect.signature(cls.__init__).parameters and name != "SGD":
        keywords.setdefault("weight_decay", 0.0)
    if name == "ASGD":
        keywords["lambd"] = 0.0
    keywords.setdefault("lr", 0.02)
    return cls(groups, **keywords)


def trained(model, optimizer, *, penalty=lambda: 0.0, steps=STEPS, before_step=lambda: None, accumulate=1):
    X, y = data()
    for _ in range(steps):
        optimizer.zero_grad()
        for part in range(accumulate):
            rows = slice(part * N // accumulate, (part + 1) * N // accumulate)
            (F.cross_entropy(model(X[rows]), y[rows]) / accumulate).backward()
        extra = penalty()
        if isinstance(extra, torch.Tensor):
            extra.backward()
        before_step()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def largest_gap(one, other):
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def attached(rules=None, **keywords):
    model = net()
    prior = br.ModelPrior(model, rules or br.Gaussian(0.3))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.05)
    return model, prior, optimizer, br.attach(optimizer, prior, num_data=N, **keywords)


PRIORS = {
    "isotropic": lambda: {br.biases: br.Flat(), "*": br.Gaussian(0.3)},
    "centred": lambda: {br.biases: br.Flat(), "*": br.Gaussian.centered_at(net(seed=9), 0.3)},
    "diagonal": lambda: {
        "0.weight": br.Gaussian(0.2 + torch.linspace(0, 1, 6, dtype=torch.float64)),
        "*": br.Gaussian(0.5),
    },
    "student-t": lambda: {"*": br.FromDistribution(torch.distributions.StudentT(torch.tensor(3.0).double(), 0.0, 0.2))},
    "mixed": lambda: {"0.*": br.Gaussian.centered_at(net(seed=9), 0.2, extra="ignore"), "*": br.Gaussian(0.7, loc=0.1)},
}

#: Every optimizer of torch that takes a prior's gradient, with every setting that changes what its step does.
VARIANTS = {
    "SGD": [
        {}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.8, "dampening": 0.5},
        {"momentum": 0.9, "foreach": True}, {"momentum": 0.9, "fused": True}, {"maximize": False, "foreach": False},
    ],
    "Adam": [
        {}, {"amsgrad": True}, {"foreach": True}, {"fused": True},
        *([{"decoupled_weight_decay": True}] if ADAM_HAS_FLAG else []),
    ],
    "AdamW": [{}, {"amsgrad": True}, {"foreach": True}, {"fused": True}],
    "NAdam": [{}, {"foreach": True}, {"decoupled_weight_decay": True}],
    "RAdam": [{}, {"foreach": True}, {"decoupled_weight_decay": True}],
    "Adagrad": [{}, {"lr_decay": 0.1}, {"foreach": True}, {"fused": True}],
    "Adadelta": [{}, {"foreach": True}],
    "Adamax": [{}, {"foreach": True}],
    "RMSprop": [{}, {"momentum": 0.5}, {"centered": True}, {"centered": True, "momentum": 0.5}, {"foreach": True}],
    "ASGD": [{}, {"foreach": True}],
    "Rprop": [{}, {"foreach": True}],
    "Adafactor": [{}, {"foreach": True}],
}  # fmt: skip


def one_weight(value=1.0, **settings):
    """Return a linear model of one weight under Gaussian(1), n = 10, lr = 0.1, and a zero gradient."""
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(value)
    model.weight.grad = torch.zeros_like(model.weight)
    return model, br.ModelPrior(model, {"*": br.Gaussian(1.0, **settings)})


def sgd(model, **settings):
    return torch.optim.SGD(model.parameters(), lr=0.1, **settings)
