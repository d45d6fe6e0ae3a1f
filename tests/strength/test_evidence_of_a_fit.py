"""`br.strength.evidence`: the integral by Laplace's approximation, against the integral."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn
from torch.distributions import MultivariateNormal

import bayesreg as br


def fitted(model, prior, likelihood, data):
    prior = br.ModelPrior(model, prior)
    br.MAPTrainer(model, prior, likelihood, optimizer="lbfgs", tolerance=1e-9, progress=False).fit(data)
    return br.strength.evidence(model, prior, likelihood, data)


def draws(n, d, k):
    generator = torch.Generator().manual_seed(n + d)
    return [torch.randn(n, m, generator=generator).double() for m in (d, k)]


@pytest.mark.parametrize(("n", "d", "k"), [(12, 3, 1), (4, 9, 1), (10, 3, 2), (4, 9, 2)])
def test_it_is_exact_for_linear_models_with_gaussian_noise(n, d, k):
    """In the space of weights and in that of outputs, with a width of each element's own, and a centre."""
    X, y = draws(n, d, k)
    scale, centre = torch.linspace(0.3, 2.0, k * d).reshape(k, d).double(), torch.full((k, d), 0.2).double()
    model = nn.Linear(d, k).double()
    prior = {"weight": br.Gaussian(scale, loc=centre), "bias": br.Gaussian(0.7)}
    found = fitted(model, prior, br.likelihoods.Gaussian(0.4), (X, y))
    by_hand = 0.0
    for j in range(k):
        covariance = (X * scale[j] ** 2) @ X.T + 0.7**2 + 0.4**2 * torch.eye(n).double()
        by_hand += float(MultivariateNormal(X @ centre[j], covariance).log_prob(y[:, j]))
    assert found.log_evidence == pytest.approx(by_hand, abs=1e-8)
    assert found.exact
    assert not found.warnings


def test_what_is_flat_has_a_density_of_one():
    X, y = draws(12, 3, 1)
    noise, wide = br.likelihoods.Gaussian(0.4), 1e4
    flat = fitted(nn.Linear(3, 1).double(), {"weight": br.Gaussian(1.0), "bias": br.Flat()}, noise, (X, y))
    near = fitted(nn.Linear(3, 1).double(), {"weight": br.Gaussian(1.0), "bias": br.Gaussian(wide)}, noise, (X, y))
    assert flat.log_evidence == pytest.approx(near.log_evidence + math.log(wide * math.sqrt(2 * math.pi)), abs=1e-5)


@pytest.mark.parametrize("std", [0.3, 3.0])
def test_of_one_weight_it_is_near_the_integral(std):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(40, 1, generator=generator).double()
    y = (X + 0.8 * torch.randn(40, 1, generator=generator).double() > 0).double()
    likelihood = br.likelihoods.Bernoulli()
    found = fitted(nn.Linear(1, 1, bias=False).double(), br.Gaussian(std), likelihood, (X, y))

    def density(w):
        nll = float(likelihood.nll(w * X, y).sum())
        return np.exp(-nll - 0.5 * (w / std) ** 2) / (std * math.sqrt(2 * math.pi))

    exact = math.log(quad(density, -20, 20, points=[0, 1, 2, 4], limit=200)[0])
    assert found.log_evidence == pytest.approx(exact, abs=0.05)
    assert not found.exact


def test_away_from_a_minimum_it_says_so():
    X, y = draws(12, 3, 1)
    model = nn.Linear(3, 1).double()
    found = br.strength.evidence(model, br.ModelPrior(model, br.Gaussian(1.0)), br.likelihoods.Gaussian(0.4), (X, y))
    assert found.gradient > 0.01
    assert "its evidence" in found.warnings[0]
    assert "Laplace" not in str(found.summary())
