"""AdamW under a Gaussian around 0 is Adam: its own decay, coupled by a flag while the prior is attached."""

from __future__ import annotations

import copy

import pytest
import torch

import bayesreg as br
from bayesreg.optimizers import decay_rule, decay_rules
from tests.routes.common import N, largest_gap, net, trained
from tests.versions import adamw_flag

pytestmark = adamw_flag

FLAG, STD = "decoupled_weight_decay", 0.3
DECAY = 1.0 / (N * STD**2)


def adamw(model, **settings):
    return torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.0, **settings)


def attached(model, optimizer=None, **keywords):
    optimizer = adamw(model) if optimizer is None else optimizer
    return optimizer, br.attach(optimizer, br.ModelPrior(model, {"*": br.Gaussian(STD)}), num_data=N, **keywords)


@pytest.mark.parametrize(
    "settings",
    [{}, {"foreach": True}, {"foreach": False}, {"fused": True}, {"amsgrad": True}, {"maximize": True}, {"eps": 1e-3}],
    ids=str,
)
def test_its_steps_are_those_of_adam_to_the_last_bit(settings):
    ours, theirs = net(), net()
    optimizer, _ = attached(ours, adamw(ours, **settings))
    plain = torch.optim.Adam(theirs.parameters(), lr=0.02, weight_decay=DECAY, **settings)
    one, two = trained(ours, optimizer), trained(theirs, plain)
    assert all(map(torch.equal, one, two))
    assert largest_gap(one, trained(net(), torch.optim.Adam(net().parameters(), lr=0.02), steps=1)) > 1e-3


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RAdam"])
def test_others_with_the_flag_are_coupled_too(name):
    ours, theirs = net(), net()
    cls = getattr(torch.optim, name)
    optimizer, handle = attached(ours, cls(ours.parameters(), lr=0.02, **{FLAG: True}))
    assert handle.describe().rows[0][2] == "native"
    plain = cls(theirs.parameters(), lr=0.02, weight_decay=DECAY)
    assert all(map(torch.equal, trained(ours, optimizer), trained(theirs, plain)))
    handle.remove()
    assert optimizer.param_groups[0][FLAG] is True


def test_the_handle_says_so_and_puts_it_back():
    model = net()
    optimizer, handle = attached(model)
    (group,) = optimizer.param_groups
    assert group[FLAG] is False
    assert group["weight_decay"] == pytest.approx(DECAY, rel=1e-15)
    table = handle.describe()
    assert table.rows[0][2] == "native"
    assert any("In one param group the flag decoupled_weight_decay is False" in note for note in table.notes)
    before = set(torch.optim.AdamW(net().parameters()).param_groups[0])
    handle.remove()
    assert group[FLAG] is True
    assert group["weight_decay"] == 0.0
    assert set(group) == before
    # Another prior finds the optimizer that it was.
    later = br.attach(optimizer, br.ModelPrior(model, br.Laplace(1.0)), num_data=N)
    assert group[FLAG] is True
    assert not any(FLAG in note for note in later.describe().notes)


@pytest.mark.parametrize("how", ["hooks", "state of other parameters"])
def test_a_failed_attach_puts_it_back(how):
    model = net()

    class Broken(torch.optim.SGD):
        def register_step_post_hook(self, hook):
            raise RuntimeError("no hooks here")

    prior = br.ModelPrior(model, {"*": br.Gaussian(STD)})
    first = torch.optim.AdamW(model[0].parameters(), lr=0.02, weight_decay=0.0)
    second = Broken(model[2].parameters(), lr=0.1)
    error: type[Exception] = RuntimeError
    if how != "hooks":
        second = torch.optim.SGD(model[2].parameters(), lr=0.1)
        first.param_groups[0]["bayesreg_names"] = ["0.weight", "elsewhere.bias"]
        error = br.errors.CoverageError
    with pytest.raises(error):
        br.attach([first, second], prior, num_data=N)
    assert first.param_groups[0][FLAG] is True
    assert first.param_groups[0]["weight_decay"] == 0.0
    assert not {"bayesreg_decay", "bayesreg_coupled"} & set(first.param_groups[0])
    assert not first._optimizer_step_pre_hooks
    assert not second._optimizer_step_pre_hooks
    if how != "hooks":
        # So that a prior over the right parameters finds the states by name.
        assert first.param_groups[0]["bayesreg_names"] == ["0.weight", "elsewhere.bias"]
    # It steps as if nothing had been tried.
    model.zero_grad()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    value = model[0].weight.detach().clone()
    first.step()
    assert torch.equal(model[0].weight, value)


def test_a_run_goes_on_to_the_bit_and_never_without_its_prior():
    whole, half = net(), net()
    optimizer, _ = attached(whole)
    expected = trained(whole, optimizer, steps=20)
    optimizer, _ = attached(half)
    trained(half, optimizer, steps=10)
    state = copy.deepcopy(optimizer.state_dict())

    resumed = net()
    resumed.load_state_dict(half.state_dict())
    again = adamw(resumed)
    again.load_state_dict(copy.deepcopy(state))
    with pytest.raises(br.InvalidArgumentError, match="carries the settings of a prior"):
        trained(resumed, again, steps=1)
    _, handle = attached(resumed, again)
    assert again.param_groups[0][FLAG] is False
    assert all(map(torch.equal, trained(resumed, again, steps=10), expected))
    handle.remove()
    assert again.param_groups[0][FLAG] is True

    # Attached first, loaded then.
    resumed.load_state_dict(half.state_dict())
    again, handle = attached(resumed)
    again.load_state_dict(state)
    assert again.param_groups[0][FLAG] is False
    assert all(map(torch.equal, trained(resumed, again, steps=10), expected))
    handle.remove()
    assert again.param_groups[0][FLAG] is True
    assert again.param_groups[0]["weight_decay"] == 0.0


def test_a_copy_is_not_trained_without_its_prior():
    model = net()
    optimizer, _ = attached(model)
    trained(model, optimizer, steps=1)
    other = copy.deepcopy((model, optimizer))[1]
    with pytest.raises(br.InvalidArgumentError, match="carries the settings of a prior"):
        other.step()
    br.detach(other)
    assert other.param_groups[0][FLAG] is True
    assert other.param_groups[0]["weight_decay"] == 0.0


def test_a_checkpoint_of_a_run_without_a_prior_is_coupled_again():
    ours, theirs = net(), net()
    optimizer, _ = attached(ours)
    optimizer.load_state_dict(adamw(net()).state_dict())
    plain = torch.optim.Adam(theirs.parameters(), lr=0.02, weight_decay=DECAY)
    assert all(map(torch.equal, trained(ours, optimizer), trained(theirs, plain)))


def test_groups_that_lack_the_flag_take_the_gradient_route():
    """AdamW of torch 2.6 has none."""
    model = net()
    optimizer = adamw(model)
    del optimizer.param_groups[0][FLAG]
    _, handle = attached(model, optimizer)
    assert handle.describe().rows[0][2] == "gradient"
    assert optimizer.param_groups[0]["weight_decay"] == 0.0
    assert FLAG not in optimizer.param_groups[0]


def test_a_flag_that_is_changed_by_hand_is_refused():
    model = net()
    optimizer, _ = attached(model)
    optimizer.param_groups[0][FLAG] = True
    with pytest.raises(br.InvalidArgumentError, match="decoupled_weight_decay of param group 0 was changed to True"):
        trained(model, optimizer, steps=1)


@pytest.mark.parametrize(
    ("rules", "keywords", "route"),
    [
        ({"*": br.Gaussian(STD, loc=0.1)}, {}, "gradient"),
        ({"0.*": br.Gaussian(STD), "*": br.Gaussian(2.0 * STD)}, {}, "gradient"),
        ({"*": br.Gaussian(STD)}, {"before_clip": True}, "gradient"),
        ({"*": br.Gaussian(STD)}, {"route": "gradient"}, "gradient"),
        ({"*": br.Gaussian(STD)}, {"route": "native"}, "native"),
        ({"*": br.Gaussian(STD)}, {"route": "decoupled"}, "decoupled"),
    ],
)
def test_only_what_the_decay_says_exactly_turns_the_flag(rules, keywords, route):
    model = net()
    optimizer = adamw(model)
    handle = br.attach(optimizer, br.ModelPrior(model, rules), num_data=N, **keywords)
    assert {row[2] for row in handle.describe().rows} == {route}
    assert optimizer.param_groups[0][FLAG] is (route != "native")
    assert bool(optimizer.param_groups[0]["weight_decay"]) is (route != "gradient")
    assert any("An isotropic Gaussian shares" in note for note in handle.describe().notes) is (len(rules) == 2)


def test_each_group_by_itself():
    model, other = net(), net()
    rules = {"0.*": br.Gaussian(STD), "*": br.Gaussian(0.5, loc=0.1)}
    prior, reference = br.ModelPrior(model, rules), br.ModelPrior(other, rules)
    optimizer = torch.optim.AdamW(prior.param_groups(), lr=0.02, weight_decay=0.0)
    handle = br.attach(optimizer, prior, num_data=N)
    assert [row[2] for row in handle.describe().rows] == ["native", "gradient"]
    assert [group[FLAG] for group in optimizer.param_groups] == [False, True]
    assert [rule.kind for rule in decay_rules(optimizer)] == ["coupled", "decoupled"]
    plain = torch.optim.Adam(other.parameters(), lr=0.02)
    expected = trained(other, plain, penalty=lambda: reference.penalty() / N)
    assert largest_gap(trained(model, optimizer), expected) < 1e-12


def test_a_group_that_is_added_later():
    model, other = net(), net()
    prior = br.ModelPrior(model, {"*": br.Gaussian(STD)})
    model[2].requires_grad_(False)
    optimizer = torch.optim.AdamW(model[0].parameters(), lr=0.02, weight_decay=0.0)
    handle = br.attach(optimizer, prior, num_data=N)
    model[2].requires_grad_(True)
    optimizer.add_param_group({"params": list(model[2].parameters())})
    plain = torch.optim.Adam(other.parameters(), lr=0.02, weight_decay=DECAY)
    assert all(map(torch.equal, trained(model, optimizer), trained(other, plain)))
    assert [group[FLAG] for group in optimizer.param_groups] == [False, False]
    handle.remove()
    assert [group[FLAG] for group in optimizer.param_groups] == [True, True]


def test_the_reading_of_such_a_run():
    model = net()
    optimizer, handle = attached(model)
    trained(model, optimizer, steps=2)
    (reading,) = br.explain(optimizer, model, num_data=N).groups
    assert reading.weight_decay == pytest.approx(DECAY)
    state = optimizer.state_dict()
    (row,) = br.explain(state, model, num_data=N).groups
    assert str(br.explain(state, model, num_data=N)).startswith("What AdamW believes")
    assert row.decay == "coupled"
    assert row.std == pytest.approx(STD)
    assert decay_rule(optimizer).kind == "coupled"
    handle.remove()
    assert decay_rule(optimizer).kind == "decoupled"


def test_the_trainer_takes_it():
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(40, 6, generator=generator).double(), torch.randint(0, 3, (40,), generator=generator)
    found = []
    for make in (torch.optim.AdamW, torch.optim.Adam):
        model = net()
        trainer = br.MAPTrainer(
            model, br.Gaussian(STD), br.likelihoods.Categorical(), batch_size=10, max_epochs=3, progress=False, seed=0,
            optimizer=lambda groups, make=make: make(groups, lr=0.02, weight_decay=0.0),
        )  # fmt: skip
        result = trainer.fit(data)
        assert "native" in str(result.routes)
        found.append([p.detach().clone() for p in model.parameters()])
    assert all(map(torch.equal, *found))
