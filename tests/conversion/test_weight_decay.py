"""Conversions: round trips, known numbers, optimizers, scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet

import bayesreg as br
from tests.versions import adam_flag, muon

SCALES = [br.LossScale.mean(50_000), br.LossScale.sum(), br.LossScale.mse(100, 3, 0.5), 1000]
PAIRS = [
    (br.weight_decay_to_variance, br.variance_to_weight_decay),
    (br.weight_decay_to_precision, br.precision_to_weight_decay),
    (br.l2_coefficient_to_variance, br.variance_to_l2_coefficient),
    (br.l1_to_laplace_scale, br.laplace_scale_to_l1),
]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("there", "back"), PAIRS)
@pytest.mark.parametrize("value", [1e-6, 5e-4, 3.0])
def test_round_trip(there, back, scale, value):
    assert back(there(value, scale), scale) == pytest.approx(value, rel=1e-14)
    tensor = torch.tensor([value, 2 * value], dtype=torch.float64)
    assert torch.allclose(back(there(tensor, scale), scale), tensor, rtol=1e-14)


def test_the_numbers_of_the_documentation():
    assert br.weight_decay_to_variance(5e-4, 50_000) == pytest.approx(0.04, rel=1e-15)
    assert br.weight_decay_to_precision(5e-4, 50_000) == pytest.approx(25.0)
    assert br.variance_to_l2_coefficient(0.04, 50_000) == pytest.approx(2.5e-4)
    assert br.l1_to_laplace_scale(1e-4, 50_000) == pytest.approx(0.2)


def test_half_convention_is_a_factor_of_two():
    decay = br.variance_to_weight_decay(0.1, 100)
    assert br.variance_to_l2_coefficient(0.1, 100) == pytest.approx(decay / 2)


def test_no_decay_is_an_infinitely_wide_prior():
    assert br.weight_decay_to_variance(0.0, 100) == math.inf
    assert br.variance_to_weight_decay(math.inf, 100) == 0.0
    assert br.l1_to_laplace_scale(0.0, 100) == math.inf


@pytest.mark.parametrize("name", ["AdamW", "Adafactor", pytest.param("Muon", marks=muon)])
def test_decoupled_optimizers_have_no_variance(name):
    with pytest.raises(br.NotEquivalentError, match=rf"{name} decouples weight decay .*br\.attach"):
        br.weight_decay_to_variance(0.01, 100, optimizer=getattr(torch.optim, name))
    with pytest.raises(br.NotEquivalentError, match="not a Gaussian prior"):
        br.variance_to_weight_decay(0.01, 100, optimizer=name.lower())


@adam_flag
def test_an_adam_instance_with_decoupled_decay_is_refused():
    parameter = [torch.nn.Parameter(torch.zeros(2))]
    assert br.weight_decay_to_variance(0.1, 10, optimizer=torch.optim.Adam(parameter)) == pytest.approx(1.0)
    with pytest.raises(br.NotEquivalentError, match="decouples"):
        br.weight_decay_to_variance(0.1, 10, optimizer=torch.optim.Adam(parameter, decoupled_weight_decay=True))


def test_optimizers_without_weight_decay_are_refused():
    with pytest.raises(br.NotEquivalentError, match="LBFGS has no weight_decay argument"):
        br.variance_to_weight_decay(1.0, 10, optimizer=torch.optim.LBFGS)


def test_hidden_decay_of_asgd_is_counted():
    assert br.weight_decay_to_variance(0.1, 10, optimizer=torch.optim.ASGD) == pytest.approx(0.1 / 0.1001)
    assert br.weight_decay_to_precision(0.1, 10, optimizer="asgd") == pytest.approx(1.001)
    decay = br.variance_to_weight_decay(1.0, 10, optimizer="asgd")
    assert decay == pytest.approx(0.1 - 1e-4)
    with pytest.raises(br.NotEquivalentError, match=r"lambd=0\.0001, more than the prior asks for"):
        br.variance_to_weight_decay(1e6, 10, optimizer="asgd")


def test_unknown_optimizers_are_probed_not_guessed_by_name():
    class MyAdamW(torch.optim.SGD):
        pass

    class MySGD(torch.optim.AdamW):
        pass

    class Stubborn(torch.optim.SGD):
        def step(self, closure=None):
            raise RuntimeError("call train() first")

    assert br.weight_decay_to_variance(0.1, 10, optimizer=MyAdamW) == 1.0
    assert br.weight_decay_to_variance(0.1, 10, optimizer=lambda params: MyAdamW(params, lr=0.1)) == 1.0
    with pytest.raises(br.NotEquivalentError, match="MySGD decouples weight decay"):
        br.weight_decay_to_variance(0.1, 10, optimizer=MySGD)
    with pytest.raises(br.NotEquivalentError, match=r"Stubborn is not one of torch's own .* could not be probed"):
        br.weight_decay_to_variance(0.1, 10, optimizer=Stubborn)
    with pytest.raises(br.InvalidArgumentError, match=r"calling it raised ZeroDivisionError"):
        br.weight_decay_to_variance(0.1, 10, optimizer=lambda params: 1 / 0)
    with pytest.raises(br.InvalidArgumentError, match=r"expected a function that returns one, got list"):
        br.weight_decay_to_variance(0.1, 10, optimizer=lambda params: list(params))
    with pytest.raises(br.InvalidArgumentError, match=r"got 'sdg'; did you mean 'sgd'"):
        br.weight_decay_to_variance(0.1, 10, optimizer="sdg")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: br.weight_decay_to_variance(-1e-3, 10), "weight_decay: expected a value >= 0, got -0.001"),
        (lambda: br.variance_to_weight_decay(0.0, 10), "variance: expected a value > 0, got 0"),
        (lambda: br.variance_to_weight_decay(-1.0, 10), "variance: expected a value > 0, got -1"),
        (lambda: br.variance_to_weight_decay(math.nan, 10), "variance: expected a finite number, got nan"),
        (lambda: br.weight_decay_to_variance("5e-4", 10), "weight_decay: expected a number or a tensor, got str"),
        (lambda: br.variance_to_ridge_alpha(1.0, -1.0), "noise_std: expected a value > 0"),
        (lambda: br.logistic_c_to_variance(0.0), "logistic_c: expected a value > 0"),
        (lambda: br.sklearn_to_elastic_net_rates(0.1, 1.5, 10, 1.0), r"l1_ratio: expected a value in \[0, 1\]"),
        (lambda: br.elastic_net_rates_to_sklearn(0.0, 0.0, 10, 1.0), "expected at least one rate > 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        call()


def test_elastic_net_rates_give_scikit_learns_optimum():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5))
    y = X @ np.array([1.0, 0.0, -2.0, 0.0, 0.5]) + 0.3 * rng.normal(size=60)
    tau = 0.3
    l1, l2 = br.sklearn_to_elastic_net_rates(0.2, 0.4, num_data=60, noise_std=tau)
    coef = ElasticNet(alpha=0.2, l1_ratio=0.4, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, y).coef_
    # KKT of Σ(y − Xw)²/(2τ²) + l1·|w| + l2·w²/2.
    slope = -X.T @ (y - X @ coef) / tau**2 + l2 * coef
    inside = coef == 0
    assert inside.any()
    assert np.abs(slope + l1 * np.sign(coef))[~inside].max() < 1e-6
    assert np.abs(slope[inside]).max() <= l1
    assert br.elastic_net_rates_to_sklearn(l1, l2, 60, tau) == pytest.approx((0.2, 0.4))
