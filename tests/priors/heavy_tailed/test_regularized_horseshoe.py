"""The regularised horseshoe against quadrature in fifty digits, its draws, and its two limits."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

import bayesreg as br
from bayesreg.testing import PriorContract
from tests.sampling import thinned


class TestRegularizedHorseshoe(PriorContract):
    trainable = False
    per_element = ("scale", "slab_scale")

    def make(self, scale):
        return br.RegularizedHorseshoe(scale, 4.0 * scale)


def exact(w, tau, c):
    """Return log p(w), integrated over the local scale itself, in its logarithm."""

    def density(x):
        lam = mpmath.exp(x)
        v = 1 / (1 / (tau * lam) ** 2 + 1 / mpmath.mpf(c) ** 2)
        gauss = mpmath.exp(-(mpmath.mpf(w) ** 2) / 2 / v) / mpmath.sqrt(2 * mpmath.pi * v)
        return gauss * 2 / mpmath.pi * lam / (1 + lam**2)

    # Short pieces: at a narrow slab the integrand bends within a unit of log λ.
    return mpmath.log(mpmath.quad(density, mpmath.linspace(-45, 45, 181)))


@pytest.mark.parametrize(
    ("ratio", "x"), thinned([(0.1, 0.3), (1.0, 1e-8), (1.0, 2.0), (30.0, 1e-3), (30.0, 40.0), (1e4, 0.3)], 3)
)
def test_the_density_is_that_of_the_hierarchy(ratio, x):
    tau = 0.2
    with mpmath.workdps(30):
        reference = exact(x, tau, ratio * tau)
    found = br.RegularizedHorseshoe(tau, ratio * tau).log_prob(torch.tensor([x], dtype=torch.float64)).item()
    assert found == pytest.approx(float(reference), rel=1e-12, abs=1e-12)


def test_the_limits_are_the_horseshoe_and_its_slab():
    x = torch.tensor([1e-6, 0.1, 1.0, 5.0], dtype=torch.float64)
    wide = br.RegularizedHorseshoe(0.3, 1e7)
    assert wide.log_prob(x).item() == pytest.approx(br.Horseshoe(0.3).log_prob(x).item(), rel=1e-6)
    # With a huge global scale every weight is the slab's.
    slab = br.RegularizedHorseshoe(1e7, 0.5)
    y = torch.tensor([0.1, 0.6, 1.5], dtype=torch.float64)
    assert slab.log_prob(y).item() == pytest.approx(br.Gaussian(0.5).log_prob(y).item(), rel=1e-5)
    # Far out it falls as the slab does.
    far = br.RegularizedHorseshoe(0.1, 1.0)
    assert far.offset_slope(torch.tensor([30.0], dtype=torch.float64)).item() == pytest.approx(30.0, rel=0.01)


@pytest.mark.slow
def test_draws_follow_the_density_and_the_variance():
    prior = br.RegularizedHorseshoe(0.5, 2.0)
    draws = prior.sample((100_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert draws.var().item() == pytest.approx(prior.variance(), rel=0.03)
    assert prior.variance() == pytest.approx(4.0 * 0.5 / 2.5)
    # Its distribution function by quadrature on a grid that is fine at the pole.
    grid = np.sinh(np.linspace(-16, 16, 120_000)) * 1e-5
    density = torch.as_tensor(grid)
    heights = np.exp(torch.func.vmap(prior.log_prob)(density).numpy())
    mass = np.concatenate([[0], np.cumsum(np.diff(grid) * (heights[1:] + heights[:-1]) / 2)])
    assert mass[-1] == pytest.approx(1.0, abs=1e-4)
    assert scipy.stats.kstest(draws[:5000].numpy(), lambda x: np.interp(x, grid, mass)).pvalue > 1e-3


def test_it_is_differentiable_in_its_scales():
    scales = torch.tensor([0.3, 1.5], dtype=torch.float64, requires_grad=True)
    value = torch.tensor([0.05, 0.4, -2.0], dtype=torch.float64)

    def log_prob(s):
        prior = br.RegularizedHorseshoe(1.0, 1.0)
        prior._buffers["scale"], prior._buffers["slab_scale"] = s[0], s[1]
        return prior.log_prob(value)

    assert torch.autograd.gradcheck(log_prob, scales, eps=1e-6, atol=1e-6)


def test_many_elements_are_worked_on_in_pieces():
    prior = br.RegularizedHorseshoe(0.2, 1.0)
    value = torch.linspace(-2, 2, 9001, dtype=torch.float64)
    halves = prior.penalty(value[:5000]) + prior.penalty(value[5000:])
    assert prior.penalty(value).item() == pytest.approx(halves.item(), rel=1e-13)


def test_it_is_not_trained_and_says_why():
    model = nn.Linear(3, 1)
    prior = br.ModelPrior(model, br.RegularizedHorseshoe(0.1, 1.0))
    with pytest.raises(br.UnsupportedError, match="weight: the regularised horseshoe's density has no bound"):
        br.attach(torch.optim.SGD(model.parameters(), lr=0.1), prior, num_data=10)
    with pytest.raises(br.InvalidArgumentError, match="slab_scale: expected a value > 0"):
        br.RegularizedHorseshoe(0.1, 0.0)
    assert math.isinf(br.RegularizedHorseshoe(0.1, 1.0).log_prob(torch.zeros(1)).item())
