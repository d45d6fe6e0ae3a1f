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


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_clip_inside_the_closure(name):
    """Where frameworks clip in the closure, apply_() is called there too."""
    one, two = net(), net()
    prior, reference = br.ModelPrior(one, PRIORS["centred"]()), br.ModelPrior(two, PRIORS["centred"]())
    optimizer, plain = optimizer_of(name, prior.param_groups()), optimizer_of(name, two.parameters())
    handle = br.attach(optimizer, prior, num_data=N, before_clip=True)

    def clipped(closure, model, before=lambda: None):
        def run():
            loss = closure()
            before()
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            return loss

        return run

    ours = clipped(closure_for(one, optimizer), one, handle.apply_)
    by_hand = clipped(closure_for(two, plain, lambda: reference.penalty() / N), two)
    for _ in range(STEPS):
        optimizer.step(ours)
        plain.step(by_hand)
    assert largest_gap([p.detach() for p in one.parameters()], [p.detach() for p in two.parameters()]) < 1e-12
    with pytest.raises(br.InvalidArgumentError, match=r"apply_\(\) was not called .* in the closure if any"):
        optimizer.step(closure_for(one, optimizer))


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
    # Adam divides by roots near its epsilon, which carries the last digit of a sum on: up to 4e-13 by kernel.
    assert largest_gap(got, expected) < 1e-11
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


@pytest.mark.parametrize("scaled", [True, False])
def test_apply_twice_or_to_nothing_is_refused(scaled):
    model, _, optimizer, handle = attached(before_clip=True)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    with pytest.raises(br.InvalidArgumentError, match=r"there are no gradients yet; call it after backward"):
        handle.apply_()

    def backward():
        scaler.scale(F.cross_entropy(model(data()[0]), data()[1])).backward()

    for _ in range(2):
        optimizer.zero_grad()
        backward()
        scaler.unscale_(optimizer)
        handle.apply_()
        with pytest.raises(br.InvalidArgumentError, match=r"apply_\(\) was called twice before one step"):
            handle.apply_()
        scaler.step(optimizer)
        scaler.update()
    # A batch that is thrown away is not a mistake.
    for _ in range(2):
        optimizer.zero_grad()
        backward()
        scaler.unscale_(optimizer)
        handle.apply_()
        scaler.update()
    if not scaled:
        # Accumulation, with a call after each micro-batch.
        optimizer.zero_grad()
        backward()
        handle.apply_()
        backward()
        with pytest.raises(br.InvalidArgumentError, match=r"with gradient accumulation call it once"):
            handle.apply_()


def test_gradients_that_are_still_scaled_are_noticed():
    """The scaler is met at the first step; from the second on the mistake is refused."""
    model, _, optimizer, handle = attached(before_clip=True)
    scaler = torch.amp.GradScaler("cpu")

    def step(unscale_first):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(data()[0]), data()[1])).backward()
        if unscale_first:
            scaler.unscale_(optimizer)
        handle.apply_()
        scaler.step(optimizer)
        scaler.update()

    step(True)
    step(True)
    with pytest.raises(br.InvalidArgumentError, match=r"still multiplied by the GradScaler's scale"):
        step(False)


def test_a_skipped_step_does_not_count_as_a_second_application():
    model, _, optimizer, handle = attached(before_clip=True)
    scaler = torch.amp.GradScaler("cpu")
    for step in range(4):
        optimizer.zero_grad(set_to_none=False)
        loss = F.cross_entropy(model(data()[0]), data()[1]) * (float("inf") if step == 1 else 1.0)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        handle.apply_()
        scaler.step(optimizer)
        scaler.update()
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_clip_is_told_again_at_every_step():
    model = nn.Linear(3, 2)
    prior = br.ModelPrior(model, br.Laplace(0.1))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    handle = br.attach(optimizer, prior, num_data=10, before_clip=True)

    def back():
        optimizer.zero_grad()
        model(torch.ones(4, 3)).square().mean().backward()
        handle.apply_()
        return torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)

    handle.clipped(back(), 0.1)
    optimizer.step()
    back()
    with pytest.raises(br.InvalidArgumentError, match=r"handle\.clipped\(total_norm, max_norm\)"):
        optimizer.step()


def test_a_penalty_belongs_in_the_loss_of_every_closure_call():
    model = nn.Linear(3, 2)
    prior = br.ModelPrior(model, br.Gaussian(0.5))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    handle = br.attach(optimizer, prior, num_data=10, route="loss")
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(4, 3)).square().mean()
        if not calls:
            loss = loss + handle.penalty()
        calls.append(loss)
        loss.backward()
        return loss

    with pytest.raises(br.InvalidArgumentError, match=r"handle\.penalty\(\) was not called"):
        optimizer.step(closure)
    assert len(calls) == 2


@pytest.mark.parametrize("family", [br.Gaussian(0.6), br.Laplace(0.2)])
def test_optimizers_that_step_one_by_one(family):
    """Each gets the prior before its own clip, and proximal steps shrink by that clip alone."""
    torch.manual_seed(0)
    X, y = torch.randn(40, 4, dtype=torch.float64), torch.randn(40, 2, dtype=torch.float64)

    def network():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()

    limits = (0.05, 0.2)
    net = network()
    prior = br.ModelPrior(net, {"*": family})
    both = [torch.optim.SGD(net[at].parameters(), lr=0.1) for at in (0, 2)]
    handle = br.attach(both, prior, num_data=40, before_clip=True)
    other = torch.optim.SGD(network().parameters(), lr=0.1)
    for _ in range(5):
        net.zero_grad()
        nn.functional.mse_loss(net(X), y).backward()
        with pytest.raises(br.InvalidArgumentError, match=r"attached to 2 \(SGD, SGD\), and not to the SGD given"):
            handle.apply_(other)
        for one, at, limit in zip(both, (0, 2), limits, strict=True):
            handle.apply_(one)
            norm = nn.utils.clip_grad_norm_(net[at].parameters(), limit)
            handle.clipped(norm, limit, one)
            one.step()
    own = network()
    terms = br.ModelPrior(own, {"*": family})
    kinked = isinstance(family, br.Laplace)
    for _ in range(5):
        own.zero_grad()
        loss = nn.functional.mse_loss(own(X), y)
        (loss if kinked else loss + terms.penalty() / 40).backward()
        for at, limit in zip((0, 2), limits, strict=True):
            norm = float(nn.utils.clip_grad_norm_(own[at].parameters(), limit))
            shrink = 0.1 * min(1.0, limit / (norm + 1e-6)) / (40 * 0.2) if kinked else 0.0
            with torch.no_grad():
                for p in own[at].parameters():
                    p -= 0.1 * p.grad
                    if kinked:
                        p.copy_(p.sign() * (p.abs() - shrink).clamp_min(0.0))
    for mine, theirs in zip(net.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.0, atol=1e-12)
