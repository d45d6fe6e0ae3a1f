"""ElasticNet: the contract, the normaliser under stress, its two limits, conversions."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch

import bayesreg as br
from bayesreg.testing import PriorContract


def reference(l1, l2, x):
    """log p by mpmath, with the normaliser in its textbook form."""
    with mpmath.workdps(80):
        a, b, w = mpmath.mpf(l1), mpmath.mpf(l2), abs(mpmath.mpf(x))
        log_z = mpmath.log(mpmath.sqrt(2 * mpmath.pi / b) * mpmath.erfc(a / mpmath.sqrt(2 * b))) + a**2 / (2 * b)
        return float(-a * w - b * w**2 / 2 - log_z)


class _Rates(PriorContract):
    per_element = ("l1", "l2")
    l1, l2 = 1.5, 0.8

    def make(self, scale):
        return br.ElasticNet(self.l1 / scale, self.l2 / scale**2, loc=self.centre)

    def logpdf(self, scale):
        return np.vectorize(lambda x: self._fast(scale, x))

    def _fast(self, scale, x):
        # The constant once, the rest in floats: the tests ask for a long grid.
        constant = reference(self.l1 / scale, self.l2 / scale**2, 0.0)
        r = abs(float(x) - self.centre)
        return constant - self.l1 / scale * r - 0.5 * self.l2 / scale**2 * r**2


class TestElasticNet(_Rates):
    def logpdf(self, scale):
        constant = reference(self.l1 / scale, self.l2 / scale**2, 0.0)
        return lambda x: (
            constant - self.l1 / scale * np.abs(x - self.centre) - self.l2 / scale**2 * (x - self.centre) ** 2 / 2
        )


class TestMostlyAbsolute(TestElasticNet):
    l1, l2 = 8.0, 0.3


class TestMostlySquare(TestElasticNet):
    l1, l2 = 0.05, 2.0


class TestCentredElasticNet(TestElasticNet):
    centre = 0.9


@pytest.mark.parametrize(("l1", "l2"), [
    (200.0, 0.5), (1e-6, 1.0), (1e3, 1e-3), (1e-3, 1e3), (40.0, 1.0), (1.0, 1e-12), (1e-9, 1e9), (30.0, 1.5),
])  # fmt: skip
@pytest.mark.parametrize("x", [0.0, 1e-7, 0.4, 25.0])
def test_agrees_with_mpmath_under_stress(l1, l2, x):
    found = br.ElasticNet(l1, l2).log_prob(torch.tensor(x, dtype=torch.float64)).item()
    assert found == pytest.approx(reference(l1, l2, x), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("a", [1e-6, 0.1, 1.0, 5.0, 24.9, 25.1, 200.0, 1e5])
def test_variance_agrees_with_mpmath(a):
    with mpmath.workdps(60):
        x = mpmath.mpf(a)
        hazard = mpmath.npdf(x) / (mpmath.erfc(x / mpmath.sqrt(2)) / 2)
        expected = 1 + x**2 - x * hazard
    assert br.ElasticNet(a * 2.0, 4.0).variance() == pytest.approx(float(expected) / 4.0, rel=1e-8)


def test_vanishing_rates_are_laplace_and_gaussian():
    value = torch.linspace(-2, 2, 9, dtype=torch.float64)
    for net, limit in ((br.ElasticNet(4.0, 1e-10), br.Laplace(0.25)), (br.ElasticNet(1e-10, 4.0), br.Gaussian(0.5))):
        assert net.log_prob(value).item() == pytest.approx(limit.log_prob(value).item(), rel=1e-9)
        assert torch.allclose(net.prox(value, 0.3), limit.prox(value, 0.3), rtol=1e-9, atol=1e-10)
        assert net.variance() == pytest.approx(limit.variance(), rel=1e-8)


def test_samples_of_a_steep_one_are_those_of_the_laplace():
    draws = br.ElasticNet(300.0, 0.5).sample((50_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert draws.abs().mean().item() == pytest.approx(1 / 300, rel=0.02)
    assert (draws != 0).all()


def test_penalties_and_back():
    prior = br.ElasticNet.from_penalties(1e-4, 5e-4, 50_000)
    assert prior.penalties(50_000) == pytest.approx((1e-4, 5e-4))
    with pytest.raises(br.NotEquivalentError, match=r"L1 coefficient of 0\.0001 beside a decay of 0\.0005"):
        prior.weight_decay(50_000)
    rates = br.sklearn_to_elastic_net_rates(0.1, 0.3, num_data=100, noise_std=0.5)
    assert [float(rate) for rate in rates] == pytest.approx([100 * 0.1 * 0.3 / 0.25, 100 * 0.1 * 0.7 / 0.25])


@pytest.mark.parametrize("build", [
    lambda: br.ElasticNet(0.0, 1.0), lambda: br.ElasticNet(1.0, 0.0), lambda: br.ElasticNet(math.nan, 1.0),
    lambda: br.ElasticNet.from_penalties(0.0, 1.0, 10),
])  # fmt: skip
def test_bad_rates_are_refused(build):
    with pytest.raises(br.InvalidArgumentError, match="expected a"):
        build()
