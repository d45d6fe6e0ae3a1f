"""Parabolas with norms of groups, and linear layers under a group Laplace prior: KKT conditions, scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import MultiTaskLasso
from torch import nn

import bayesreg as br
from bayesreg.trainer.full_batch.linear import minimise_newton
from bayesreg.trainer.full_batch.linear.grouped import minimise_grouped
from tests.trainer.test_linear import LIKELIHOODS, D, layer, problems, randn

L = br.likelihoods
OUTPUTS = 3


def of_groups(kind, columns):
    shape = (OUTPUTS, columns)
    if kind == "column":
        return np.broadcast_to(np.arange(columns), shape)
    if kind == "row":
        return np.broadcast_to(np.arange(OUTPUTS)[:, None], shape)
    if kind == "alone":
        return np.arange(OUTPUTS * columns).reshape(shape)
    return np.zeros(shape, int)


def violation(hessians, slope, rates, groups, start, x):
    """How far from the KKT conditions, by the group, in plain loops."""
    grad = slope + np.stack([hessians[j if len(hessians) > 1 else 0] @ (x[j] - start[j]) for j in range(OUTPUTS)])
    worst = 0.0
    for g, rate in enumerate(rates):
        inside = groups == g
        norm = np.linalg.norm(x[inside])
        if norm > 0.0:
            worst = max(worst, np.linalg.norm(grad[inside] + rate * x[inside] / norm))
        else:
            worst = max(worst, np.linalg.norm(grad[inside]) - rate)
    return worst


@pytest.mark.parametrize("groups", ["column", "row", "alone", "tensor"])
@pytest.mark.parametrize("columns", [1, 5, 30])
@pytest.mark.parametrize("rows", [3, 20, 200])
@pytest.mark.parametrize("kind", ["plain", "twins", "correlated", "some free", "warm", "one for all"])
def test_the_group_lasso_is_solved_to_the_last_digits(groups, columns, rows, kind):
    rng = np.random.default_rng(columns + rows)
    X = rng.normal(size=(rows, columns))
    if kind == "twins":
        X[:, columns // 2 :] = X[:, : columns - columns // 2]
    if kind == "correlated":
        X += 5.0 * rng.normal(size=(rows, 1))
    weights = np.ones((OUTPUTS, rows)) if kind == "one for all" else rng.random((OUTPUTS, rows)) + 0.1
    Y = X @ rng.normal(size=(columns, OUTPUTS)) + rng.normal(size=(rows, OUTPUTS))
    hessians = np.stack([(X.T * w) @ X / rows for w in weights])
    slope = np.stack([-(X.T * w) @ y / rows for w, y in zip(weights, Y.T, strict=True)])
    hessians = hessians[:1] if kind == "one for all" else hessians
    ids = of_groups(groups, columns)
    count = int(ids.max()) + 1
    steepest = np.sqrt(np.bincount(ids.ravel(), slope.ravel() ** 2, count)).max()
    rates = 0.3 * steepest * (1.0 + 0.5 * rng.random(count))
    if kind == "some free" and rows > columns:
        rates[: count // 3] = 0.0
    start = np.zeros((OUTPUTS, columns))
    if kind == "warm":
        start = rng.normal(size=start.shape) * (rng.random(start.shape) > 0.5)
        slope = slope + np.einsum("kde,ke->kd", hessians, start)
    x = minimise_grouped(hessians, slope, rates, ids, start, 1000)
    assert violation(hessians, slope, rates, ids, start, x) <= 1e-10 * max(1.0, np.abs(slope).max())
    norms = np.sqrt(np.bincount(ids.ravel(), x.ravel() ** 2, count))
    assert (norms[norms > 0.0] > 1e-9).all()


def test_more_than_it_solves_is_left_to_others(monkeypatch):
    monkeypatch.setattr("bayesreg.trainer.full_batch.linear.grouped._LARGEST", 5)
    hessians, slope = np.eye(6)[None], -np.ones((1, 6))
    groups = np.arange(6)[None]
    assert minimise_grouped(hessians, slope, np.full(6, 0.5), groups, np.zeros((1, 6)), 100) is None
    model = nn.Linear(D, 3).double()
    prior = br.GroupLaplace(0.01, group="column")
    solver = br.MAPTrainer(model, prior, L.Gaussian(1.0), optimizer="proximal", progress=False)
    result = solver.fit((randn(40, D, seed=1), randn(40, 3, seed=2)))
    assert result.converged
    assert int((model.weight != 0.0).sum()) == 3 * D


def test_the_group_lasso_is_scikit_learns():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 25)) + 0.5 * rng.normal(size=(60, 1))
    Y = X[:, :4] @ rng.normal(size=(4, OUTPUTS)) + rng.normal(size=(60, OUTPUTS)) + 2.0
    for alpha in (0.05, 0.2, 1.0):
        model = nn.Linear(25, OUTPUTS).double()
        prior = br.GroupLaplace(60 * alpha, group="column")
        trainer = br.MAPTrainer(model, prior, L.Gaussian(1.0), optimizer="proximal", progress=False)
        result = trainer.fit((torch.from_numpy(X), torch.from_numpy(Y)))
        theirs = MultiTaskLasso(alpha=alpha, tol=1e-14, max_iter=10**6).fit(X, Y)
        assert np.allclose(model.weight.detach(), theirs.coef_, atol=1e-8)
        assert np.allclose(model.bias.detach(), theirs.intercept_, atol=1e-8)
        assert np.array_equal(model.weight.detach().numpy() == 0.0, theirs.coef_ == 0.0)
        # Of one Newton step: nothing was left to the generic solver.
        assert [record["iteration"] for record in result.history] == [0, 1]


CENTRE = 0.2 * randn(OUTPUTS, D, seed=21)
GROUPED = {
    "column": br.GroupLaplace(4.0, group="column"),
    "row": br.GroupLaplace(9.0, group="row"),
    "tensor": br.GroupLaplace(9.0, group="tensor"),
    "rates": br.GroupLaplace(torch.tensor([[1.0, 3.0, 30.0, 3.0, 9.0]], dtype=torch.float64), group="column"),
    "centre": br.GroupLaplace(4.0, group="column", loc=CENTRE),
    "biases too": {"weight": br.GroupLaplace(4.0, group="column"), "bias": br.Gaussian(0.5)},
}


@pytest.mark.parametrize("prior", GROUPED)
@pytest.mark.parametrize("likelihood", [name for name in LIKELIHOODS if name != "categorical"])
@pytest.mark.parametrize("weighted", [False, True])
def test_newton_ends_where_the_objective_has_no_slope(prior, likelihood, weighted):
    lik, target = LIKELIHOODS[likelihood]
    weight = randn(40, seed=5).abs() if weighted else None
    ours, theirs = problems(layer(OUTPUTS), GROUPED[prior], lik, target(OUTPUTS), weight)
    flat, residual = minimise_newton(ours, 1e-10, 200, lambda *_: None)
    assert residual <= 1e-10
    assert theirs.residual(flat, theirs.value_and_grad(flat)[1]) <= 2e-10
