"""Flat, and any torch or Pyro distribution."""

from __future__ import annotations

import pyro.distributions
import pytest
import scipy.stats
import torch
from torch import distributions, nn

import bayesreg as br
from bayesreg.testing import PriorContract


class TestFlat(PriorContract):
    proper = False

    def make(self, scale):
        return br.Flat()


class TestFromStudentT(PriorContract):
    per_element = ()

    def make(self, scale):
        return br.FromDistribution(
            distributions.StudentT(
                torch.tensor(3.0, dtype=torch.float64), 0.0, torch.tensor(scale, dtype=torch.float64)
            )
        )

    def logpdf(self, scale):
        return scipy.stats.t(3.0, 0, scale).logpdf

    # With 3 degrees of freedom the sample variance has no variance itself: compare with the formula.
    def test_variance_is_that_of_the_samples(self):
        assert float(self.make(2.0).variance()) == pytest.approx(12.0)


class TestFromPyroLogistic(PriorContract):
    per_element = ()

    def make(self, scale):
        return br.FromDistribution(
            pyro.distributions.Logistic(
                torch.tensor(0.0, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64)
            )
        )

    def logpdf(self, scale):
        return scipy.stats.logistic(0, scale).logpdf

    def test_variance_is_that_of_the_samples(self):
        assert self.make(1.0).variance() == pytest.approx(scipy.stats.logistic.var())


class TestFromNormal(PriorContract):
    per_element = ()

    def make(self, scale):
        return br.FromDistribution(
            distributions.Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64))
        )

    def logpdf(self, scale):
        return scipy.stats.norm(0, scale).logpdf


def test_flat_says_nothing():
    prior, value = br.Flat(), torch.randn(3)
    assert prior.log_prob(value) == 0
    assert prior.weight_decay(10, torch.optim.AdamW) == 0.0
    assert prior.variance() is None
    assert torch.equal(prior.prox(value, 3.0), value)


def test_a_normal_has_the_weight_decay_of_the_gaussian():
    assert br.FromDistribution(distributions.Normal(0.0, 0.5)).weight_decay(1000) == pytest.approx(0.004)
    expanded = distributions.Normal(torch.zeros(3, 2), 0.5 * torch.ones(3, 2))
    assert br.FromDistribution(expanded).weight_decay(1000) == pytest.approx(0.004)
    joint = distributions.Independent(expanded, 2)
    assert br.FromDistribution(joint).weight_decay(1000) == pytest.approx(0.004)
    with pytest.raises(br.NotEquivalentError, match="toward loc"):
        br.FromDistribution(distributions.Normal(1.0, 0.5)).weight_decay(1000)
    with pytest.raises(br.NotEquivalentError, match="StudentT"):
        br.FromDistribution(distributions.StudentT(3.0)).weight_decay(1000)


def test_a_joint_distribution_over_a_parameter():
    covariance = torch.tensor([[1.0, 0.5], [0.5, 2.0]], dtype=torch.float64)
    prior = br.FromDistribution(distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance))
    assert not prior.traits.elementwise
    value = torch.tensor([0.3, -1.0], dtype=torch.float64)
    grad = torch.zeros(2, dtype=torch.float64)
    prior.add_grad_([grad], [value], 1.0)
    assert torch.allclose(grad, torch.linalg.solve(covariance, value))
    with pytest.raises(br.UnsupportedError, match="not diagonal"):
        prior.curvature(value)
    with pytest.raises(br.InvalidArgumentError, match=r"expected a shape that broadcasts .* got \(2,\)"):
        br.ModelPrior(nn.Linear(3, 1), {"weight": prior, "*": br.Flat()})


def test_traits_are_read_off_and_can_be_said():
    assert not br.FromDistribution(distributions.Laplace(0.0, 1.0)).traits.smooth
    assert not br.FromDistribution(distributions.HalfNormal(1.0)).traits.smooth
    assert br.FromDistribution(distributions.Normal(0.0, 1.0)).traits.convex
    assert not br.FromDistribution(distributions.Cauchy(0.0, 1.0)).traits.convex
    assert br.FromDistribution(distributions.Cauchy(0.0, 1.0), convex=True).traits.convex


def test_what_is_no_continuous_distribution_is_refused():
    with pytest.raises(br.InvalidArgumentError, match="expected a continuous distribution, got Poisson"):
        br.FromDistribution(distributions.Poisson(1.0))
    with pytest.raises(br.InvalidArgumentError, match=r"instance of torch\.distributions\.Distribution, got Normal"):
        br.FromDistribution(distributions.Normal)


def test_a_mixture_trains_but_cannot_be_saved(tmp_path):
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(torch.tensor([0.5, 0.5])),
        distributions.Normal(torch.zeros(2), torch.tensor([0.1, 1.0])),
    )
    prior = br.ModelPrior(nn.Linear(2, 1), br.FromDistribution(mixture))
    assert torch.isfinite(prior.log_prob())
    with pytest.raises(br.UnsupportedError, match="cannot be saved"):
        prior.save(tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_transformed_laplace_keeps_its_kink():
    affine = distributions.transforms.AffineTransform(1.0, 2.0)
    moved = distributions.TransformedDistribution(distributions.Laplace(0.0, 1.0), affine)
    assert not br.FromDistribution(moved).traits.smooth
    normal = distributions.TransformedDistribution(distributions.Normal(0.0, 1.0), affine)
    with pytest.raises(br.NotEquivalentError, match="TransformedDistribution"):
        br.FromDistribution(normal).weight_decay(10)


def test_values_that_would_broadcast_are_refused():
    prior = br.FromDistribution(distributions.Normal(torch.zeros(3), 1.0))
    with pytest.raises(br.InvalidArgumentError, match=r"broadcasts to value of shape \(3, 1\), got \(3,\)"):
        prior.log_prob(torch.zeros(3, 1))
