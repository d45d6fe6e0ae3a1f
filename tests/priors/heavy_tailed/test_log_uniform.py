"""Log-uniform: the contract between its bounds, its prox against a search, and what it is without bounds."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from torch import nn

import bayesreg as br
from bayesreg.testing import PriorContract


class TestLogUniform(PriorContract):
    per_element = ("low", "high")

    def make(self, scale):
        return br.LogUniform(1e-7 * scale, 100.0 * scale)

    def logpdf(self, scale):
        return lambda x: scipy.stats.loguniform(1e-7 * scale, 100 * scale).logpdf(abs(x)) - math.log(2.0)

    @pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
    def test_integrates_to_one(self, scale):
        """By quadrature in log w: the density is a power of ten higher at each power of ten nearer to 0."""
        prior = self.make(scale)
        t = torch.linspace(math.log(1e-7 * scale) + 1e-12, math.log(100 * scale) - 1e-12, 1001, dtype=torch.float64)
        assert prior.log_prob(torch.tensor(0.99e-7 * scale)).item() == -math.inf
        density = torch.stack([(prior.log_prob(x) + x.log()).exp() for x in t.exp()])
        assert 2 * torch.trapezoid(density, t).item() == pytest.approx(1.0, abs=1e-9)

    @pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
    def test_samples_follow_the_density(self, scale):
        draws = self.make(scale).sample((4000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        between = scipy.stats.loguniform(1e-7 * scale, 100 * scale)
        assert scipy.stats.kstest(draws.abs().numpy(), between.cdf).pvalue > 1e-3
        assert abs((draws > 0).double().mean() - 0.5) < 0.03


def test_the_prox_is_the_lowest_point_between_the_bounds():
    prior = br.LogUniform(0.05, 2.0, loc=0.3)
    v = 0.3 + torch.tensor([-3.0, -0.6, -0.02, 0.0, 0.01, 0.3, 0.45, 0.9, 1.9, 5.0], dtype=torch.float64)
    size = torch.linspace(0.05, 2.0, 20_001, dtype=torch.float64)
    points = torch.cat([0.3 - size, 0.3 + size])
    for step in (1e-4, 0.02, 0.06, 1.0):
        found = prior.prox(v, step)
        for x, start in zip(found, v, strict=True):
            heights = (points - start).square() / (2 * step) + (points - 0.3).abs().log()
            mine = (x - start).square() / (2 * step) + (x - 0.3).abs().log()
            assert mine <= heights.min() + 1e-12
            assert 0.05 * (1 - 1e-12) <= (x - 0.3).abs() <= 2.0 * (1 + 1e-12)
    assert prior.at_kink(prior.prox(v, 1.0)).all()


def test_on_a_bound_the_certificate_looks_one_way():
    prior = br.LogUniform(0.5, 2.0)
    value = torch.tensor([0.5, -0.5, 2.0, -2.0, 1.0, 3.0], dtype=torch.float64)
    # At 0.5 the pull is 2 inward: a gradient of +1 presses onto the bound, one of −3 lifts off it by 1.
    assert prior.subdiff_distance(value, torch.ones_like(value)).tolist()[:5] == [0.0, 0.0, 1.5, 0.0, 2.0]
    assert prior.subdiff_distance(value, torch.full_like(value, -3.0)).tolist()[:4] == [1.0, 0.0, 0.0, 3.5]
    assert prior.subdiff_distance(value, torch.zeros_like(value))[5] == math.inf
    assert prior.log_prob(torch.tensor([0.1])).item() == -math.inf
    moved = prior._kept_on_side(torch.tensor([0.7, -0.7, 0.7]), torch.tensor([-3.0, -0.1, 9.0]))
    assert moved.tolist() == [0.5, -0.5, 2.0]


def test_without_bounds_it_is_improper_and_says_so():
    open_, low, high = br.LogUniform(), br.LogUniform(low=0.1), br.LogUniform(high=3.0)
    assert not any(prior.traits.proper for prior in (open_, low, high))
    assert br.LogUniform(0.1, 3.0).traits.proper
    # The local minimum where there is one.
    x = open_.prox(torch.tensor([3.0, -3.0, 1.9], dtype=torch.float64), 1.0)
    assert torch.allclose(x, torch.tensor([(3 + 5**0.5) / 2, -(3 + 5**0.5) / 2, 0.0], dtype=torch.float64))
    assert open_.subdiff_distance(x, (x - torch.tensor([3.0, -3.0, 1.9])) / 1.0).max() < 1e-12
    assert open_.penalty(torch.zeros(1)).item() == -math.inf
    with pytest.raises(br.UnsupportedError, match="is improper"):
        low.sample((2,))
    model = nn.Linear(3, 1)
    for prior in (open_, high):
        whole = br.ModelPrior(model, prior)
        with pytest.raises(br.UnsupportedError, match=r"LogUniform\(low="):
            br.attach(torch.optim.SGD(whole.param_groups(), lr=0.1), whole, num_data=3)
    assert "without bounds" in open_.describe()


def test_training_stays_between_the_bounds():
    torch.manual_seed(0)
    X = torch.randn(50, 4, dtype=torch.float64)
    y = X @ torch.tensor([[2.0], [0.01], [-0.5], [0.0]], dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()
    prior = br.ModelPrior(model, br.LogUniform(low=0.1))
    result = br.MAPTrainer(model, prior, br.likelihoods.Gaussian(0.3), optimizer="proximal", progress=False).fit((X, y))
    w = model.weight.detach()[0]
    assert result.converged
    assert (w.abs() >= 0.1).all()
    assert prior["weight"].at_kink(w).sum() == 2
    # The two off the bound: their gradient balances the pull 1/w.
    slope = (X.T @ (X @ w - y[:, 0])) / 0.09
    free = ~prior["weight"].at_kink(w)
    assert torch.allclose(slope[free], -1.0 / w[free], rtol=1e-6)


def test_wrong_bounds_are_refused():
    with pytest.raises(br.InvalidArgumentError, match=r"low, high: expected high > low, got high - low = -1"):
        br.LogUniform(2.0, 1.0)
    with pytest.raises(br.InvalidArgumentError, match="low"):
        br.LogUniform(0.0, 1.0)
