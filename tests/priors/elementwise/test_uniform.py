"""Uniform: the contract inside its bounds, and what happens on and beyond them."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from torch import nn

import bayesreg as br
from bayesreg.testing import PriorContract


class TestUniform(PriorContract):
    pulls_far_out = False
    per_element = ("low", "high")

    def make(self, scale):
        return br.Uniform(-scale, scale)

    def logpdf(self, scale):
        return scipy.stats.uniform(-scale, 2 * scale).logpdf

    def points(self, scale):
        return scale * torch.tensor([-0.9, -0.3, -1e-3, 1e-6, 0.5, 0.99], dtype=torch.float64)


class TestShiftedUniform(PriorContract):
    pulls_far_out = False
    centre = 2.0
    per_element = ("low", "high")

    def make(self, scale):
        return br.Uniform(2.0 - scale, 2.0 + scale)

    def logpdf(self, scale):
        return scipy.stats.uniform(2.0 - scale, 2 * scale).logpdf

    def points(self, scale):
        return 2.0 + scale * torch.tensor([-0.9, -0.3, 0.5, 0.99], dtype=torch.float64)


def test_outside_the_density_is_zero():
    prior = br.Uniform(-1.0, 2.0)
    assert prior.log_prob(torch.tensor([0.0, 2.5])).item() == -math.inf
    assert prior.log_prob(torch.tensor([math.nan])).item() != prior.log_prob(torch.tensor([0.0])).item()
    assert prior.log_prob(torch.tensor([-1.0, 2.0])).item() == pytest.approx(-2 * math.log(3.0))


def test_prox_projects_and_the_certificate_knows_the_bounds():
    prior = br.Uniform(-1.0, 2.0)
    x = prior.prox(torch.tensor([-3.0, 0.5, 9.0]), 1e-3)
    assert x.tolist() == [-1.0, 0.5, 2.0]
    assert prior.at_kink(x).tolist() == [True, False, True]
    # On the lower bound a gradient that would go lower is at rest, on the upper one that would go higher.
    assert prior.subdiff_distance(x, torch.tensor([4.0, 0.0, -4.0])).tolist() == [0.0, 0.0, 0.0]
    assert prior.subdiff_distance(x, torch.tensor([-4.0, 1.0, 4.0])).tolist() == [4.0, 1.0, 4.0]
    assert prior.subdiff_distance(torch.tensor([5.0]), torch.zeros(1)).item() == math.inf


def test_bounds_hold_in_half_precision():
    prior = br.Uniform(-0.1, 0.1)
    weights = prior.prox(torch.randn(100).bfloat16(), 1.0)
    assert math.isfinite(prior.log_prob(weights).item())
    draws = prior.sample((10_000,), dtype=torch.bfloat16)
    assert math.isfinite(prior.log_prob(draws).item())


def test_a_box_constrained_regression_is_solved():
    X, w = torch.randn(60, 3, dtype=torch.float64), torch.tensor([[2.0, -0.3, -5.0]], dtype=torch.float64)
    y = X @ w.T
    model = nn.Linear(3, 1, bias=False).double()
    trainer = br.MAPTrainer(
        model, br.Uniform(-1.0, 1.0), br.likelihoods.Gaussian(1.0), optimizer="proximal", progress=False
    )
    result = trainer.fit((X, y))
    assert result.converged
    expected = scipy.optimize.lsq_linear(X.numpy(), y[:, 0].numpy(), bounds=(-1, 1), tol=1e-14).x
    assert model.weight.detach()[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 1.0), (2.0, 1.0), (-math.inf, 1.0), (0.0, math.nan), (-1e308, 1.5e308)]
)
def test_bad_bounds_are_refused(low, high):
    with pytest.raises(br.InvalidArgumentError, match="expected a"):
        br.Uniform(low, high)
    with pytest.raises(br.InvalidArgumentError, match="shapes that broadcast"):
        br.Uniform(torch.zeros(2), torch.ones(3))
