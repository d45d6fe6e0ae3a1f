"""What changes between attach and step: flags, scales, centres, parameters, groups, modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from tests.routes.common import N, attached, data, largest_gap, net, one_weight, sgd, trained
from tests.versions import adam_flag


@adam_flag
def test_flags_that_a_checkpoint_brings_are_planned_for():
    """An AdamW checkpoint in Adam: its decay would be decoupled from then on, so the flag must go back."""
    model = net()
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.3)})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    handle = br.attach(optimizer, prior, num_data=N)
    assert handle.describe().rows[0][2] == "native"
    optimizer.load_state_dict(torch.optim.AdamW(net().parameters(), lr=0.02).state_dict())
    assert not optimizer.param_groups[0]["decoupled_weight_decay"]
    assert handle.describe().rows[0][2] == "native"
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
