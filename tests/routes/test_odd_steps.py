"""Odd steps: learning rates of zero, steps within steps, closures of every kind, steps that raise."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import bayesreg as br
from tests.routes.common import attached, net, one_weight, sgd

ADAPTIVE = ["Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adamax"]


class Sub(torch.optim.SGD):
    def step(self, closure=None):
        return super().step(closure)


class SubAdamW(torch.optim.AdamW):
    def step(self, closure=None):
        return super().step(closure)


class ThirdParty(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, use="once"):
        super().__init__(params, {"lr": lr})
        self.use = use

    def step(self, closure=None):
        if closure is None or self.use == "ignore":
            loss = None
        elif self.use == "backward":
            loss = closure()
            loss.backward()
        elif self.use == "argument":
            loss = closure(True)
        else:
            loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.sub_(group["lr"] * p.grad)
        return loss


@pytest.mark.parametrize("at_its_centre", [True, False])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_learning_rate_of_zero_moves_nothing(name, at_its_centre):
    """Warm-ups start, and cosine schedules end, at lr = 0: there 0/0 made NaN of every weight at its centre."""
    torch.manual_seed(0)
    model = nn.Linear(30, 20)
    centre = model if at_its_centre else nn.Linear(30, 20)
    prior = br.ModelPrior(model, {"*": br.Laplace.centered_at(centre, scale=0.1)})
    settings = {"weight_decay": 0.0} if name == "AdamW" else {}
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=1e-3, **settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, t / 3))
    br.attach(optimizer, prior, num_data=100)
    before = copy.deepcopy(model.state_dict())
    for step in range(4):
        optimizer.zero_grad()
        model(torch.ones(1, 30)).sum().backward()
        optimizer.step()
        if step == 0:
            assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        schedule.step()
    assert all(v.isfinite().all() for v in model.state_dict().values())


@pytest.mark.parametrize("keywords", [{"before_clip": True}, {"route": "loss"}])
def test_the_hidden_step_by_which_torch_makes_optimizer_state_is_let_through(keywords):
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    model, _, optimizer, _ = attached(**keywords)
    before = copy.deepcopy(model.state_dict())
    get_optimizer_state_dict(model, optimizer)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("with_closure", [True, False])
@pytest.mark.parametrize("route", ["gradient", "decoupled"])
def test_a_subclass_that_calls_the_step_above_counts_the_prior_once(with_closure, route):
    # A plain SGD and Adam were built, so torch has put hooks around their steps too.
    sgd(net())
    torch.optim.Adam(net().parameters())
    model, prior = one_weight()
    optimizer = Sub(model.parameters(), lr=0.1)
    br.attach(optimizer, prior, num_data=10, route=route)
    for step in range(1, 4):
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step(*([lambda: None] if with_closure else []))
        assert model.weight.item() == pytest.approx((1 - 0.1 * 0.1) ** step, rel=1e-12)
    model, prior = one_weight()
    optimizer = SubAdamW(model.parameters(), lr=0.1, weight_decay=0.0)
    br.attach(optimizer, prior, num_data=10)
    optimizer.step()
    assert model.weight.grad.item() == pytest.approx(0.1)


def test_a_step_that_raised_does_not_make_the_next_one_lose_its_prior():
    model, prior = one_weight()
    optimizer = Sub(model.parameters(), lr=0.1)
    br.attach(optimizer, prior, num_data=10)

    def broken():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(broken)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    assert model.weight.item() == pytest.approx(0.99)


def test_closures_of_third_party_optimizers():
    def build(use):
        model, prior = one_weight()
        optimizer = ThirdParty(model.parameters(), use=use)
        br.attach(optimizer, prior, num_data=10)

        def closure(*_):
            optimizer.zero_grad()
            loss = model.weight.sum() * 0.0
            if use != "backward":
                loss.backward()
            return loss.detach() if use != "backward" else loss

        return model, optimizer, closure

    model, optimizer, closure = build("argument")
    value = optimizer.step(closure)
    assert model.weight.item() == pytest.approx(0.99)
    # It may compare values: it gets the whole objective.
    assert float(value) == pytest.approx(0.5 / 10)
    model, optimizer, closure = build("ignore")
    with pytest.raises(br.UnsupportedError, match="never called its closure"):
        optimizer.step(closure)
    model, optimizer, closure = build("backward")
    with pytest.raises(br.UnsupportedError, match="the closure left no gradients"):
        optimizer.step(closure)


def test_what_is_no_closure_is_left_to_the_optimizer():
    class Takes(ThirdParty):
        def step(self, loss=None):
            self.seen = float(loss)
            return super().step()

    model, prior = one_weight()
    optimizer = Takes(model.parameters())
    br.attach(optimizer, prior, num_data=10)
    optimizer.step(torch.tensor(3.0))
    assert optimizer.seen == 3.0
    assert model.weight.item() == pytest.approx(0.99)
