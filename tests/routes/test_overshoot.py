"""A prior too tight for the learning rate makes SGD diverge from it alone; it is said, and only then."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.routes.watches.overshoot import stable_below


def prior_steps(pull, steps=400, scale=0.1, prior=None, route="auto", **settings):
    """Step under a prior alone, with lr·λ = pull; return how far the weight has gone from 1."""
    model = nn.Linear(3, 1, bias=False).double()
    nn.init.ones_(model.weight)
    rules = br.ModelPrior(model, {"*": br.Gaussian(scale) if prior is None else prior})
    optimizer = torch.optim.SGD(model.parameters(), lr=pull * 100 * scale**2, **settings)
    br.attach(optimizer, rules, num_data=100, route=route)
    for _ in range(steps):
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()
    return model.weight.detach().abs().max().item()


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, {"momentum": 0.6, "nesterov": True}], ids=str)
def test_the_bound_is_where_it_diverges(settings):
    bound = stable_below(settings.get("momentum", 0.0), nesterov=settings.get("nesterov", False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prior_steps(0.98 * bound, **settings) < 1e-2
    with pytest.warns(br.OvershootWarning, match=r"weight: lr·λ = .* route='proximal'") as seen:
        assert prior_steps(1.02 * bound, **settings) > 1e2
    assert len(seen) == 1


def test_the_cure_that_it_names_works():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prior_steps(50.0, route="proximal") < 1e-6


def test_the_tightest_weight_decides():
    scale = torch.tensor([[10.0, 0.01, 1.0]]).double()
    model = nn.Linear(3, 1, bias=False).double()
    prior = br.ModelPrior(model, {"*": br.Gaussian(scale)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    br.attach(optimizer, prior, num_data=100)
    model.weight.grad = torch.zeros_like(model.weight)
    with pytest.warns(br.OvershootWarning, match=r"lr·λ = 5 .* lower the learning rate below 0\.02"):
        optimizer.step()


def test_directions_of_a_low_rank_gaussian_do_not_count():
    prior = br.LowRankGaussian(0.01, 10.0 * torch.ones(1, 3, 1).double())
    with pytest.warns(br.OvershootWarning, match=r"lr·λ = 3"):
        prior_steps(3.0, steps=1, prior=prior)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior_steps(1.9, steps=1, prior=prior)


def test_a_schedule_is_followed_and_adaptive_optimizers_are_left_alone():
    model = nn.Linear(3, 1, bias=False).double()
    prior = br.ModelPrior(model, br.Gaussian(0.1))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, num_data=100)
    model.weight.grad = torch.zeros_like(model.weight)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 3.0
    with pytest.warns(br.OvershootWarning, match=r"lr·λ = 3"):
        optimizer.step()
    adaptive = nn.Linear(3, 1, bias=False).double()
    tight = br.ModelPrior(adaptive, br.Gaussian(1e-4))
    optimizer = torch.optim.Adam(tight.param_groups(), lr=0.1)
    br.attach(optimizer, tight, num_data=100)
    adaptive.weight.grad = torch.zeros_like(adaptive.weight)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
