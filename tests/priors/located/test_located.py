"""Priors about a centre: rounding to what a kink can hold, copies, other centres, larger parameters."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import bayesreg as br


def test_a_centre_that_was_rounded_for_its_kink_is_called_so():
    model = nn.Linear(3, 2, bias=False).bfloat16()
    prior = br.transfer.l1_sp(model, {"weight": torch.rand(2, 3)}, body_scale=0.1)
    assert "rounded to the weights' own bfloat16" in str(prior.describe())


@pytest.mark.parametrize("family", [br.Laplace(0.1), br.ElasticNet(1.0, 1.0), br.GroupLaplace(3.0)])
def test_a_model_narrowed_after_the_prior_was_made_reaches_the_kink(family):
    torch.manual_seed(0)
    pretrained, model = nn.Linear(6, 4, bias=False), nn.Linear(6, 4, bias=False)
    prior = br.ModelPrior(model, {"*": family.with_loc(br.load_reference(pretrained))})
    model.bfloat16()
    moved = prior["weight"].prox(model.weight.detach(), 1e3)
    assert torch.equal(moved, pretrained.weight.bfloat16())
    assert prior["weight"].penalty(moved).item() == 0.0


def test_priors_about_a_module_are_pickled_and_copied():
    prior = br.Gaussian.centered_at(nn.Linear(2, 2), 0.1)
    for again in (pickle.loads(pickle.dumps(prior)), copy.deepcopy(prior)):
        assert torch.equal(again.reference["weight"], prior.reference["weight"])


def test_resized_keeps_the_digits_of_the_model_and_of_the_other_centre():
    reference, model = {"weight": torch.randn(200, 300).double()}, nn.Linear(300, 400, bias=False).double()
    near = br.Gaussian(0.01)
    prior = br.ModelPrior(model, {"*": near.with_loc(br.load_reference(reference)).with_resized(br.Gaussian(1.0))})
    weight = model.weight.detach()
    exact = near.log_prob(weight[:200] - reference["weight"]) + br.Gaussian(1.0).log_prob(weight[200:])
    assert prior.log_prob().item() == pytest.approx(exact.item(), rel=1e-13)
    kept = br.load_reference(reference, storage="bfloat16")
    prior = br.ModelPrior(model, {"*": near.with_loc(kept).with_resized(br.Gaussian(1.0, loc=0.3))})
    assert prior["weight"].loc[300, 0].item() == 0.3


def test_with_loc_and_with_resized_keep_the_rest():
    assert float(br.Gaussian(1.0, loc=2.0).with_resized(br.Gaussian(3.0)).loc) == 2.0
    again = br.Gaussian(1.0).with_resized(br.Gaussian(3.0)).with_loc(1.0)
    assert float(again.beyond.scale) == 3.0
    with pytest.raises(br.InvalidArgumentError, match="FanInGaussian is one density"):
        br.FanInGaussian(1.0).with_resized(br.FanInGaussian(2.0))
