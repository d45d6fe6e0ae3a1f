"""Convex problems on real data: MAPTrainer reaches scikit-learn's optimum at the mapped hyper-parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from tests.sampling import slow


def standardised(loader, classification=False):
    X, y = loader(return_X_y=True)
    spread = X.std(0)
    X = (X - X.mean(0)) / np.where(spread > 0, spread, 1.0)
    return X, (y if classification else (y - y.mean()) / y.std())


def linear(inputs, outputs):
    model = nn.Linear(inputs, outputs).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def fit(model, prior, likelihood, data, solver, tolerance=1e-9):
    result = br.MAPTrainer(model, prior, likelihood, optimizer=solver, tolerance=tolerance).fit(data)
    assert result.converged
    assert result.kkt_residual <= 1e-9
    return result


@pytest.mark.parametrize("ridge_alpha", [0.1, 10.0, 1000.0])
@pytest.mark.parametrize("noise_std", [0.5, 2.0])
def test_ridge_on_diabetes(ridge_alpha, noise_std):
    X, y = standardised(load_diabetes)
    model = linear(10, 1)
    variance = br.ridge_alpha_to_variance(ridge_alpha, noise_std)
    fit(model, br.Gaussian(variance**0.5), br.likelihoods.Gaussian(noise_std), (X, y), "lbfgs")
    truth = Ridge(alpha=ridge_alpha).fit(X, y)
    assert np.abs(model.weight.detach().numpy()[0] - truth.coef_).max() < 1e-6
    assert model.bias.item() == pytest.approx(truth.intercept_, abs=1e-6)


@pytest.mark.parametrize("lasso_alpha", [1e-3, 0.03, 0.2])
@pytest.mark.parametrize("noise_std", [0.5, 2.0])
def test_lasso_on_diabetes(lasso_alpha, noise_std):
    X, y = standardised(load_diabetes)
    model = linear(10, 1)
    scale = br.lasso_alpha_to_laplace_scale(lasso_alpha, len(y), noise_std)
    result = fit(model, br.Laplace(scale), br.likelihoods.Gaussian(noise_std), (X, y), "proximal")
    truth = Lasso(alpha=lasso_alpha, tol=1e-14, max_iter=1_000_000).fit(X, y)
    coef = model.weight.detach().numpy()[0]
    assert np.abs(coef - truth.coef_).max() < 1e-6
    assert np.array_equal(coef == 0, truth.coef_ == 0)
    assert result.exact_zeros == (truth.coef_ == 0).mean()


@pytest.mark.parametrize("logistic_c", [0.01, 1.0])
def test_l2_logistic_regression_on_breast_cancer(logistic_c):
    X, y = standardised(load_breast_cancer, classification=True)
    model = linear(30, 1)
    prior = br.Gaussian(br.logistic_c_to_variance(logistic_c) ** 0.5)
    fit(model, prior, br.likelihoods.Bernoulli(), (X, y), "lbfgs", tolerance=1e-12)
    truth = LogisticRegression(C=logistic_c, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(X, y)
    assert np.abs(model.weight.detach().numpy() - truth.coef_).max() < 1e-6
    assert np.abs(model.bias.detach().numpy() - truth.intercept_).max() < 1e-6


@pytest.mark.parametrize("logistic_c", [0.01, slow(1.0)])
@pytest.mark.slow
def test_softmax_regression_on_digits(logistic_c):
    X, y = standardised(load_digits, classification=True)
    model = linear(64, 10)
    prior = br.Gaussian(br.logistic_c_to_variance(logistic_c) ** 0.5)
    # The objective's curvature is 1/(nC) at least, so 1e-12 in its gradient is 1e-8 or better in the coefficients.
    fit(model, prior, br.likelihoods.Categorical(), (X, y), "lbfgs", tolerance=1e-12)
    truth = LogisticRegression(C=logistic_c, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(X, y)
    assert np.abs(model.weight.detach().numpy() - truth.coef_).max() < 1e-6
    # Adding a constant to all intercepts changes nothing, so they are compared centred.
    intercept = model.bias.detach().numpy()
    assert np.abs((intercept - intercept.mean()) - (truth.intercept_ - truth.intercept_.mean())).max() < 1e-6


@pytest.mark.parametrize(
    ("loader", "outputs", "logistic_c"),
    [(load_breast_cancer, 1, 1.0), (load_breast_cancer, 1, 0.05), (load_digits, 10, 0.05)],
)
def test_l1_logistic_regression_meets_its_own_optimality_conditions(loader, outputs, logistic_c):
    """scikit-learn's saga is 2e-3 off here, so the KKT conditions are checked, written out by hand."""
    X, y = standardised(loader, classification=True)
    model = linear(X.shape[1], outputs)
    scale = br.logistic_c_to_laplace_scale(logistic_c)
    likelihood = br.likelihoods.Bernoulli() if outputs == 1 else br.likelihoods.Categorical()
    result = fit(model, br.Laplace(scale), likelihood, (X, y), "proximal")

    inputs, target = torch.as_tensor(X), torch.as_tensor(y)
    output = model(inputs)
    if outputs == 1:
        loss = F.binary_cross_entropy_with_logits(output[:, 0], target.double())
    else:
        loss = F.cross_entropy(output, target)
    slope, slope_bias = torch.autograd.grad(loss, [model.weight, model.bias])
    threshold = 1 / (len(y) * scale)
    weight = model.weight.detach()
    off = weight != 0
    assert (slope + threshold * weight.sign())[off].abs().max() <= 1e-9
    assert slope[~off].abs().max() <= threshold + 1e-9
    assert slope_bias.abs().max() <= 1e-9
    assert 0 < result.exact_zeros < 1


@pytest.mark.slow
def test_l1_and_l2_agree_with_the_stochastic_trainer_at_convergence():
    X, y = standardised(load_diabetes)
    truth = Ridge(alpha=10.0).fit(X, y).coef_
    model = linear(10, 1)
    trainer = br.MAPTrainer(
        model, br.Gaussian(br.ridge_alpha_to_variance(10.0, 1.0) ** 0.5), br.likelihoods.Gaussian(1.0),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.2, momentum=0.9), batch_size=len(y), max_epochs=3000,
    )  # fmt: skip
    trainer.fit((X, y))
    assert np.abs(model.weight.detach().numpy()[0] - truth).max() < 1e-8
