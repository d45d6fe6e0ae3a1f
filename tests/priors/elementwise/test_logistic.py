"""Logistic: the contract, and the two priors it lies between."""

from __future__ import annotations

import mpmath
import pytest
import scipy.stats
import torch

import bayesreg as br
from bayesreg.testing import PriorContract


class TestLogistic(PriorContract):
    def make(self, scale):
        return br.Logistic(scale)

    def logpdf(self, scale):
        return scipy.stats.logistic(0, scale).logpdf


class TestCentredLogistic(PriorContract):
    centre = 1.3

    def make(self, scale):
        return br.Logistic(scale, loc=1.3)

    def logpdf(self, scale):
        return scipy.stats.logistic(1.3, scale).logpdf


@pytest.mark.parametrize("x", [1e-9, 1e-4, 0.3, 0.4999, 0.5001, 1.0, 30.0, 800.0, 1e5])
def test_penalty_has_all_its_digits_near_and_far(x):
    with mpmath.workdps(60):
        expected = 2 * mpmath.log(mpmath.cosh(mpmath.mpf(x) / 2))
        bent = mpmath.sech(mpmath.mpf(x) / 2) ** 2 / 2
    prior, value = br.Logistic(1.0), torch.tensor([x], dtype=torch.float64)
    assert prior.penalty(value).item() == pytest.approx(float(expected), rel=1e-13, abs=0)
    assert prior.curvature(value).item() == pytest.approx(float(bent), rel=1e-12, abs=0)


def test_lies_between_gaussian_and_laplace():
    prior = br.Logistic(0.2)
    grad = torch.zeros(2, dtype=torch.float64)
    prior.add_grad_([grad], [torch.tensor([1e-6, 100.0], dtype=torch.float64)], 1.0)
    assert grad[0].item() == pytest.approx(1e-6 / (2 * 0.04), rel=1e-9)
    assert grad[1].item() == pytest.approx(1 / 0.2)


def test_draws_are_finite():
    draws = br.Logistic(1.0).sample((200_000,), generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(draws).all()
