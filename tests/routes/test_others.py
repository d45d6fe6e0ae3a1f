"""Who else steps weights that have a prior, what was unfrozen, and states that were saved under other rules."""

from __future__ import annotations

import copy
import gc
import warnings

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

import bayesreg as br

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


def backward(model):
    model.zero_grad()
    model(X).square().mean().backward()


def attached(optimizer, model, **how):
    return br.attach(optimizer, br.ModelPrior(model, br.Gaussian(0.5)), num_data=100, **how)


# -- second optimizers ---------------------------------------------------------------------------------------------


def test_a_second_optimizer_in_between_raises():
    model = net()
    first, second = SGD(model.parameters(), lr=0.1), Adam(model[2].parameters())
    attached(first, model)
    backward(model)
    first.step()
    with pytest.warns(
        br.OtherOptimizerWarning, match=r"2.weight has its prior on another optimizer \(SGD\), and Adam"
    ) as said:
        second.step()
    assert [one.filename for one in said] == [__file__]
    backward(model)
    first.step()
    with pytest.raises(br.CoverageError, match=r"Adam steps it in between without the prior.*\[first, second\]"):
        second.step()


def test_a_tied_weight_in_another_model_counts():
    one, other = net(), net()
    other[0].weight = one[0].weight
    first, second = SGD(one.parameters(), lr=0.1), Adam(other.parameters())
    attached(first, one)
    backward(one)
    first.step()
    backward(other)
    with pytest.warns(br.OtherOptimizerWarning, match=r"0.weight has its prior"):
        second.step()


@pytest.mark.parametrize("alive", [True, False])
def test_an_optimizer_that_takes_over_is_said_once(alive):
    model = net()
    first = SGD(model.parameters(), lr=0.1)
    attached(first, model)
    for _ in range(3):
        backward(model)
        first.step()
    if not alive:
        del first
        gc.collect()
    second = Adam(model.parameters())
    backward(model)
    said = "has its prior on another optimizer" if alive else "the SGD that a prior was attached to is gone"
    with pytest.warns(br.OtherOptimizerWarning, match=f"other-optimizer: .*{said}"):
        second.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            backward(model)
            second.step()


def removed(model):
    first = SGD(model.parameters(), lr=0.1)
    attached(first, model).remove()
    return [first, Adam(model.parameters())]


def detached(model):
    first, second = SGD(model.parameters(), lr=0.1), Adam(model.parameters())
    attached(first, model)
    br.detach(second)
    return [first, second]


def both(model):
    first, second = SGD(model.parameters(), lr=0.1), Adam(model.parameters())
    attached(first, model)
    attached(second, model)
    return [first, second]


def a_list(model):
    optimizers = [SGD(model[0].parameters(), lr=0.1), Adam(model[2].parameters())]
    attached(optimizers, model)
    return optimizers


def other_model(model):
    first, second = SGD(model.parameters(), lr=0.1), Adam(net().parameters())
    attached(first, model)
    return [first, second]


def flat_part(model):
    first, second = SGD(model[0].parameters(), lr=0.1), Adam(model[2].parameters())
    prior = br.ModelPrior(model[0], br.Gaussian(0.5))
    br.attach(first, prior, num_data=100)
    return [first, second]


class Wrapping(Optimizer):
    """Steps another optimizer inside its own step, as Lookahead and SAM do."""

    def __init__(self, inner):
        super().__init__([p for group in inner.param_groups for p in group["params"]], {})
        self.inner = inner

    def step(self, closure=None):
        return self.inner.step(closure)


class Hiding(Wrapping):
    """The same, with the inner one out of sight."""

    def __init__(self, inner):
        super().__init__(inner)
        del self.inner
        self.kept = [inner]

    def step(self, closure=None):
        return self.kept[0].step(closure)


def wrapped(model):
    inner = SGD(model.parameters(), lr=0.1)
    attached(inner, model)
    return [Wrapping(inner)]


def hidden(model):
    inner = SGD(model.parameters(), lr=0.1)
    attached(inner, model)
    return [Hiding(inner)]


def in_backward(model):
    optimizers = [SGD([p], lr=0.1) for p in model.parameters()]
    attached(optimizers, model)
    return optimizers


def only_frozen(model):
    """The second holds the first's weights too, and they are frozen whenever it steps."""
    first, head = SGD(model.parameters(), lr=0.1), nn.Linear(6, 1)
    second = Adam([*model.parameters(), *head.parameters()])
    attached(first, model)

    def freeze(*_):
        for parameter in model.parameters():
            parameter.grad = None

    second.register_step_pre_hook(freeze)
    return [first, second]


QUIET = [removed, detached, both, a_list, other_model, flat_part, wrapped, hidden, in_backward, only_frozen]


@pytest.mark.parametrize("make", QUIET)
def test_what_is_as_it_should_be_is_quiet(make):
    model = net()
    optimizers = make(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            backward(model)
            for optimizer in optimizers:
                optimizer.step()


def test_a_sweep_over_one_model_is_quiet():
    model = net()
    start = copy.deepcopy(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rate in (0.1, 0.01):
            model.load_state_dict(start)
            optimizer = SGD(model.parameters(), lr=rate)
            attached(optimizer, model)
            for _ in range(3):
                backward(model)
                optimizer.step()


def test_a_step_that_raises_does_not_hide_a_second_optimizer():
    model = net()
    first, second = SGD(model.parameters(), lr=0.1), Adam(model.parameters())
    attached(first, model)

    def fail(*_):
        raise ConnectionError

    hook = first.register_step_pre_hook(fail)
    backward(model)
    with pytest.raises(ConnectionError):
        first.step()
    hook.remove()
    with pytest.warns(br.OtherOptimizerWarning):
        second.step()


# -- unfreezing ----------------------------------------------------------------------------------------------------


def half_frozen(rules=None):
    model = net()
    model[0].requires_grad_(False)
    prior = br.ModelPrior(model, rules or {"*": br.Gaussian(0.5)})
    optimizer = SGD(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, num_data=100)
    return model, prior, optimizer


def test_what_is_unfrozen_and_in_no_optimizer_raises_with_the_way_on():
    model, prior, optimizer = half_frozen()
    for _ in range(2):
        backward(model)
        optimizer.step()
    model[0].requires_grad_(True)
    backward(model)
    said = (
        r"0\.weight, 0\.bias were frozen .* no optimizer with the prior holds them, so .*; add them: for group in "
        r"prior\.param_groups\(only=\['0\.weight', '0\.bias'\]\): optimizer\.add_param_group\(group\)"
    )
    with pytest.raises(br.CoverageError, match=said):
        optimizer.step()
    # Half of it is answered in the same words.
    half = SGD(prior.param_groups(only=["0.weight", "2.weight", "2.bias"]), lr=0.1)
    with pytest.raises(br.CoverageError, match=r"does not hold 0\.bias, .* prior\.param_groups\(only=\['0\.bias'\]\)"):
        br.attach(half, prior, num_data=100)
    for group in prior.param_groups(only=["0.weight", "0.bias"]):
        optimizer.add_param_group(group)
    before = model[0].weight.detach().clone()
    backward(model)
    optimizer.step()
    assert not torch.equal(before, model[0].weight)


def test_groups_made_before_layers_are_frozen_have_them_when_they_are_unfrozen():
    model = net()
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.5)})
    optimizer = SGD(prior.param_groups(), lr=0.1)
    model[0].requires_grad_(False)
    handle = br.attach(optimizer, prior, num_data=100)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1.0 + step))
    backward(model)
    optimizer.step()
    schedule.step()
    model[0].requires_grad_(True)
    before = model[0].weight.detach().clone()
    backward(model)
    expected = before - 0.05 * (model[0].weight.grad + before / (100 * 0.5**2))
    optimizer.step()
    schedule.step()
    assert torch.allclose(model[0].weight, expected, atol=1e-12)
    assert {row[2] for row in handle.describe().rows} == {"native"}


def test_what_is_unfrozen_for_another_optimizer_with_the_prior_is_fine():
    model, _, optimizer = half_frozen()
    model[0].requires_grad_(True)
    second = SGD(model[0].parameters(), lr=0.1)
    br.attach(second, br.ModelPrior(model[0], {"*": br.Gaussian(0.5)}), num_data=100)
    for _ in range(5):
        backward(model)
        optimizer.step()
        second.step()


def test_what_is_unfrozen_and_flat_may_be_anothers_but_not_nobodys():
    rules = {"0.*": br.Flat(), "*": br.Gaussian(0.5)}
    model, _, optimizer = half_frozen(rules)
    model[0].requires_grad_(True)
    second = SGD(model[0].parameters(), lr=0.1)
    for _ in range(6):
        backward(model)
        optimizer.step()
        second.step()
    model, _, optimizer = half_frozen(rules)
    model[0].requires_grad_(True)
    for _ in range(2):
        backward(model)
        optimizer.step()
    backward(model)
    with pytest.raises(br.CoverageError, match="so no step moves them; add them"):
        optimizer.step()


def test_what_stays_frozen_or_is_unfrozen_without_a_gradient_is_fine():
    model, _, optimizer = half_frozen()
    for _ in range(5):
        backward(model)
        optimizer.step()
    model[0].requires_grad_(True)
    model.zero_grad()
    optimizer.step()


# -- states saved under other rules ----------------------------------------------------------------------------------


class Four(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4, bias=False) for _ in range(4))

    def forward(self, x):
        return self.d(torch.tanh(self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))))


RULES = {
    "before": {"[ab].*": br.Gaussian(0.5), "*": br.Gaussian(1.0)},
    "same sizes": {"[ac].*": br.Gaussian(0.5), "*": br.Gaussian(1.0)},
    "other sizes": {"a.*": br.Gaussian(0.3), "b.*": br.Gaussian(0.4), "*": br.Gaussian(0.7)},
    "one group": {"*": br.Gaussian(0.7)},
}


def prepared(rules, attach=True, make=lambda groups: Adam(groups, lr=0.01)):
    model = Four()
    prior = br.ModelPrior(model, RULES[rules])
    optimizer = make(prior.param_groups())
    if attach:
        br.attach(optimizer, prior, num_data=100)
    return model, prior, optimizer


def momenta(model, optimizer):
    return {name: optimizer.state[p]["exp_avg"].clone() for name, p in model.named_parameters()}


@pytest.fixture(scope="module")
def saved():
    model, _, optimizer = prepared("before")
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return optimizer.state_dict(), momenta(model, optimizer)


@pytest.mark.parametrize("rules", RULES)
def test_moments_find_their_parameters_by_name(saved, rules):
    state, wanted = saved
    model, _, optimizer = prepared(rules)
    optimizer.load_state_dict(copy.deepcopy(state))
    found = momenta(model, optimizer)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert not any("bayesreg_names" in group for group in optimizer.param_groups)
    again = optimizer.state_dict()
    assert sorted(name for group in again["param_groups"] for name in group["bayesreg_names"]) == sorted(wanted)


def test_also_where_the_prior_is_attached_afterwards(saved):
    state, wanted = saved
    model, prior, optimizer = prepared("same sizes", attach=False)
    optimizer.load_state_dict(copy.deepcopy(state))
    br.attach(optimizer, prior, num_data=100)
    found = momenta(model, optimizer)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert not any("bayesreg_names" in group for group in optimizer.param_groups)


@pytest.mark.parametrize("attach", [True, False])
def test_a_state_of_other_parameters_is_refused(saved, attach):
    state, _ = copy.deepcopy(saved)
    state["param_groups"][0]["bayesreg_names"] = ["z.weight", "b.weight"]
    _, prior, optimizer = prepared("before", attach=attach)

    def resume():
        optimizer.load_state_dict(state)
        br.attach(optimizer, prior, num_data=100)

    with pytest.raises(br.CoverageError, match=r"z.weight only there, a.weight only here"):
        resume()


def test_the_names_that_torch_keeps_go_along():
    model = Four()
    named = Adam([{"params": list(model.named_parameters())}], lr=0.01)
    br.attach(named, br.ModelPrior(model, {"*": br.Gaussian(0.5)}), num_data=100)
    state = named.state_dict()
    turned = Adam([{"params": list(model.named_parameters())[::-1]}], lr=0.01)
    br.attach(turned, br.ModelPrior(model, {"*": br.Gaussian(0.5)}), num_data=100)
    turned.load_state_dict(copy.deepcopy(state))
    assert turned.param_groups[0]["param_names"] == ["d.weight", "c.weight", "b.weight", "a.weight"]


def test_a_state_without_names_is_loaded_by_position_as_ever(saved):
    state, _ = copy.deepcopy(saved)
    for group in state["param_groups"]:
        del group["bayesreg_names"]
    model, _, optimizer = prepared("before")
    optimizer.load_state_dict(state)
    assert torch.equal(optimizer.state[model.a.weight]["exp_avg"], state["state"][0]["exp_avg"])
