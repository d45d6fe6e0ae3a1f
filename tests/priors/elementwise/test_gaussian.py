"""Gaussian: the contract, diagonal and centred forms, conversions."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from torch import nn

import bayesreg as br
from bayesreg.testing import PriorContract


class TestGaussian(PriorContract):
    def make(self, scale):
        return br.Gaussian(scale)

    def logpdf(self, scale):
        return scipy.stats.norm(0, scale).logpdf


class TestCentredGaussian(PriorContract):
    centre = 0.75

    def make(self, scale):
        return br.Gaussian(scale, loc=0.75)

    def logpdf(self, scale):
        return scipy.stats.norm(0.75, scale).logpdf


def test_diagonal_matches_scipy_elementwise():
    scale = torch.tensor([[0.1, 1.0], [2.0, 5.0]], dtype=torch.float64)
    loc = torch.randn(2, 2, dtype=torch.float64)
    value = torch.randn(2, 2, dtype=torch.float64)
    prior = br.Gaussian(scale, loc=loc)
    expected = scipy.stats.norm(loc.numpy(), scale.numpy()).logpdf(value.numpy()).sum()
    assert prior.log_prob(value).item() == pytest.approx(expected, rel=1e-13)
    leaf = value.clone().requires_grad_()
    (slope,) = torch.autograd.grad(prior.penalty(leaf), leaf)
    grad = torch.zeros_like(value)
    prior.add_grad_([grad], [value], 2.0)
    assert torch.allclose(grad, 2 * slope, rtol=1e-13)
    assert torch.allclose(prior.curvature(value), 1 / scale**2)
    assert torch.allclose(prior.prox(value, 0.3), (value + 0.3 * loc / scale**2) / (1 + 0.3 / scale**2))
    assert torch.allclose(prior.weight_decay(10, about_loc=True), 0.1 / scale**2)


def test_one_scale_about_a_centre_of_tensors():
    loc, value = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    grad = torch.ones_like(value)
    br.Gaussian(0.5, loc=loc).add_grad_([grad], [value], 0.1)
    assert torch.allclose(grad, 1.0 + 0.1 * (value - loc) / 0.25, rtol=1e-13)


def test_a_row_of_scales_broadcasts_to_the_parameter():
    scale = torch.tensor([0.1, 2.0], dtype=torch.float64)
    value = torch.randn(3, 2, dtype=torch.float64)
    expected = scipy.stats.norm(0, scale.numpy()).logpdf(value.numpy()).sum()
    assert br.Gaussian(scale).log_prob(value).item() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("optimizer", [None, torch.optim.SGD, "adam"])
def test_weight_decay_and_back(optimizer):
    prior = br.Gaussian.from_weight_decay(5e-4, 50_000, optimizer=optimizer)
    assert prior.scale.item() == pytest.approx(0.2, rel=1e-15)
    assert prior.weight_decay(50_000, optimizer) == pytest.approx(5e-4, rel=1e-14)


def test_weight_decay_of_a_decoupled_optimizer_is_refused():
    with pytest.raises(br.NotEquivalentError, match="AdamW decouples"):
        br.Gaussian(0.2).weight_decay(1000, torch.optim.AdamW)
    with pytest.raises(br.NotEquivalentError, match="AdamW decouples"):
        br.Gaussian.from_weight_decay(0.01, 1000, optimizer=torch.optim.AdamW)
    with pytest.raises(br.NotEquivalentError, match="AdamW decouples"):
        br.Gaussian(0.2, loc=1.0).weight_decay(1000, torch.optim.AdamW, about_loc=True)


def test_weight_decay_toward_a_centre_is_asked_for_by_name():
    prior = br.Gaussian(0.5, loc=1.0)
    with pytest.raises(br.NotEquivalentError, match=r"toward loc \(here lambda = 0\.004\).*about_loc=True"):
        prior.weight_decay(1000)
    assert prior.weight_decay(1000, about_loc=True) == pytest.approx(0.004)


def test_learned_hyperparameters_are_parameters_with_gradients():
    scale = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    prior = br.Gaussian(scale)
    value = torch.randn(10, dtype=torch.float64)
    (slope,) = torch.autograd.grad(prior.log_prob(value), scale)
    expected = (value**2).sum().item() / 0.5**3 - 10 / 0.5
    assert slope.item() == pytest.approx(expected, rel=1e-12)
    assert list(prior.parameters()) == [scale]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: br.Gaussian(0.0), "scale: expected a value > 0, got 0"),
        (lambda: br.Gaussian(-0.1), "scale: expected a value > 0, got -0.1"),
        (lambda: br.Gaussian(math.nan), "scale: expected a finite number, got nan"),
        (lambda: br.Gaussian(math.inf), "scale: expected a finite number, got inf"),
        (lambda: br.Gaussian("0.1"), "scale: expected a number or a tensor, got str"),
        (lambda: br.Gaussian(torch.tensor([0.1, 0.0])), "scale: expected values > 0, got a smallest value of 0"),
        (
            lambda: br.Gaussian(torch.tensor([0.1, math.nan])),
            "scale: expected finite values, got 1 NaN or infinite of 2",
        ),
        (lambda: br.Gaussian(torch.tensor([1, 2])), "scale: expected a floating-point tensor, got dtype torch.int64"),
        (lambda: br.Gaussian(0.1, loc=math.nan), "loc: expected a finite number, got nan"),
        (lambda: br.Gaussian(0.1, loc=torch.tensor([math.inf])), "loc: expected finite values"),
        (lambda: br.Gaussian.from_weight_decay(0.0, 10), r"got 0; no decay at all is br\.Flat\(\)"),
        (lambda: br.Gaussian.centered_at(nn.Linear(2, 2), 0.1, extra="drop"), "extra: expected 'raise' or 'ignore'"),
    ],
)
def test_bad_hyperparameters_are_refused(build, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        build()


def test_values_that_would_broadcast_are_refused():
    with pytest.raises(br.InvalidArgumentError, match=r"Gaussian loc: .* value of shape \(3, 1\), got \(3,\)"):
        br.Gaussian(0.1, loc=torch.zeros(3)).log_prob(torch.zeros(3, 1))
    with pytest.raises(br.InvalidArgumentError, match=r"Gaussian scale: .* parameter 'weight' of shape \(2, 3\)"):
        br.ModelPrior(nn.Linear(3, 2), br.Gaussian(torch.ones(5)))


def test_a_named_centre_needs_a_name():
    prior = br.Gaussian.centered_at(nn.Linear(2, 2), 0.1)
    with pytest.raises(br.InvalidArgumentError, match=r"use it in br\.ModelPrior"):
        prior.log_prob(torch.zeros(2, 2))
    bound = prior.bound_to("weight", torch.zeros(2, 2))
    assert bound.loc.shape == (2, 2)


def test_the_centre_is_a_copy():
    weight = nn.Linear(3, 2).weight
    prior = br.Gaussian(0.05, loc=weight.detach())
    before = prior.penalty(weight.detach()).item()
    with torch.no_grad():
        weight += 1.0
    assert before == 0.0
    assert prior.penalty(weight.detach()).item() == pytest.approx(0.5 * 6 / 0.05**2)
    with pytest.raises(br.InvalidArgumentError, match=r"got an nn\.Parameter; .* write loc=parameter\.detach\(\)"):
        br.Gaussian(0.05, loc=weight)
