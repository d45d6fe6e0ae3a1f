"""Loops that pass a closure to step(), and loops that clip gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from tests.routes.common import PRIORS, STEPS, N, attached, data, largest_gap, net, optimizer_of, trained


def closure_for(model, optimizer, penalty=lambda: 0.0):
    X, y = data()

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X), y) + penalty()
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("by_keyword", [False, True])
@pytest.mark.parametrize("rules", [PRIORS["isotropic"], PRIORS["centred"], PRIORS["student-t"]])
def test_steps_with_a_closure_follow_the_autograd_penalty(rules, by_keyword):
    """Frameworks that pass a closure to step() make the gradients inside it; a plain hook would lose the prior."""
    one, two = net(), net()
    prior, reference = br.ModelPrior(one, rules()), br.ModelPrior(two, rules())
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.05, momentum=0.9)
    br.attach(optimizer, prior, num_data=N)
    plain = torch.optim.SGD(two.parameters(), lr=0.05, momentum=0.9)
    closure, with_penalty = closure_for(one, optimizer), closure_for(two, plain, lambda: reference.penalty() / N)
    for _ in range(STEPS):
        optimizer.step(**{"closure": closure}) if by_keyword else optimizer.step(closure)
        plain.step(with_penalty)
    assert largest_gap([p.detach() for p in one.parameters()], [p.detach() for p in two.parameters()]) < 1e-12


@pytest.mark.parametrize("rules", [PRIORS["isotropic"], PRIORS["centred"], PRIORS["student-t"]])
def test_lbfgs_searches_along_the_whole_objective(rules):
    model = net()
    prior = br.ModelPrior(model, rules())
    optimizer = torch.optim.LBFGS(
        model.parameters(), line_search_fn="strong_wolfe", max_iter=50, tolerance_grad=1e-10, tolerance_change=0.0
    )
    handle = br.attach(optimizer, prior, num_data=N)
    assert {row[2] for row in handle.describe().rows} <= {"gradient", "none"}
    X, y = data()
    first = F.cross_entropy(model(X), y).item() + prior.penalty().item() / N
    assert optimizer.step(closure_for(model, optimizer)).item() == pytest.approx(first, rel=1e-12)
    for _ in range(20):
        optimizer.step(closure_for(model, optimizer))
    objective = F.cross_entropy(model(X), y) + prior.penalty() / N
    for slope in torch.autograd.grad(objective, list(model.parameters())):
        assert slope.abs().max() < 1e-6


def test_a_clip_cannot_reach_into_a_closure():
    _, _, optimizer, _ = attached(before_clip=True)
    with pytest.raises(br.UnsupportedError, match=r"makes its gradients inside the step, so a clip before it clips"):
        optimizer.step(lambda: torch.zeros(()))


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_before_clip_keeps_the_map(name):
    one, two = net(), net()
    rules = {"0.*": br.Gaussian(0.1, loc=0.3), "*": br.Gaussian(0.1)}
    prior, reference = br.ModelPrior(one, rules), br.ModelPrior(two, rules)
    optimizer = optimizer_of(name, prior.param_groups())
    handle = br.attach(optimizer, prior, num_data=N, before_clip=True)

    def clip_one():
        handle.apply_()
        nn.utils.clip_grad_norm_(one.parameters(), 0.05)

    got = trained(one, optimizer, before_step=clip_one)
    expected = trained(
        two, optimizer_of(name, two.parameters()), penalty=lambda: reference.penalty() / N,
        before_step=lambda: nn.utils.clip_grad_norm_(two.parameters(), 0.05),
    )  # fmt: skip
    assert largest_gap(got, expected) < 1e-12
    assert all(group["weight_decay"] == 0.0 for group in optimizer.param_groups)


def test_a_step_without_apply_is_refused():
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.1))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    handle = br.attach(optimizer, prior, num_data=N, before_clip=True)
    trained(model, optimizer, steps=2, before_step=handle.apply_)
    with pytest.raises(br.InvalidArgumentError, match=r"handle\.apply_\(\) was not called before this step"):
        trained(model, optimizer, steps=1)
    handle.remove()
    handle = br.attach(optimizer, prior, num_data=N)
    with pytest.raises(br.InvalidArgumentError, match=r"apply_\(\) is for br\.attach\(\.\.\., before_clip=True\)"):
        handle.apply_()
