"""Where −log p is no parabola, noise and width do not scale together: what is scored is what is kept."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn

import bayesreg as br


def sparse(noise, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(90, 40, generator=generator, dtype=torch.float64)
    weights = torch.zeros(40, 1, dtype=torch.float64)
    weights[:4, 0] = torch.tensor([3.0, -2.0, 1.5, 1.0])
    y = X @ weights + torch.randn(90, 1, generator=generator, dtype=torch.float64)
    return X, noise * y, noise * weights


@pytest.mark.parametrize("prior", [br.Laplace(1.0), br.StudentT(df=3.0, scale=1.0), br.ElasticNet(l1=1.0, l2=0.1)])
@pytest.mark.parametrize("unit", [0.02, 1.0, 50.0])
def test_the_fit_predicts_as_well_as_it_was_scored_in_any_unit(prior, unit):
    X, y, _ = sparse(unit)
    new, target, _ = sparse(unit, seed=1)
    model = nn.Linear(40, 1).double()
    nn.init.zeros_(model.weight)
    wide = prior.stretched(unit)
    choice = br.choose_strength(model, wide, br.likelihoods.Gaussian("learned"), (X, y))
    with torch.no_grad():
        error = float((choice.model(new) - target).square().mean().sqrt()) / unit
    scored = min(step.held_out_nll for step in choice.steps)
    said = math.sqrt(math.exp(2.0 * scored - 1.0) / (2.0 * math.pi)) / unit
    assert error < 1.35
    assert said == pytest.approx(error, rel=0.2)
    # And it is a MAP of the prior and the noise that come with it.
    solver = "lbfgs" if prior.traits.smooth else "proximal"
    before = choice.model.weight.detach().clone()
    br.MAPTrainer(choice.model, choice.prior, choice.likelihood, optimizer=solver, progress=False).fit((X, y))
    assert torch.allclose(choice.model.weight, before, atol=0.05 * unit)


def test_the_choice_does_not_depend_on_the_unit_of_the_target():
    found = []
    for unit in (1.0, 1000.0):
        X, y, _ = sparse(unit)
        model = nn.Linear(40, 1).double()
        nn.init.zeros_(model.weight)
        prior = br.Laplace(unit)
        found.append(br.choose_strength(model, prior, br.likelihoods.Gaussian("learned"), (X, y)).scale)
    assert found[0] == pytest.approx(found[1], rel=1e-3)


@pytest.mark.parametrize(("noise", "warns"), [("learned", False), (1.0, True)])
def test_only_a_noise_that_was_said_can_be_off_the_targets_scale(noise, warns):
    from functools import partial

    X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    y = 1e5 * X.sum(1, keepdim=True) + 1e4 * torch.randn(40, 1, generator=torch.Generator().manual_seed(1))
    adam = partial(torch.optim.Adam, lr=1e-2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        br.choose_strength(
            nn.Linear(2, 1), br.Gaussian(1.0), br.likelihoods.Gaussian(noise), (X, y), optimizer=adam, max_epochs=5
        )
    found = [one for one in caught if issubclass(one.category, br.OffScaleWarning)]
    assert len(found) == int(warns)
