"""What happens to an optimizer between attach and the end: checkpoints, copies, new groups, unfrozen weights."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from tests.routes.common import N, attached, data, largest_gap, net, trained


def test_remove_ends_it():
    model, prior, optimizer, handle = attached({"0.*": br.Gaussian(0.3, loc=1.0), "*": br.Gaussian(0.3)})
    handle.remove()
    plain = net()
    assert largest_gap(
        trained(model, optimizer), trained(plain, torch.optim.SGD(plain.parameters(), lr=0.05))
    ) == 0.0  # fmt: skip
    br.attach(optimizer, prior, num_data=N)


def test_a_decay_changed_after_attach_is_noticed():
    model, _, optimizer, _ = attached()
    optimizer.param_groups[0]["weight_decay"] = 0.5
    with pytest.raises(br.InvalidArgumentError, match=r"param group 0 was changed to 0\.5 after br\.attach set 0\.185"):
        trained(model, optimizer, steps=1)


def test_a_second_prior_is_refused():
    _, prior, optimizer, _ = attached()
    with pytest.raises(br.InvalidArgumentError, match="has a prior attached already"):
        br.attach(optimizer, prior, num_data=N)


def test_loading_a_checkpoint_does_not_bring_back_an_old_decay():
    _, _, optimizer, _ = attached()
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["weight_decay"] = 123.0
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["weight_decay"] == br.Gaussian(0.3).weight_decay(N)


def test_loading_replaces_every_decay_of_the_checkpoint():
    model, prior, optimizer, handle = attached()
    state = copy.deepcopy(optimizer.state_dict())
    handle.remove()
    handle = br.attach(optimizer, prior, num_data=N, before_clip=True)
    assert state["param_groups"][0]["weight_decay"] > 0
    optimizer.load_state_dict(state)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.0]
    handle.remove()
    adamw = torch.optim.AdamW(model.parameters())
    foreign = copy.deepcopy(adamw.state_dict())
    adamw.param_groups[0]["weight_decay"] = 0.0
    br.attach(adamw, prior, num_data=N)
    adamw.load_state_dict(foreign)
    assert adamw.param_groups[0]["weight_decay"] == 0.0


@pytest.mark.parametrize(
    "rules", [{"*": br.Gaussian(0.5, loc=1.0)}, {"0.*": br.Gaussian(0.3, loc=1.0), "*": br.Flat()}]
)
def test_parameters_unfrozen_after_attach_get_their_prior(rules):
    model = net()
    model[0].weight.requires_grad_(False)
    prior = br.ModelPrior(model, rules)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    br.attach(optimizer, prior, num_data=N)
    model[0].weight.requires_grad_(True)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # Already at the centre: neither pulled to 0 nor left without a prior.
    assert torch.allclose(model[0].weight, torch.ones_like(model[0].weight))
    with torch.no_grad():
        model[0].weight.fill_(2.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert (model[0].weight < 2.0).all()


def test_replaced_parameters_are_noticed():
    model, _, optimizer, _ = attached()
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    with pytest.raises(br.CoverageError, match=r"0\.weight of the model is another tensor than the one the optimizer"):
        optimizer.step()


def test_a_handle_does_not_keep_the_model_alive():
    model, prior, optimizer, handle = attached()
    alive = weakref.ref(model[0].weight), weakref.ref(optimizer)
    del model, prior, optimizer, handle
    gc.collect()
    assert [reference() for reference in alive] == [None, None]


def test_a_removed_handle_cannot_be_applied():
    _, _, _, handle = attached(before_clip=True)
    handle.remove()
    with pytest.raises(br.InvalidArgumentError, match="was removed from its optimizer"):
        handle.apply_()


def test_parameters_without_a_gradient_feel_no_prior():
    model, _, optimizer, _ = attached({"*": br.Gaussian(0.3, loc=1.0)})
    before = model[2].weight.detach().clone()
    model[0](data()[0]).sum().backward()
    optimizer.step()
    assert torch.equal(model[2].weight, before)


def test_loss_scale_in_place_of_num_data():
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.5))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, loss_scale=br.LossScale.sum())
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(4.0)


def test_describe_lists_the_routes():
    _, _, _, handle = attached({
        "0.weight": br.Laplace(0.1),
        "0.bias": br.Flat(),
        "2.weight": br.Gaussian(0.5),
        "*": br.Gaussian(0.5, loc=1.0),
    })
    routes = {
        row["parameters"]: (row["route"], row["equivalent weight_decay"]) for row in handle.describe().to_dict()["rows"]
    }
    assert routes["0.weight"][0] == "proximal"
    assert routes["0.bias"] == ("none", "0")
    assert routes["2.weight"][0] == "native"
    assert routes["2.bias"][0] == "native + centre"
    assert routes["2.bias"][1].endswith("toward its centre")


def test_a_group_added_later_gets_its_prior():
    """Gradual unfreezing: the body joins the optimizer after the head was trained."""
    one, two = net(), net()
    for model in (one, two):
        model[0].requires_grad_(False)
    rules = {"0.weight": br.Gaussian(0.3, loc=0.2), "*": br.Gaussian(0.3)}
    prior, reference = br.ModelPrior(one, rules), br.ModelPrior(two, rules)
    optimizer = torch.optim.SGD(one[2].parameters(), lr=0.05, momentum=0.9)
    handle = br.attach(optimizer, prior, num_data=N)
    plain = torch.optim.SGD(two[2].parameters(), lr=0.05, momentum=0.9)
    for model, opt, penalty in ((one, optimizer, lambda: 0.0), (two, plain, lambda: reference.penalty() / N)):
        trained(model, opt, penalty=penalty, steps=5)
        model[0].requires_grad_(True)
        opt.add_param_group({"params": list(model[0].parameters()), "lr": 0.01})
        trained(model, opt, penalty=penalty, steps=20)
    assert largest_gap([p.detach() for p in one.parameters()], [p.detach() for p in two.parameters()]) < 1e-12
    assert {row[0] for row in handle.describe().rows} == {"2.weight, 2.bias, 0.bias", "0.weight"}


def test_a_group_of_strangers_is_refused_at_the_step():
    model, _, optimizer, _ = attached()
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    with pytest.raises(br.CoverageError, match=r"1 trainable parameters that the prior does not cover"):
        trained(model, optimizer, steps=1)


def test_a_group_that_brings_a_decay_is_refused_at_the_step():
    """AdamW's class default comes back with every group that does not say otherwise."""
    model = net()
    model[0].requires_grad_(False)
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    optimizer = torch.optim.AdamW(prior.param_groups())
    br.attach(optimizer, prior, num_data=N)
    model[0].requires_grad_(True)
    optimizer.add_param_group({"params": list(model[0].parameters())})
    with pytest.raises(br.InvalidArgumentError, match=r"AdamW param group 2 already has weight_decay=0\.01"):
        trained(model, optimizer, steps=1)


def copies(model, optimizer):
    """Every way in which an optimizer travels without its hooks."""
    loaded = torch.optim.SGD([{"params": g["params"]} for g in optimizer.param_groups], lr=0.05)
    loaded.load_state_dict(optimizer.state_dict())
    return {
        "deepcopy": copy.deepcopy((model, optimizer))[1],
        "pickle": pickle.loads(pickle.dumps((model, optimizer)))[1],
        "load_state_dict": loaded,
    }


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "load_state_dict"])
@pytest.mark.parametrize("rules", [None, {"*": br.Gaussian(0.3, loc=1.0)}, {"*": br.Laplace(0.3)}])
def test_a_copy_without_its_prior_raises_at_its_next_step(way, rules):
    model, _, optimizer, _ = attached(rules)
    trained(model, optimizer, steps=2)
    travelled = copies(model, optimizer)[way]
    with pytest.raises(br.InvalidArgumentError, match=r"the prior is not attached to it.*br\.attach.*br\.detach"):
        travelled.step()
    # The original goes on, and the copy after it was told what to do.
    trained(model, optimizer, steps=1)
    br.detach(travelled)
    assert all(group["weight_decay"] == 0.0 for group in travelled.param_groups)
    travelled.step()


def test_a_copy_with_its_prior_attached_again_goes_on_like_the_original():
    model, _, optimizer, _ = attached()
    trained(model, optimizer, steps=2)
    model_copy, optimizer_copy = copy.deepcopy((model, optimizer))
    # Its own decay is recognised: it is not "set by hand".
    br.attach(optimizer_copy, br.ModelPrior(model_copy, br.Gaussian(0.3)), num_data=N)
    assert largest_gap(trained(model, optimizer, steps=5), trained(model_copy, optimizer_copy, steps=5)) == 0.0


@pytest.mark.parametrize("attach_first", [True, False])
def test_a_resumed_run_continues_bit_for_bit(attach_first, tmp_path):
    """Attach then load, or load then attach; the strength is that of the prior attached now."""
    model, prior, optimizer, _ = attached({"0.*": br.Gaussian(0.3, loc=0.5), "*": br.Gaussian(0.3)})
    optimizer.param_groups[0]["momentum"] = 0.9
    trained(model, optimizer, steps=5)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    expected = trained(model, optimizer, steps=5)

    again = net(seed=3)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    prior = br.ModelPrior(again, {"0.*": br.Gaussian(0.3, loc=0.5), "*": br.Gaussian(0.3)})
    resumed = torch.optim.SGD(prior.param_groups(), lr=0.05)
    if attach_first:
        br.attach(resumed, prior, num_data=N)
    again.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    if not attach_first:
        br.attach(resumed, prior, num_data=N)
    assert largest_gap(trained(again, resumed, steps=5), expected) == 0.0


def test_another_n_after_a_resume_means_another_decay():
    _, prior, optimizer, _ = attached()
    state = copy.deepcopy(optimizer.state_dict())
    fresh = torch.optim.SGD(prior.param_groups(), lr=0.05)
    fresh.load_state_dict(state)
    br.attach(fresh, prior, num_data=2 * N)
    assert fresh.param_groups[0]["weight_decay"] == br.Gaussian(0.3).weight_decay(2 * N)


def test_a_decay_that_was_changed_in_a_checkpoint_is_told_from_ones_own():
    _, prior, optimizer, _ = attached()
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["weight_decay"] = 0.5
    fresh = torch.optim.SGD(prior.param_groups(), lr=0.05)
    fresh.load_state_dict(state)
    with pytest.raises(br.InvalidArgumentError, match=r"already has weight_decay=0\.5"):
        br.attach(fresh, prior, num_data=N)


def test_other_optimizers_of_the_process_are_left_alone():
    attached()
    model = net()
    plain = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=0.1)
    trained(model, plain, steps=1)
    assert "bayesreg_decay" not in plain.param_groups[0]
    br.detach(plain)
    assert plain.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("route", ["auto", "gradient"])
def test_zero_gradients_and_none_mean_what_they_mean_to_torch(to_none, route):
    """No gradient, no prior; a gradient of zeros, and the prior alone moves the weight: as native decay does."""
    model, _, optimizer, _ = attached({"*": br.Gaussian(0.3, loc=0.1)}, route=route)
    F.cross_entropy(model(data()[0]), data()[1]).backward()
    optimizer.zero_grad(set_to_none=to_none)
    before = model[2].weight.detach().clone()
    model[0](data()[0]).sum().backward()
    optimizer.step()
    moved = model[2].weight - before
    expected = torch.zeros(()) if to_none else -0.05 / (N * 0.3**2) * (before - 0.1)
    assert torch.allclose(moved, expected.double().expand_as(moved), rtol=1e-12, atol=1e-15)


def test_tied_weights_feel_the_prior_once():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)).double()
    model[1].weight = model[0].weight
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.3)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    br.attach(optimizer, prior, num_data=N, route="gradient")
    before = model[0].weight.detach().clone()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.allclose(model[0].weight, before * (1 - 0.1 / (N * 0.3**2)), rtol=1e-12)
    expected = torch.distributions.Normal(0.0, 0.3).log_prob(model[0].weight).sum()
    assert prior.log_prob().item() == pytest.approx(expected.item(), rel=1e-6)


# -- wrapped and third-party optimizers -----------------------------------------------------------------


def test_an_optimizer_wrapped_by_accelerate():
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    one, two = net(), net()
    prior, reference = br.ModelPrior(one, br.Gaussian(0.3, loc=0.2)), br.ModelPrior(two, br.Gaussian(0.3, loc=0.2))
    wrapped = accelerator.prepare(torch.optim.AdamW(one.parameters(), lr=0.02, weight_decay=0.0))
    br.attach(wrapped, prior, num_data=N)
    plain = torch.optim.AdamW(two.parameters(), lr=0.02, weight_decay=0.0)
    expected = trained(two, plain, penalty=lambda: reference.penalty() / N)
    assert largest_gap(trained(one, wrapped), expected) < 1e-12
    br.detach(wrapped)


class Lion(torch.optim.Optimizer):
    """A third-party optimizer with decoupled decay."""

    def __init__(self, params, lr=0.01, beta=0.9, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "beta": beta, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                average = state.setdefault("average", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(average.lerp(p.grad, 1 - group["beta"]).sign_(), alpha=-group["lr"])
                average.lerp_(p.grad, 0.01)


class Plain(torch.optim.Optimizer):
    """A third-party optimizer with coupled decay."""

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * (p.grad + group["weight_decay"] * p))


def test_third_party_optimizers_take_the_gradient_route():
    """Also where a probe calls the decay coupled: it was seen on a toy only."""
    for cls, route in ((Lion, "gradient"), (Plain, "gradient")):
        one, two = net(), net()
        prior, reference = br.ModelPrior(one, br.Gaussian(0.3)), br.ModelPrior(two, br.Gaussian(0.3))
        optimizer = cls(prior.param_groups(), lr=0.01)
        handle = br.attach(optimizer, prior, num_data=N)
        assert handle.describe().rows[0][2] == route
        expected = trained(two, cls(two.parameters(), lr=0.01), penalty=lambda r=reference: r.penalty() / N)
        assert largest_gap(trained(one, optimizer), expected) < 1e-12
        one = net()
        prior = br.ModelPrior(one, br.Laplace(0.3))
        with pytest.raises(br.UnsupportedError, match=f"{cls.__name__}: a prior with a kink"):
            br.attach(cls(prior.param_groups(), lr=0.01), prior, num_data=N)


def test_a_checkpoint_does_not_bring_back_hidden_decay():
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    optimizer = torch.optim.ASGD(prior.param_groups(), lr=0.05, lambd=0.0)
    br.attach(optimizer, prior, num_data=N)
    groups = [{"params": group["params"]} for group in optimizer.param_groups]
    optimizer.load_state_dict(torch.optim.ASGD(groups, lr=0.05).state_dict())
    assert [group["lambd"] for group in optimizer.param_groups] == [0.0, 0.0]
    assert optimizer.param_groups[0]["weight_decay"] == br.Gaussian(0.3).weight_decay(N)


def test_a_parameter_that_is_meant_to_have_no_prior_is_not_decayed_with_its_group():
    """The noise of a likelihood may share the group of the weights."""
    model = net()
    noise = nn.Parameter(torch.ones(1, dtype=torch.float64))
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.3)})
    optimizer = torch.optim.SGD([*model.parameters(), noise], lr=0.05)
    handle = br.Handle(optimizer, prior, br.LossScale.mean(N), without_prior=[noise])
    assert {row[2] for row in handle.describe().rows} == {"gradient"}
    for p in (*model.parameters(), noise):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert noise.item() == 1.0


def test_unfreezing_by_param_groups_keeps_the_native_route():
    model = net()
    model[0].requires_grad_(False)
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.05)
    handle = br.attach(optimizer, prior, num_data=N)
    model[0].requires_grad_(True)
    for group in prior.param_groups("0.*"):
        optimizer.add_param_group(group)
    trained(model, optimizer, steps=1)
    assert {row[2] for row in handle.describe().rows} == {"native", "none"}
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("made", ["{'*': br.Gaussian(0.3, loc=0.1)}", "load"])
def test_a_resumed_run_that_forgets_to_attach_raises_in_a_fresh_process(made, tmp_path):
    model, prior, optimizer, _ = attached({"*": br.Gaussian(0.3, loc=0.1)}, route="gradient")
    trained(model, optimizer, steps=1)
    prior.save(tmp_path / "prior.safetensors")
    prior_code = "br.ModelPrior.load('prior.safetensors', model)" if made == "load" else f"br.ModelPrior(model, {made})"
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    code = (
        "import torch, bayesreg as br\n"
        "model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()\n"
        f"prior = {prior_code}\n"
        "optimizer = torch.optim.SGD(prior.param_groups(), lr=0.05)\n"
        "optimizer.load_state_dict(torch.load('optimizer.pt', weights_only=True))\n"
        "optimizer.step()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "the prior is not attached to it" in done.stderr


def test_what_a_decoupled_pull_of_a_third_party_optimizer_amounts_to_is_not_promised():
    model = net()
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.3)})
    handle = br.attach(Lion(model.parameters(), lr=0.01), prior, num_data=N, route="decoupled")
    assert "cannot be told for Lion" in str(handle.describe())
    assert repr(handle) == "Handle(Lion, s=0.01667)"
