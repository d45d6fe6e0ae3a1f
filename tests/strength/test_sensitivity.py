"""How far predictions move with half and with twice the scale."""

import copy

import pytest
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.distributions import Categorical, Poisson, kl_divergence

import bayesreg as br
from bayesreg.curvature.moves import moved_by
from tests.strength.test_choose import CLASSES, standardised
from tests.strength.test_groups import halves


def refitted(choice, likelihood, data, factor):
    """Return the outputs before and after the prior's widths are multiplied."""
    model = copy.deepcopy(choice.model)
    std = float(choice.prior.active()[0][1].scale) * factor
    prior = br.ModelPrior(model, br.Gaussian(std))
    trainer = br.MAPTrainer(model, prior, likelihood, optimizer="lbfgs", tolerance=1e-9, progress=False)
    trainer.fit(data)
    with torch.no_grad():
        return choice.model(data[0]), model(data[0])


@pytest.mark.parametrize("outputs", [1, 3])
def test_it_is_that_of_refits_where_all_is_exact(outputs):
    X, y = halves(outputs, n=30)
    choice = br.choose_strength(
        nn.Linear(6, outputs).double(), br.Gaussian(1.0), br.likelihoods.Gaussian("learned"), (X, y)
    )
    for factor, found in zip((0.5, 2.0), choice.sensitivity, strict=True):
        before, after = refitted(choice, choice.likelihood, (X, y), factor)
        by_hand = float((after - before).square().sum(1).mean()) / (2.0 * choice.likelihood.noise_std**2)
        assert found == pytest.approx(by_hand, rel=1e-5)
        assert found > 0.0


def test_it_is_near_that_of_refits_elsewhere():
    """Read off fits at steps of 2.4, as their squares go."""
    data, _ = standardised(load_breast_cancer, 80, 1)
    choice = br.choose_strength(nn.Linear(30, 2).double(), br.Gaussian(1.0), CLASSES, data)
    for factor, found in zip((0.5, 2.0), choice.sensitivity, strict=True):
        before, after = refitted(choice, CLASSES, data, factor)
        apart = kl_divergence(Categorical(logits=before), Categorical(logits=after)).mean()
        assert 0.4 < found / float(apart) < 2.5
    text = str(choice.summary())
    assert f"Chosen, the widths of the prior that was given times {choice.scale:.4g}:" in text
    assert "predictions move with half the scale" in text
    assert choice.to_dict()["sensitivity"] == list(choice.sensitivity)


def test_it_is_the_divergence_to_second_order():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 3, generator=generator).double()
    other = logits + 1e-3 * torch.randn(20, 3, generator=generator).double()
    labels = torch.zeros(20, dtype=torch.long)
    exact = kl_divergence(Categorical(logits=logits), Categorical(logits=other)).mean()
    assert moved_by(CLASSES, logits, other, labels) == pytest.approx(float(exact), rel=1e-2)
    rates, counts = logits[:, :1], torch.ones(20, 1).double()
    exact = kl_divergence(Poisson(rates.exp()), Poisson(other[:, :1].exp())).mean()
    assert moved_by(br.likelihoods.Poisson(), rates, other[:, :1], counts) == pytest.approx(float(exact), rel=1e-2)


def test_there_is_none_where_no_fit_tells():
    (X, y), _ = standardised(load_breast_cancer, 60, 0)
    alone = br.choose_strength(
        nn.Linear(30, 2).double(),
        br.Gaussian.centered_at(nn.Linear(30, 2).double(), scale=1.0),
        CLASSES,
        (X[:8], y[:8]),
    )
    assert alone.method == "centre"
    assert alone.sensitivity == (None, None)
    assert "predictions move" not in str(alone)
