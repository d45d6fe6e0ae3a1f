"""The families on the routes: smooth ones follow the penalty in the loss, kinked ones reach the solver's optimum."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import bayesreg as br
from tests.routes.common import VARIANTS, N, largest_gap, net, optimizer_of, trained
from tests.sampling import cells


def spd(n):
    a = torch.randn(n, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    return 0.05 * (a @ a.T / n + torch.eye(n, dtype=torch.float64))


def low_rank(shape):
    return br.LowRankGaussian(0.05, 0.2 * torch.randn(*shape, 2, generator=torch.Generator().manual_seed(1)).double())


SMOOTH = {
    "student": lambda: br.StudentT(3.0, 0.1),
    "cauchy": lambda: br.Cauchy(0.1, loc=0.05),
    "normal-gamma": lambda: br.NormalGamma(2.0, 0.02),
    "power 1.5": lambda: br.GeneralizedNormal(1.5, 0.2),
    "logistic": lambda: br.Logistic(0.1),
    "mixture": lambda: br.ScaleMixture.spike_and_slab(0.05, 0.5),
    "correlated": lambda: {"0.weight": br.MultivariateGaussian(spd(6)), "*": br.Flat()},
    "matrix": lambda: {"0.weight": br.MatrixGaussian(spd(5), 20.0 * spd(6)), "*": br.Flat()},
    "low rank": lambda: {"0.weight": low_rank((5, 6)), "*": br.Flat()},
    "fan-in": lambda: br.FanInGaussian.he(0.5),
    "r2d2": lambda: br.R2D2(1.5, 0.5, 0.1),
}


@pytest.mark.parametrize(("name", "family"), cells(VARIANTS.keys(), SMOOTH.keys(), keep=lambda i, j: (i - j) % 10 == 0))
def test_smooth_families_follow_the_penalty_in_the_loss(name, family):
    one, two = net(), net()
    prior, reference = br.ModelPrior(one, SMOOTH[family]()), br.ModelPrior(two, SMOOTH[family]())
    optimizer = optimizer_of(name, prior.param_groups())
    br.attach(optimizer, prior, num_data=N)
    expected = trained(two, optimizer_of(name, two.parameters()), penalty=lambda: reference.penalty() / N)
    gap = largest_gap(trained(one, optimizer), expected)
    if gap >= 1e-12:
        # A gradient that nearly vanishes makes an adaptive step of it: the yardstick is the loop by hand, one ulp away.
        gaps = [largest_gap(nudged(name, family, seed), expected) for seed in range(4)]
        assert gap < 10 * max(gaps)
    bare = net()
    assert largest_gap(expected, trained(bare, optimizer_of(name, bare.parameters()))) > 1e-5


def nudged(name, family, seed):
    """The loop by hand from a start in which every weight is moved to a neighbouring number, or not."""
    model, coin = net(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            up = torch.nextafter(p, torch.full_like(p, 9.0))
            p.copy_(torch.where(torch.rand(p.shape, generator=coin) < 0.5, up, p))
    prior = br.ModelPrior(model, SMOOTH[family]())
    return trained(model, optimizer_of(name, model.parameters()), penalty=lambda: prior.penalty() / N)


OPTIMIZERS = [
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}), ("Adam", {"lr": 0.01}),
    ("NAdam", {"lr": 0.01}), ("RMSprop", {"lr": 0.01}),
    ("Adagrad", {"lr": 0.3}), ("Adamax", {"lr": 0.01}),
]  # fmt: skip
KINKED = {
    "elastic net": lambda: br.ElasticNet(12.0, 5.0),
    "rows": lambda: br.GroupLaplace(20.0, "row"),
    "columns": lambda: br.GroupLaplace(14.0, "column"),
    "tensor": lambda: br.GroupLaplace(30.0, "tensor"),
    "power 1": lambda: br.GeneralizedNormal(1.0, 0.08),
    "power ½": lambda: br.GeneralizedNormal(0.5, 0.02),
    "bounds": lambda: br.Uniform(-0.3, 0.4),
}


def problem():
    g = torch.Generator().manual_seed(3)
    X = torch.randn(50, 6, generator=g, dtype=torch.float64)
    W = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.05, 0.0], [0.8, 0.0, 0.3], [0.0, 0.0, 0.0], [-0.6, 0.1, 1.2],
                      [0.0, 0.05, 0.0]], dtype=torch.float64)  # fmt: skip
    return X, X @ W + 0.3 * torch.randn(50, 3, generator=g, dtype=torch.float64)


# The quick ones: an optimizer each for a penalty by elements, by rows, one without a slope at 0, and for bounds.
QUICK = {("SGD", "elastic net"), ("RMSprop", "bounds")}


@pytest.mark.parametrize(
    ("name", "settings", "family"),
    cells(
        {"-".join([name, *settings]): (name, settings) for name, settings in OPTIMIZERS},
        KINKED.keys(),
        keep=lambda i, j: (OPTIMIZERS[i][0], list(KINKED)[j]) in QUICK,
    ),
)
def test_kinked_families_reach_the_optimum_in_every_metric(name, settings, family):
    X, Y = problem()
    torch.manual_seed(0)
    model = nn.Linear(6, 3, bias=False).double()
    solved = copy.deepcopy(model)
    prior = br.ModelPrior(model, KINKED[family]())
    optimizer = optimizer_of(name, prior.param_groups(), **settings)
    br.attach(optimizer, prior, num_data=50)
    steps = {"Adamax": 5000, "NAdam": 4000}.get(name, 3000)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-6)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (model(X) - Y).square().sum() / 50).backward()
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()
    (0.5 * (model(X) - Y).square().sum() / 50).backward()
    held = prior["weight"]
    assert held.subdiff_distance(model.weight, model.weight.grad, 1 / 50).max() < 1e-9
    kinked = held.at_kink(model.weight.detach())
    if family != "tensor":
        assert kinked.sum() > 0
        assert kinked.sum() < kinked.numel()
    if held.traits.convex:
        trainer = br.MAPTrainer(
            solved, KINKED[family](), br.likelihoods.Gaussian(1.0), optimizer="proximal", progress=False
        )
        assert trainer.fit((X, Y)).converged
        assert torch.equal(kinked, held.at_kink(solved.weight.detach()))
        assert largest_gap([model.weight.detach()], [solved.weight.detach()]) < 1e-8


@pytest.mark.slow
# A mean step in place of one per coordinate is the MAP of another prior (99 % off, in a first try of this design).
def test_a_mean_step_for_a_group_is_wrong(monkeypatch):
    X, Y = problem()
    whole = br.GroupLaplace.prox
    monkeypatch.setattr(
        br.GroupLaplace,
        "prox",
        lambda self, value, step: whole(self, value, float(step.mean()) if isinstance(step, torch.Tensor) else step),
    )
    torch.manual_seed(0)
    model = nn.Linear(6, 3, bias=False).double()
    prior = br.ModelPrior(model, br.GroupLaplace(14.0, "column"))
    optimizer = torch.optim.Adam(prior.param_groups(), lr=0.01)
    br.attach(optimizer, prior, num_data=50)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3000, eta_min=1e-6)
    for _ in range(3000):
        optimizer.zero_grad()
        (0.5 * (model(X) - Y).square().sum() / 50).backward()
        optimizer.step()
        schedule.step()
    assert prior["weight"].subdiff_distance(model.weight, model.weight.grad, 1 / 50).max() > 1e-3


def test_bounds_pull_a_start_from_outside_into_them():
    model = nn.Linear(6, 3, bias=False).double()
    with torch.no_grad():
        model.weight.mul_(100.0)
    prior = br.ModelPrior(model, br.Uniform(-0.3, 0.4))
    optimizer = torch.optim.Adam(prior.param_groups(), lr=1e-3)
    handle = br.attach(optimizer, prior, num_data=50)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    assert model.weight.min() >= -0.3
    assert model.weight.max() <= 0.4
    assert handle.log()["penalty"] == 0.0
