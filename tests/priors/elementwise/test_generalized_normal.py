"""GeneralizedNormal: the contract at powers below 1, between, and above; its limits."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

import bayesreg as br
from bayesreg.testing import PriorContract


class _Power(PriorContract):
    power = 2.0

    def make(self, scale):
        return br.GeneralizedNormal(self.power, scale)

    def logpdf(self, scale):
        return scipy.stats.gennorm(self.power, 0, scale).logpdf


class TestHalf(_Power):
    power = 0.5


class TestTwoThirds(_Power):
    power = 2 / 3


class TestOne(_Power):
    power = 1.0


class TestThreeHalves(_Power):
    power = 1.5


class TestTwo(_Power):
    power = 2.0


class TestFour(_Power):
    power = 4.0


class TestCentred(PriorContract):
    centre = 0.8

    def make(self, scale):
        return br.GeneralizedNormal(0.8, scale, loc=0.8)

    def logpdf(self, scale):
        return scipy.stats.gennorm(0.8, 0.8, scale).logpdf


def test_traits_follow_the_power():
    kinds = {p: br.GeneralizedNormal(p, 1.0).traits for p in (0.5, 1.0, 1.2, 3.0)}
    assert [kinds[p].convex for p in kinds] == [False, True, True, True]
    assert [kinds[p].smooth for p in kinds] == [False, False, True, True]


def test_power_one_is_laplace_and_power_two_a_gaussian():
    value = torch.tensor([-2.0, 0.0, 0.3, 5.0], dtype=torch.float64)
    for mine, known in (
        (br.GeneralizedNormal(1.0, 0.4), br.Laplace(0.4)),
        (br.GeneralizedNormal(2.0, 0.4), br.Gaussian(0.4 / math.sqrt(2))),
    ):
        assert mine.log_prob(value).item() == pytest.approx(known.log_prob(value).item(), rel=1e-13)
        assert torch.allclose(mine.prox(value, 0.3), known.prox(value, 0.3), rtol=1e-12)
        assert mine.variance() == pytest.approx(known.variance())
        first, second = torch.zeros_like(value), torch.zeros_like(value)
        mine.add_grad_([first], [value], 2.0)
        known.add_grad_([second], [value], 2.0)
        assert torch.allclose(first, second, rtol=1e-13)


# Closed forms: the prox of η|x|^p.
def test_prox_agrees_with_closed_forms():
    v, eta = torch.linspace(-4, 4, 33, dtype=torch.float64), 0.6
    size = v.abs()
    c = 9 * eta**2 / 8
    p32 = v + c * v.sign() * (1 - (1 + 16 * size / (9 * eta**2)).sqrt())
    assert torch.allclose(br.GeneralizedNormal(1.5, 1.0).prox(v, eta), p32, atol=1e-13)
    p3 = v.sign() * ((1 + 12 * eta * size).sqrt() - 1) / (6 * eta)
    assert torch.allclose(br.GeneralizedNormal(3.0, 1.0).prox(v, eta), p3, atol=1e-13)
    # p = ½: zero up to (3/2)·η^(2/3), then the cosine formula.
    threshold = 1.5 * eta ** (2 / 3)
    angle = torch.acos((eta / 4 * (size / 3).pow(-1.5)).clamp(-1, 1))
    half = torch.where(size > threshold, 2 / 3 * v * (1 + torch.cos(2 * math.pi / 3 - 2 / 3 * angle)), 0.0)
    assert torch.allclose(br.GeneralizedNormal(0.5, 1.0).prox(v, eta), half, atol=1e-12)
    beside = torch.tensor([threshold - 1e-9, threshold + 1e-9], dtype=torch.float64)
    assert (br.GeneralizedNormal(0.5, 1.0).prox(beside, eta) == 0).tolist() == [True, False]


def test_zeros_below_power_one_are_optimal_under_any_gradient():
    prior = br.GeneralizedNormal(0.5, 0.1)
    value, grad = torch.tensor([0.0, 0.5]), torch.tensor([100.0, 0.0])
    distance = prior.subdiff_distance(value, grad, 0.01)
    assert distance[0] == 0
    assert distance[1] > 0
    assert prior.at_kink(value).tolist() == [True, False]


def test_weights_may_be_of_any_size():
    prior = br.GeneralizedNormal(0.5, 1.0)
    value = torch.tensor([0.0, 1e-30, 1e30])
    grad = torch.zeros(3)
    prior.add_grad_([grad], [value], 1.0)
    assert grad[0] == 0
    assert torch.isfinite(grad).all()
    assert torch.isfinite(prior.prox(value, 1.0)).all()


@pytest.mark.parametrize("power", [0.0, -1.0, math.nan, torch.ones(2), torch.ones(1, requires_grad=True)])
def test_bad_powers_are_refused(power):
    with pytest.raises(br.InvalidArgumentError, match="power: expected"):
        br.GeneralizedNormal(power, 1.0)
