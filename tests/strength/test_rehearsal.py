"""`br.transfer.rehearse`: the source says how far weights travel."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.strength.rehearsal import _drawn

NOISE = 0.3


def task(distance, n=400, features=20):
    """Return a pretrained linear model, and data of weights at a distance (one std) from its own."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(features, 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(1, features, generator=generator))
    X = torch.randn(n, features, generator=generator).double()
    moved = model.weight.detach() + distance * torch.randn(1, features, generator=generator).double()
    y = X @ moved.T + model.bias.detach() + NOISE * torch.randn(n, 1, generator=generator).double()
    return model, (X, y)


@pytest.mark.parametrize("distance", [0.03, 0.3])
def test_it_finds_how_far_the_weights_travel(distance):
    model, data = task(distance)
    prior = br.Gaussian.centered_at(model, scale=1.0)
    found = br.transfer.rehearse(model, prior, br.likelihoods.Gaussian(NOISE), data, num_data=15)
    assert 0.4 * distance < found.scale < 2.5 * distance
    assert found.hyperprior.scale == found.scale
    assert len(found.scales) == 5


def test_its_scores_are_those_of_refits():
    model, (X, y) = task(0.3)
    prior = br.ModelPrior(model, br.Gaussian.centered_at(model, scale=0.5))
    noise = br.likelihoods.Gaussian(NOISE)
    found = br.transfer.rehearse(model, prior, noise, (X, y), num_data=15, draws=2, validation=100, seed=np.int64(4))
    step = found.steps[len(found.steps) // 2]
    scores = []
    for fit, rest in _drawn(y, 15, 2, 100, 4):
        again = nn.Linear(20, 1).double()
        again.load_state_dict(model.state_dict())
        wider = br.Gaussian.centered_at(model, scale=0.5 * step.scale)
        br.MAPTrainer(again, wider, noise, optimizer="lbfgs", progress=False).fit((X[fit], y[fit]))
        scores.append(float(noise.nll(again(X[rest]), y[rest]).mean().detach()))
    assert step.held_out_nll == pytest.approx(sum(scores) / 2, rel=1e-3)


def test_draws_are_even_and_apart():
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 3)
    for fit, rest in _drawn(labels, 12, 3, 30, 0):
        assert len(fit) == 12
        assert sorted(torch.bincount(labels[fit], minlength=3).tolist()) == [3, 4, 5]
        assert len(rest) == 30
        assert not set(fit.tolist()) & set(rest.tolist())


def test_nothing_is_changed_and_all_is_said():
    model, data = task(0.3)
    before, state = model.weight.detach().clone(), torch.get_rng_state()
    found = br.transfer.rehearse(
        model, br.Gaussian.centered_at(model, scale=1.0), br.likelihoods.Gaussian(NOISE), data, num_data=10
    )
    assert torch.equal(model.weight, before)
    assert torch.equal(state, torch.get_rng_state())
    assert "Rehearsal" in str(found)
    assert f"for {found.num_data} examples" in str(found.summary())
    assert math.isclose(sum(len(row) for row in found.summary().rows), 3 * len(found.steps))


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"num_data": 400}, br.DataError, "more than the 400 examples"),
        ({"num_data": 0}, br.InvalidArgumentError, "num_data"),
        ({"draws": 0}, br.InvalidArgumentError, "draws"),
        ({"likelihood": br.likelihoods.Gaussian("learned")}, br.UnsupportedError, "nothing to learn"),
        ({"no_such": 1}, br.InvalidArgumentError, "unexpected argument 'no_such'"),
        ({"tolerance": 1.0}, br.InvalidArgumentError, "sees to it itself"),
    ],
)
def test_what_it_refuses(given, error, match):
    model, data = task(0.3)
    arguments = {
        "model": model,
        "prior": br.Gaussian.centered_at(model, scale=1.0),
        "likelihood": br.likelihoods.Gaussian(NOISE),
        "data": data,
        "num_data": 10,
        **given,
    }
    with pytest.raises(error, match=match):
        br.transfer.rehearse(**arguments)
