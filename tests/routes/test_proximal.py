"""Priors with a kink: proximal steps in the optimizer's own metric land on the exact solution, zeros included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import nn

import bayesreg as br
import bayesreg.routes.pulls.proximal
from tests.routes.common import N, net, optimizer_of
from tests.sampling import cells, slow

LASSO_N = 50
TAU = 1.0
ALPHA = 0.15
STEPS = 8000


def lasso_problem():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(LASSO_N, 8))
    y = X @ np.array([2.0, -1.0, 0.0, 0.0, 0.5, 0.0, 0.0, 1.0]) + 0.5 * rng.normal(size=LASSO_N)
    coef = Lasso(alpha=ALPHA, fit_intercept=False, tol=1e-15, max_iter=1_000_000).fit(X, y).coef_
    assert 0 < (coef == 0).sum() < 8
    return torch.as_tensor(X), torch.as_tensor(y), torch.as_tensor(coef)


def run_lasso(make_optimizer, *, steps=STEPS, clip=None, cooling=True):
    """Train to the end of a decreasing schedule; return weights, KKT residual and the exact coefficients."""
    X, y, coef = lasso_problem()
    torch.manual_seed(0)
    model = nn.Linear(8, 1, bias=False).double()
    prior = br.ModelPrior(model, br.Laplace(br.lasso_alpha_to_laplace_scale(ALPHA, LASSO_N, TAU)))
    optimizer = make_optimizer(prior.param_groups())
    handle = br.attach(optimizer, prior, num_data=LASSO_N, before_clip=clip is not None)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-6) if cooling else None

    def gradient():
        optimizer.zero_grad()
        (0.5 * ((model(X)[:, 0] - y) ** 2).mean()).backward()

    for _ in range(steps):
        gradient()
        if clip is not None:
            handle.apply_()
            handle.clipped(nn.utils.clip_grad_norm_(model.parameters(), clip), clip)
        optimizer.step()
        if schedule:
            schedule.step()
    gradient()
    residual = prior["weight"].subdiff_distance(model.weight, model.weight.grad, 1.0 / LASSO_N).max()
    return model.weight.detach()[0], float(residual), coef


METRICS = [
    ("SGD", {"lr": 0.05}), ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}), ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.5, "dampening": 0.3}), ("SGD", {"lr": 0.05, "momentum": 0.9, "fused": True}),
    ("Adam", {"lr": 0.01}), ("Adam", {"lr": 0.01, "amsgrad": True}), ("Adam", {"lr": 0.01, "fused": True}),
    ("AdamW", {"lr": 0.01}), ("NAdam", {"lr": 0.01}), ("RAdam", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01}), ("RMSprop", {"lr": 0.01, "momentum": 0.5}),
    ("Adagrad", {"lr": 0.3}), ("Adagrad", {"lr": 0.3, "lr_decay": 1e-4}), ("Adamax", {"lr": 0.01}),
]  # fmt: skip
LABELS = ["-".join([name, *(f"{k}={v}" for k, v in settings.items())]) for name, settings in METRICS]


@pytest.mark.parametrize(
    ("name", "settings"),
    cells(
        dict(zip(LABELS, METRICS, strict=True)),
        keep=lambda i: METRICS[i][1].get("dampening") == 0.3,
    ),
)
def test_the_lasso_is_met_with_its_zeros(name, settings):
    steps = {"SGD": 3000, "RAdam": 5000}.get(name, STEPS)
    found, residual, coef = run_lasso(lambda groups: optimizer_of(name, groups, **settings), steps=steps)
    assert residual < 1e-9
    assert torch.equal(found == 0, coef == 0)
    assert float((found - coef).abs().max()) < 1e-8


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        cell if cell[0] == "RAdam" else slow(*cell)
        for cell in METRICS
        if cell[0] != "SGD" or (cell[1].get("momentum", 0) != cell[1].get("dampening", 0))
    ],
)
def test_a_plain_learning_rate_as_the_threshold_fails(name, settings, monkeypatch):
    """What people write: softshrink by lr·λ. It is the MAP of another prior for all but plain SGD."""
    monkeypatch.setattr(bayesreg.routes.pulls.proximal, "effective_step", lambda _o, _p, group: float(group["lr"]))
    _, residual, _ = run_lasso(lambda groups: optimizer_of(name, groups, **settings), steps=2000)
    assert residual > 1e-3


def test_nothing_but_a_constant_rate_is_needed_for_sgd():
    found, residual, coef = run_lasso(
        lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9), steps=2000, cooling=False
    )
    assert residual < 1e-9
    assert torch.equal(found == 0, coef == 0)


@pytest.mark.slow
def test_proximal_steps_follow_the_clip():
    found, residual, coef = run_lasso(
        lambda groups: torch.optim.SGD(groups, lr=0.05), steps=2000, clip=0.2, cooling=False
    )
    assert residual < 1e-9
    assert torch.equal(found == 0, coef == 0)


@pytest.mark.slow
def test_the_subgradient_never_gives_a_zero():
    """What the gradient route would do to a kink, and why it is refused there."""
    X, y, coef = lasso_problem()
    weights = nn.Parameter(torch.full((8,), 0.1, dtype=torch.float64))
    optimizer = torch.optim.SGD([weights], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, eta_min=1e-6)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (0.5 * ((X @ weights - y) ** 2).mean() + ALPHA * weights.abs().sum()).backward()
        optimizer.step()
        schedule.step()
    assert (weights == 0).sum() == 0 < (coef == 0).sum()


@pytest.mark.slow
def test_a_smooth_prior_by_the_proximal_route():
    """Asked for by name: the same MAP as by its gradient."""

    def train(route):
        torch.manual_seed(0)
        X, y, _ = lasso_problem()
        model = nn.Linear(8, 1, bias=False).double()
        prior = br.ModelPrior(model, br.Gaussian(0.3, loc=0.2))
        optimizer = torch.optim.SGD(prior.param_groups(), lr=0.05, momentum=0.9)
        handle = br.attach(optimizer, prior, num_data=LASSO_N, route=route)
        for _ in range(1500):
            optimizer.zero_grad()
            (0.5 * ((model(X)[:, 0] - y) ** 2).mean()).backward()
            optimizer.step()
        return model.weight.detach(), handle.describe().rows[0][2]

    (one, first), (two, second) = train("proximal"), train("gradient")
    assert (first, second) == ("proximal", "gradient")
    assert torch.allclose(one, two, rtol=0, atol=1e-12)


def test_proximal_steps_without_the_clip_factor_are_refused():
    model = nn.Linear(2, 1)
    prior = br.ModelPrior(model, br.Laplace(1.0))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    handle = br.attach(optimizer, prior, num_data=10, before_clip=True)
    model(torch.ones(1, 2)).sum().backward()
    handle.apply_()
    before = model.weight.detach().clone()
    with pytest.raises(br.InvalidArgumentError, match=r"call handle\.clipped\(total_norm, max_norm\)"):
        optimizer.step()
    assert torch.equal(model.weight, before)
    # And the factor of one step is not that of the next.
    handle.clipped(2.0, 1.0)
    optimizer.step()
    handle.apply_()
    with pytest.raises(br.InvalidArgumentError, match=r"call handle\.clipped\(total_norm, max_norm\)"):
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Rprop", "signs of gradients only"), ("Adadelta", "updates that it does not keep"), ("ASGD", "a rule of its own"),
     ("Adafactor", "depends on the weights themselves")],
)  # fmt: skip
def test_optimizers_without_a_known_metric_refuse_kinks(name, reason):
    model = nn.Linear(2, 1)
    prior = br.ModelPrior(model, br.Laplace(1.0))
    with pytest.raises(br.UnsupportedError, match=rf"{name}: a prior with a kink needs proximal steps.*{reason}"):
        br.attach(optimizer_of(name, prior.param_groups()), prior, num_data=10)


def test_centred_rmsprop_refuses_kinks():
    model = nn.Linear(2, 1)
    prior = br.ModelPrior(model, br.Laplace(1.0))
    with pytest.raises(br.UnsupportedError, match="use centered=False"):
        br.attach(torch.optim.RMSprop(prior.param_groups(), centered=True), prior, num_data=10)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adamax"])
def test_weights_without_a_gradient_yet_are_not_thrown_to_zero(name):
    """Adam's step is lr/eps where it has met no gradient; one batch must not wipe an embedding table."""
    torch.manual_seed(0)
    table = nn.Embedding(100, 4)
    prior = br.ModelPrior(table, {"*": br.Laplace(1.0)})
    optimizer = optimizer_of(name, prior.param_groups(), lr=1e-3)
    br.attach(optimizer, prior, num_data=100_000)
    table(torch.arange(8)).square().sum().backward()
    before = table.weight.detach().clone()
    optimizer.step()
    assert (table.weight[8:] != 0).float().mean() > 0.98
    assert (table.weight[8:] - before[8:]).abs().max() <= 10.001e-3


def test_a_skipped_amp_step_takes_no_proximal_step():
    model = nn.Linear(2, 1)
    prior = br.ModelPrior(model, br.Laplace(1e-3))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1, fused=True)
    br.attach(optimizer, prior, num_data=10)
    scaler = torch.amp.GradScaler("cpu")
    before = model.weight.detach().clone()
    loss = model(torch.full((1, 2), float("inf"))).sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert torch.equal(model.weight, before)


def test_a_momentum_of_one_has_no_proximal_step():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=1.0)
    with pytest.raises(br.UnsupportedError, match="with momentum >= 1 steps never end"):
        br.attach(optimizer, br.ModelPrior(model, br.Laplace(1.0)), num_data=N)
    # It is read all the same.
    decayed = torch.optim.SGD(model.parameters(), lr=0.1, momentum=1.0, weight_decay=1e-3)
    (group,) = br.explain(decayed, model, num_data=N, batch_size=10, steps=20).groups
    assert group.weight_decay == 1e-3
    assert group.horizon.memory == 0.0
