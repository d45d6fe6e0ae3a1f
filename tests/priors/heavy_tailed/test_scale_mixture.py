"""ScaleMixture: the contract, log space under stress, responsibilities, the prox with several minima."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

import bayesreg as br
from bayesreg.testing import PriorContract


class _Mixture(PriorContract):
    weights, scales = (0.3, 0.7), (0.2, 2.0)

    def make(self, scale):
        return br.ScaleMixture(self.weights, [scale * s for s in self.scales], loc=self.centre)

    def logpdf(self, scale):
        def function(x):
            parts = [scipy.stats.norm(self.centre, scale * s).logpdf(x) for s in self.scales]
            weights = np.reshape(self.weights, (-1,) + (1,) * np.ndim(x))
            return scipy.special.logsumexp(np.stack(parts), axis=0, b=weights)

        return function

    # The draws' variance has a large variance itself where a rare component is wide.
    def test_variance_is_that_of_the_samples(self):
        expected = sum(w * (2.0 * s) ** 2 for w, s in zip(self.weights, self.scales, strict=True))
        assert self.make(2.0).variance() == pytest.approx(expected)
        draws = self.make(2.0).sample((200_000,), generator=torch.Generator().manual_seed(0))
        assert draws.var().item() == pytest.approx(expected, rel=0.1)


class TestScaleMixture(_Mixture):
    pass


class TestSpikeAndSlab(_Mixture):
    weights, scales = (0.9, 0.1), (0.01, 1.0)


class TestThreeComponents(_Mixture):
    weights, scales = (0.5, 0.3, 0.2), (0.05, 0.5, 5.0)


class TestCentredMixture(_Mixture):
    centre = -0.3


class TestOneComponent(_Mixture):
    weights, scales = (1.0,), (0.6,)

    # A single component is a Gaussian in all but its class.
    def test_weight_decay_answers_or_says_why_not(self):
        with pytest.raises(br.NotEquivalentError, match=r"curvature-matched 0\.0111; variance-matched 0\.0111"):
            self.make(0.5).weight_decay(1000)


@pytest.mark.parametrize("x", [0.0, 1e-3, 0.5, 30.0, 1e4])
def test_log_space_survives_what_densities_do_not(x):
    prior = br.ScaleMixture([1 - 1e-12, 1e-12], [1e-4, 10.0])
    with mpmath.workdps(60):
        density = (1 - mpmath.mpf("1e-12")) * mpmath.npdf(x, 0, mpmath.mpf("1e-4"))
        density += mpmath.mpf("1e-12") * mpmath.npdf(x, 0, 10)
        expected = float(mpmath.log(density))
    assert prior.log_prob(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(expected, rel=1e-12)
    assert prior.log_prob(torch.tensor(x)).item() == pytest.approx(expected, rel=1e-5)


# blitz adds 1e-6 to the density: at one weight of ten spike widths its gradient has vanished.
def test_gradient_is_alive_between_the_components():
    prior = br.ScaleMixture([0.5, 0.5], [0.1, 0.1000001])
    grad = torch.zeros(1)
    prior.add_grad_([grad], [torch.ones(1)], 1.0)
    assert grad.item() == pytest.approx(100.0, rel=1e-4)


def test_slab_probability_is_bayes_rule():
    prior = br.ScaleMixture.spike_and_slab(0.1, 1.0, slab_weight=0.25)
    value = torch.tensor([0.0, 0.2, 1.0], dtype=torch.float64)
    slab = 0.25 * scipy.stats.norm(0, 1).pdf(value.numpy())
    spike = 0.75 * scipy.stats.norm(0, 0.1).pdf(value.numpy())
    assert prior.slab_probability(value).tolist() == pytest.approx((slab / (slab + spike)).tolist(), rel=1e-12)


def test_equal_scales_are_one_gaussian():
    value = torch.linspace(-1, 1, 7, dtype=torch.float64)
    mixture, gaussian = br.ScaleMixture([0.4, 0.6], [0.3, 0.3]), br.Gaussian(0.3)
    assert mixture.log_prob(value).item() == pytest.approx(gaussian.log_prob(value).item(), rel=1e-13)
    assert torch.allclose(mixture.prox(value, 0.2), gaussian.prox(value, 0.2), rtol=1e-12)


@pytest.mark.parametrize("step", [1e-4, 1e-2, 0.3, 10.0])
def test_prox_finds_the_lowest_of_several_minima(step):
    prior = br.ScaleMixture([0.6, 0.3, 0.1], [0.01, 0.2, 3.0])
    v = torch.linspace(-5, 5, 101, dtype=torch.float64)
    found = prior.prox(v, step)
    grid = torch.cat([torch.logspace(-6, 1, 40_001, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    for at, x in zip(v, found, strict=True):
        points = grid * (-1.0 if at < 0 else 1.0)
        heights = (points - at).square() / (2 * step) + prior.offset_penalty(points)
        mine = (x - at).square() / (2 * step) + prior.offset_penalty(x)
        assert mine.item() <= heights.min().item() + 1e-9 * (1 + abs(heights.min().item()))


def test_learned_scales_get_their_gradient():
    scales = torch.nn.Parameter(torch.tensor([0.1, 1.0], dtype=torch.float64))
    prior = br.ScaleMixture([0.5, 0.5], scales)
    value = torch.randn(20, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: _with(prior, s).log_prob(value), scales)


def _with(prior, scales):
    return br.ScaleMixture([0.5, 0.5], torch.nn.Parameter(scales.detach())) if not scales.requires_grad else prior


@pytest.mark.parametrize(("build", "message"), [
    (lambda: br.ScaleMixture([0.5, 0.6], [1.0, 2.0]), "weights that sum to 1, got a sum of 1.1"),
    (lambda: br.ScaleMixture([0.5, 0.5], [1.0]), "2 weights and 1 scales"),
    (lambda: br.ScaleMixture([1.5, -0.5], [1.0, 2.0]), "weights: expected values > 0"),
    (lambda: br.ScaleMixture([0.5, 0.5], [1.0, 0.0]), "scales: expected values > 0"),
    (lambda: br.ScaleMixture(["a"], [1.0]), "weights: expected numbers"),
    (lambda: br.ScaleMixture(1.0, [1.0]), "weights: expected a sequence of numbers, got 1.0"),
    (lambda: br.ScaleMixture([], []), "weights: expected a sequence of numbers"),
    (lambda: br.ScaleMixture.spike_and_slab(1.0, 0.1), "slab_scale: expected a value > spike_scale"),
    (lambda: br.ScaleMixture.spike_and_slab(0.1, 1.0, 1.0), r"slab_weight: expected a value in \(0, 1\)"),
])  # fmt: skip
def test_bad_hyperparameters_are_refused(build, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        build()


def test_variance_and_words():
    prior = br.ScaleMixture([0.25, 0.75], [1.0, 2.0])
    assert prior.variance() == pytest.approx(0.25 + 3.0)
    assert prior.describe() == "mixture of Gaussians, std 1 (25%), 2 (75%), centred on 0"
    assert math.isclose(prior.weight_decay_readings(10).variance_matched, 0.1 / 3.25)
