"""Ways to be silently wrong that a review found: each was seen to fail before it was mended."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from tests.routes.common import N, attached, data, largest_gap, net, trained

ADAPTIVE = ["Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adamax"]


def one_weight(value=1.0, **settings):
    """Return a linear model of one weight under Gaussian(1), n = 10, lr = 0.1, and a zero gradient."""
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(value)
    model.weight.grad = torch.zeros_like(model.weight)
    return model, br.ModelPrior(model, {"*": br.Gaussian(1.0, **settings)})


def sgd(model, **settings):
    return torch.optim.SGD(model.parameters(), lr=0.1, **settings)


# -- learning rates of zero ------------------------------------------------------------------------------------


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


# -- steps within steps, and odd closures --------------------------------------------------------------------------


class Sub(torch.optim.SGD):
    def step(self, closure=None):
        return super().step(closure)


class SubAdamW(torch.optim.AdamW):
    def step(self, closure=None):
        return super().step(closure)


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


# -- third-party optimizers -------------------------------------------------------------------------------------------


class MatricesOnly(torch.optim.Optimizer):
    """Coupled decay, but on matrices only, and not in groups that say otherwise."""

    def __init__(self, params, lr=0.1, weight_decay=0.0, decouple=False):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "decouple": decouple})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if group["decouple"]:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                decay = group["weight_decay"] * p if p.ndim > 1 and not group["decouple"] else 0.0
                p.sub_(group["lr"] * (p.grad.sign() * 0.5 * p.grad.abs() + p.grad * 0.5 + decay))


def test_what_a_toy_cannot_show_is_not_trusted():
    model = nn.Linear(2, 2)
    prior = br.ModelPrior(model, {"*": br.Gaussian(1.0)})
    handle = br.attach(MatricesOnly(model.parameters()), prior, num_data=10)
    assert {row[2] for row in handle.describe().rows} == {"gradient"}
    optimizer = MatricesOnly(model.parameters(), weight_decay=0.1)
    assert br.explain(optimizer, model, num_data=10).groups[0].decay == "other"


class HiddenDecay(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, wd=0.1):
        super().__init__(params, {"lr": lr, "wd": wd, "seen": torch.zeros(1)})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["seen"] += 1
            for p in group["params"]:
                p.sub_(group["lr"] * (p.grad + group["wd"] * p))


class Wrapper(torch.optim.Optimizer):
    def __init__(self, params, base):
        super().__init__(params, {})
        self.base_optimizer = base
        self.param_groups = base.param_groups

    def step(self, closure=None):
        return self.base_optimizer.step(closure)


def test_decay_under_another_name_is_refused():
    model, prior = one_weight()
    optimizer = HiddenDecay(model.parameters())
    with pytest.raises(br.InvalidArgumentError, match=r"moves weights whose gradient is zero.*under another name"):
        br.attach(optimizer, prior, num_data=10)
    found = br.explain(optimizer, model, num_data=10)
    assert found.groups[0].std is None
    assert [f.identifier for f in found.findings] == ["unknown-decay"]
    # Looking did not touch what the group holds.
    assert optimizer.param_groups[0]["seen"].item() == 0.0
    br.attach(HiddenDecay(model.parameters(), wd=0.0), prior, num_data=10)


def test_a_wrapper_that_is_no_optimizer_is_seen_through():
    class Lightning:
        """Copies the attributes of what it wraps, as Lightning's does."""

        def __init__(self, optimizer):
            self.__dict__ = dict(optimizer.__dict__)
            self._optimizer = optimizer

        def step(self, closure):
            return self._optimizer.step(closure=closure)

    model, prior = one_weight()
    wrapped = Lightning(sgd(model))
    br.attach(wrapped, prior, num_data=10)

    def closure():
        model.weight.grad = torch.zeros_like(model.weight)

    wrapped.step(closure)
    assert model.weight.item() == pytest.approx(0.99)
    assert br.explain(wrapped, model, num_data=10).groups[0].decay == "prior"
    br.detach(wrapped)


def test_wrappers_are_seen_through():
    model, prior = one_weight()
    wrapped = Wrapper(model.parameters(), sgd(model, weight_decay=0.1))
    with pytest.raises(br.InvalidArgumentError, match=r"SGD param group 0 already has weight_decay=0\.1"):
        br.attach(wrapped, prior, num_data=10)
    wrapped = Wrapper(model.parameters(), sgd(model))
    br.attach(wrapped, prior, num_data=10)
    wrapped.step()
    assert model.weight.item() == pytest.approx(0.99)


# -- what changes between attach and step -----------------------------------------------------------------------------


def test_flags_that_a_checkpoint_brings_are_planned_for():
    """An AdamW checkpoint in Adam: its decay is decoupled from then on, so the native route would be no prior."""
    model = net()
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.3)})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    handle = br.attach(optimizer, prior, num_data=N)
    assert handle.describe().rows[0][2] == "native"
    optimizer.load_state_dict(torch.optim.AdamW(net().parameters(), lr=0.02).state_dict())
    assert optimizer.param_groups[0]["decoupled_weight_decay"]
    assert handle.describe().rows[0][2] == "gradient"
    other = net()
    reference = br.ModelPrior(other, {"*": br.Gaussian(0.3)})
    plain = torch.optim.Adam(other.parameters(), lr=0.02)
    assert (
        largest_gap(trained(model, optimizer), trained(other, plain, penalty=lambda: reference.penalty() / N)) < 1e-12
    )


def test_removing_twice_leaves_a_later_prior_alone():
    model, prior = one_weight()
    optimizer = sgd(model)
    first = br.attach(optimizer, prior, num_data=10)
    first.remove()
    br.attach(optimizer, prior, num_data=10)
    first.remove()
    with pytest.raises(br.InvalidArgumentError, match="has a prior attached already"):
        br.attach(optimizer, prior, num_data=10)
    optimizer.step()
    assert model.weight.item() == pytest.approx(0.99)


def test_the_penalty_of_a_removed_handle_is_refused():
    _, _, _, handle = attached(route="loss")
    handle.remove()
    with pytest.raises(br.InvalidArgumentError, match=r"penalty\(\): this prior was removed"):
        handle.penalty()


def test_the_loss_route_of_an_optimizer_that_maximises():
    model, prior = one_weight()
    optimizer = sgd(model, maximize=True)
    handle = br.attach(optimizer, prior, num_data=10, route="loss")
    handle.penalty().backward()
    optimizer.step()
    assert model.weight.item() == pytest.approx(0.99)


def test_a_scale_that_is_changed_takes_effect():
    """Annealing a prior: before, the step kept the strength that it was attached with, and the reports the new one."""
    model, prior = one_weight()
    optimizer = sgd(model)
    handle = br.attach(optimizer, prior, num_data=10)
    optimizer.step()
    with torch.no_grad():
        prior["weight"].scale.fill_(0.5)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    assert model.weight.item() == pytest.approx(0.99 * (1 - 0.1 * 0.4))
    assert handle.log()["groups"][0]["weight_decay"] == pytest.approx(0.4)


@pytest.mark.parametrize("loc", [0.0, torch.zeros(1, 1)])
def test_a_centre_that_is_changed_takes_effect(loc):
    model, prior = one_weight(loc=loc)
    optimizer = sgd(model)
    br.attach(optimizer, prior, num_data=10)
    with torch.no_grad():
        prior["weight"].loc.fill_(3.0)
    optimizer.step()
    assert model.weight.item() == pytest.approx(1 + 0.1 * 0.1 * 2.0)


def test_unfrozen_parameters_without_a_rule_are_noticed():
    model = net()
    model[2].requires_grad_(False)
    prior = br.ModelPrior(model, {"0.*": br.Gaussian(0.3)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    br.attach(optimizer, prior, num_data=N)
    trained(model, optimizer, steps=1)
    model[2].requires_grad_(True)
    with pytest.raises(br.CoverageError, match=r"2\.weight was frozen and without a prior when it was attached"):
        trained(model, optimizer, steps=1)


def test_a_parameter_swapped_in_the_optimizer_is_noticed():
    _, _, optimizer, _ = attached()
    optimizer.param_groups[0]["params"][0] = nn.Parameter(torch.zeros(2))
    with pytest.raises(br.CoverageError, match=r"does not hold 0\."):
        optimizer.step()


def test_a_group_added_before_apply_has_its_prior_in_that_very_step():
    model = net()
    model[0].requires_grad_(False)
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.3)})
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    handle = br.attach(optimizer, prior, num_data=N, before_clip=True)
    model[0].requires_grad_(True)
    optimizer.add_param_group({"params": list(model[0].parameters())})
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    handle.apply_()
    assert torch.allclose(model[0].weight.grad, model[0].weight / (N * 0.09))


# -- half precision, complex, integers, FSDP1 ---------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::bayesreg.OvershootWarning")
@pytest.mark.parametrize("after_attach", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_at_their_centre_feel_the_data_only(dtype, after_attach):
    """λθ and λ·loc, added apart, drown the data's gradient in their rounding."""
    torch.manual_seed(0)
    model = nn.Linear(64, 8, bias=False)
    with torch.no_grad():
        model.weight.copy_(model.weight.to(dtype))
    if not after_attach:
        model.to(dtype)
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.01, loc=model.weight.detach().float())})
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    br.attach(optimizer, prior, num_data=1000)
    if after_attach:
        model.to(dtype)
    before = model.weight.detach().clone()
    model.weight.grad = torch.full_like(model.weight, 2.0**-6)
    optimizer.step()
    assert torch.equal(model.weight, before - torch.full_like(before, 2.0**-6))


def test_complex_weights_are_refused():
    model = nn.Linear(2, 2, dtype=torch.complex64)
    prior = br.ModelPrior(model, {"*": br.Gaussian(1.0)})
    with pytest.raises(br.UnsupportedError, match="complex weights have no prior here"):
        br.attach(torch.optim.SGD(model.parameters()), prior, num_data=10)


def test_integer_parameters_in_the_optimizer_do_no_harm():
    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False)
            self.layer = nn.Linear(4, 1)

    model = Quantised()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    br.explain(optimizer, model, num_data=10)
    prior = br.ModelPrior(model, {"layer.*": br.Gaussian(1.0)})
    br.attach(torch.optim.SGD(model.parameters(), lr=0.1), prior, num_data=10)


def test_flat_parameters_of_fsdp1_are_refused():
    class FlatParameter(nn.Parameter):
        pass

    model = nn.Linear(2, 2)
    prior = br.ModelPrior(model, br.Gaussian(1.0))
    optimizer = torch.optim.SGD([*model.parameters(), FlatParameter(torch.zeros(3))])
    with pytest.raises(br.UnsupportedError, match=r"wrapped by FSDP1.*fully_shard"):
        br.attach(optimizer, prior, num_data=10)


def test_a_failed_attach_leaves_nothing_behind():
    class Broken(torch.optim.SGD):
        def register_step_post_hook(self, hook):
            raise RuntimeError("no hooks here")

    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    first, second = torch.optim.SGD(model[0].parameters(), lr=0.1), Broken(model[2].parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="no hooks here"):
        br.attach([first, second], prior, num_data=N)
    assert first.param_groups[0]["weight_decay"] == 0.0
    assert "bayesreg_decay" not in {**first.param_groups[0], **second.param_groups[0]}
    F.cross_entropy(model(data()[0]), data()[1]).backward()
    first.step()


@pytest.mark.parametrize("attached_before", [True, False])
def test_a_module_replaced_as_a_whole_is_noticed(attached_before):
    """A new head after the prior was made: the optimizer would go on with the old one."""
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    if attached_before:
        br.attach(optimizer, prior, num_data=N)
        trained(model, optimizer, steps=1)
    model[2] = nn.Linear(5, 3).double()
    if not attached_before:
        br.attach(optimizer, prior, num_data=N)
    with pytest.raises(br.CoverageError, match=r"2\.weight of the model is another tensor.*it or a module around it"):
        trained(model, optimizer, steps=1)


def test_nested_modules_that_stay_in_place_are_fine():
    model = nn.ModuleDict({
        "body": nn.Sequential(net()),
        "head": nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
    })
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, num_data=N)
    model["head"](model["body"](data()[0]).float()).sum().backward()
    optimizer.step()
