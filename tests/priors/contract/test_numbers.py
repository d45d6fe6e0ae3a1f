"""Numbers at their edges, for every family: half precision, kinks, infinities, empty tensors, rows of scales."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import bayesreg as br


def test_a_loaded_power_changes_the_density():
    prior = br.GeneralizedNormal(2.0, 1.0)
    prior.load_state_dict(br.GeneralizedNormal(0.5, 1.0).state_dict())
    assert prior.penalty(torch.tensor([4.0])).item() == pytest.approx(2.0)
    assert not prior.traits.convex


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [
    lambda s: br.StudentT(4.0, s), lambda s: br.Cauchy(s), lambda s: br.Gaussian(s), lambda s: br.Laplace(s),
    lambda s: br.Logistic(s), lambda s: br.GeneralizedNormal(1.5, s), lambda s: br.NormalGamma(2.0, s),
    lambda s: br.LowRankGaussian(s, torch.ones(3, 1)),
])  # fmt: skip
def test_narrow_hyperparameters_are_worked_on_in_float32(make, dtype):
    scale = torch.full((3,), 1.7e-4).to(dtype)
    narrow, wide = make(scale), make(scale.double())
    value = torch.tensor([1e-4, -3e-4, 2e-3], dtype=torch.float64)
    assert narrow.log_prob(value).item() == pytest.approx(wide.log_prob(value).item(), rel=1e-6)
    assert torch.allclose(narrow.curvature(value).double(), wide.curvature(value), rtol=1e-5)
    assert torch.allclose(narrow.prox(value, 1e-7), wide.prox(value, 1e-7), rtol=1e-5)


def test_autograd_has_no_nan_on_a_kink():
    for prior in (br.GeneralizedNormal(0.5, 0.1), br.GroupLaplace(1.0, "row"), br.ElasticNet(1.0, 1.0)):
        weights = torch.zeros(2, 2, requires_grad=True)
        (grad,) = torch.autograd.grad(prior.penalty(weights), weights)
        assert torch.equal(grad, torch.zeros(2, 2)), prior


@pytest.mark.parametrize("x", [1e-30, 1e22, 1e31])
def test_float32_weights_of_any_size_have_penalty_and_slope(x):
    value = torch.tensor([x, -x])
    for prior in (br.StudentT(4.0, 1.0), br.Cauchy(1.0), br.Logistic(1.0), br.GroupLaplace(1.0, "tensor")):
        grad = torch.zeros(2)
        prior.add_grad_([grad], [value], 1.0)
        wide = torch.zeros(2, dtype=torch.float64)
        prior.add_grad_([wide], [value.double()], 1.0)
        assert torch.allclose(grad.double(), wide, rtol=1e-5, atol=0), prior
        assert prior.penalty(value).item() == pytest.approx(prior.penalty(value.double()).item(), rel=1e-5, abs=1e-37)
    mixture, grad = br.ScaleMixture([0.5, 0.5], [0.1, 1.0]), torch.zeros(2)
    mixture.add_grad_([grad], [value], 1.0)
    assert torch.isfinite(grad).all()
    assert grad[0] > 0
    assert grad[1] < 0
    assert torch.isfinite(mixture.psd_curvature(value)).all()


def test_infinite_weights_are_outside_bounds():
    assert br.Uniform(-1.0, 1.0).log_prob(torch.tensor([math.inf])).item() == -math.inf


def test_an_infinite_curvature_is_no_reading():
    readings = br.GeneralizedNormal(1.5, 1.0).weight_decay_readings(100)
    assert readings.curvature_matched is None
    assert "inf" not in str(br.ModelPrior(nn.Linear(2, 1), br.GeneralizedNormal(1.5, 1.0)).describe(100))


def test_empty_tensors_count_nothing():
    assert br.GroupLaplace(1.0, "row").log_prob(torch.zeros(3, 0)).item() == 0.0
    assert br.StudentT(3.0, 1.0).log_prob(torch.zeros(0)).item() == 0.0


def test_inference_mode_is_no_obstacle():
    with torch.inference_mode():
        assert math.isfinite(br.MultivariateGaussian(torch.eye(3)).log_prob(torch.zeros(3)).item())
        assert math.isfinite(br.LowRankGaussian(1.0, torch.ones(3, 1)).log_prob(torch.zeros(3)).item())


def test_one_solve_serves_all_rows_of_a_scalar_step():
    prior = br.MultivariateGaussian(torch.tensor([[1.0, 0.5], [0.5, 2.0]], dtype=torch.float64))
    value = torch.randn(5, 2, dtype=torch.float64)
    apart = prior.prox(value, torch.full((5, 2), 0.3, dtype=torch.float64))
    assert torch.allclose(prior.prox(value, 0.3), apart, rtol=1e-12)
