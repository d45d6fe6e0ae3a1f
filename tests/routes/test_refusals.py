"""Everything that would be silently wrong raises, and says what to do instead."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bayesreg as br
from tests.routes.common import N, attached, net
from tests.versions import muon


def refuse(build, error, message):
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    with pytest.raises(error, match=message):
        br.attach(build(model, prior), prior, num_data=N)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda m, p: torch.optim.SGD(m.parameters(), weight_decay=5e-4), br.InvalidArgumentError,
         r"SGD param group 0 already has weight_decay=0\.0005"),
        (lambda m, p: torch.optim.SGD(p.param_groups(), weight_decay=5e-4), br.InvalidArgumentError,
         r"SGD was given weight_decay=0\.0005 besides a prior"),
        (lambda m, p: torch.optim.AdamW(m.parameters()), br.InvalidArgumentError,
         r"AdamW param group 0 already has weight_decay=0\.01"),
        (lambda m, p: torch.optim.ASGD(p.param_groups()), br.InvalidArgumentError, "a hidden weight decay"),
        (lambda m, p: torch.optim.SGD(m[0].parameters()), br.CoverageError, r"does not hold 2\.weight, 2\.bias"),
        (lambda m, p: torch.optim.SGD([*m.parameters(), nn.Parameter(torch.zeros(3))]), br.CoverageError,
         r"1 trainable parameters that the prior does not cover \(the first of shape \(3,\)\)"),
    ],
)  # fmt: skip
def test_optimizers_that_would_be_silently_wrong_are_refused(build, error, message):
    refuse(build, error, message)


def test_other_refusals():
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    optimizer = torch.optim.SGD(model.parameters())
    with pytest.raises(
        br.InvalidArgumentError, match=r"expected a ModelPrior, got Gaussian; write br\.ModelPrior.*optimizer first"
    ):
        br.attach(optimizer, br.Gaussian(0.3), num_data=N)
    with pytest.raises(br.InvalidArgumentError, match="num_data: pass the size of the training set"):
        br.attach(optimizer, prior)
    with pytest.raises(
        br.InvalidArgumentError, match="num_data: loss_scale= is an old name of it; pass one of the two"
    ):
        br.attach(optimizer, prior, num_data=3, loss_scale=br.LossScale.sum())
    with pytest.raises(br.InvalidArgumentError, match="num_data: expected an integer >= 1, got 0"):
        br.attach(optimizer, prior, num_data=0)
    learned = br.ModelPrior(model, br.Gaussian(nn.Parameter(torch.tensor(0.3))))
    with pytest.raises(br.UnsupportedError, match="learned hyper-parameter"):
        br.attach(optimizer, learned, num_data=N)
    bounded = br.ModelPrior(model, br.FromDistribution(torch.distributions.HalfNormal(1.0)))
    with pytest.raises(br.UnsupportedError, match="neither a gradient everywhere nor a proximal operator"):
        br.attach(optimizer, bounded, num_data=N)


def test_two_optimizers_must_share_the_model_between_them():
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    first, second = torch.optim.SGD(model[0].parameters(), lr=0.1), torch.optim.Adam(model[2].parameters())
    with pytest.raises(br.CoverageError, match=r"does not hold 2\.weight, 2\.bias.*if several optimizers share"):
        br.attach(first, prior, num_data=N)
    both = torch.optim.Adam(model.parameters())
    with pytest.raises(br.CoverageError, match=r"0\.weight, 0\.bias: held by more than one optimizer"):
        br.attach([first, both], prior, num_data=N)
    # A refusal leaves nothing behind.
    br.attach([first, second], prior, num_data=N)
    for wrong in ([], "sgd", [first, "adam"], model):
        with pytest.raises(br.InvalidArgumentError, match="expected a torch optimizer or a list of them"):
            br.attach(wrong, prior, num_data=N)


@pytest.mark.parametrize("num_data", [0, -3, 2.5, "60", True, float("nan")])
def test_num_data_must_be_a_positive_integer(num_data):
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    with pytest.raises(br.InvalidArgumentError, match="num_data: expected"):
        br.attach(torch.optim.SGD(model.parameters(), lr=0.1), prior, num_data=num_data)


def test_a_prior_of_another_model_is_refused():
    prior = br.ModelPrior(net(), br.Gaussian(0.3))
    with pytest.raises(br.CoverageError, match="the prior is over another model: the optimizer holds none of its"):
        br.attach(torch.optim.SGD(net().parameters(), lr=0.1), prior, num_data=N)


@pytest.mark.parametrize("name", ["Rprop", "LBFGS"])
def test_a_weight_decay_that_the_optimizer_would_ignore_is_refused(name):
    """Both take a group with an unknown key and never look at it: the prior would be lost without a word."""
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    group = [{"params": list(model.parameters()), "weight_decay": 0.1}]
    optimizer = getattr(torch.optim, name)(group)
    with pytest.raises(br.InvalidArgumentError, match=r"already has weight_decay=0\.1"):
        br.attach(optimizer, prior, num_data=N)
    # And bayesreg itself does not fall for it.
    handle = br.attach(getattr(torch.optim, name)(model.parameters()), prior, num_data=N)
    assert {row[2] for row in handle.describe().rows} == {"gradient", "none"}


@muon
def test_muon_with_its_default_decay_is_refused():
    model = nn.Linear(3, 2, bias=False)
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    with pytest.raises(br.InvalidArgumentError, match=r"Muon param group 0 already has weight_decay=0\.1"):
        br.attach(torch.optim.Muon(model.parameters()), prior, num_data=N)


def test_sparse_embeddings():
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 2))
    with pytest.raises(br.UnsupportedError, match=r"0\.weight: its embedding makes sparse gradients"):
        br.attach(torch.optim.SGD(model.parameters(), lr=0.1), br.ModelPrior(model, br.Gaussian(0.3)), num_data=10)
    # Flat there is fine, with SparseAdam beside another optimizer too.
    prior = br.ModelPrior(model, {nn.Embedding: br.Flat(), "*": br.Gaussian(0.3)})
    sparse, dense = torch.optim.SparseAdam(model[0].parameters()), torch.optim.SGD(model[1].parameters(), lr=0.1)
    br.attach([sparse, dense], prior, num_data=10)
    model(torch.tensor([1])).sum().backward()
    before = model[1].weight.detach().clone()
    sparse.step()
    dense.step()
    assert not torch.equal(model[1].weight, before)
    with pytest.raises(br.UnsupportedError, match="SparseAdam takes sparse gradients"):
        br.attach(
            torch.optim.SparseAdam(model.parameters()), br.ModelPrior(model, {"*": br.Gaussian(1.0)}), num_data=10
        )


def test_sparse_gradients_from_elsewhere_are_refused_at_the_step():
    model = nn.Linear(3, 2, bias=False)
    prior = br.ModelPrior(model, br.Gaussian(0.3, loc=torch.ones(2, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    br.attach(optimizer, prior, num_data=10, route="gradient")
    model.weight.grad = torch.ones(2, 3).to_sparse()
    with pytest.raises(br.UnsupportedError, match="weight: its gradient is sparse"):
        optimizer.step()


def test_differentiable_steps_need_the_loss_route():
    model = net()
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.3, loc=torch.tensor(0.1))})
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0, differentiable=True)
    with pytest.raises(br.UnsupportedError, match=r"differentiable=True\): a gradient changed in place is lost"):
        br.attach(optimizer, prior, num_data=N)
    br.attach(optimizer, prior, num_data=N, route="loss")


def test_a_handle_asked_for_what_it_does_not_do():
    _, _, _, handle = attached()
    with pytest.raises(br.InvalidArgumentError, match=r"penalty\(\) is for br\.attach\(\.\.\., route='loss'\)"):
        handle.penalty()
