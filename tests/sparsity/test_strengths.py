"""Strengths: the one that leaves nothing, those between, against scikit-learn and skglm; and counting zeros."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, lasso_path
from torch import nn

import bayesreg as br
from bayesreg.sparsity.null import _least
from bayesreg.sparsity.shared import SharedFit

NOISE = 0.7


def diabetes():
    X, y = load_diabetes(return_X_y=True)
    X, y = torch.as_tensor(X), torch.as_tensor(y)
    X, y = (X - X.mean(0)) / X.std(0, correction=0), (y - y.mean()) / y.std(correction=0)
    return X, y[:, None]


def linear(inputs, outputs=1, bias=True):
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).double()


def test_null_strength_is_alpha_max():
    X, y = diabetes()
    X, y = X + 1.0, y + 3.0  # the bias must be fitted first
    model, likelihood = linear(10), br.likelihoods.Gaussian(NOISE)
    before = model.weight.detach().clone()
    prior = br.ModelPrior(model, br.Laplace(0.2))
    found = br.sparsity.null_strength(model, prior, likelihood, (X, y))
    expected = 0.2 * (X.T @ (y - y.mean())).abs().max().item() / NOISE**2
    assert found == pytest.approx(expected, rel=1e-12)
    assert torch.equal(model.weight, before)
    assert all(p.requires_grad for p in model.parameters())
    # At it nothing is left, a little below it something is.
    for factor, count in ((1.001, 0), (0.999, 1)):
        here = br.sparsity.with_strength(prior, factor * found)
        br.MAPTrainer(model, here, likelihood, optimizer="proximal", progress=False).fit((X, y))
        assert int((model.weight != 0).sum()) == count


def test_null_strength_of_logistic_regression_is_scikit_learns():
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    model = linear(30)
    prior = br.ModelPrior(model, br.Laplace(1.0))
    data = torch.as_tensor(X), torch.as_tensor(y).double()[:, None]
    found = br.sparsity.null_strength(model, prior, br.likelihoods.Bernoulli(), data)
    expected = abs(X.T @ (y - y.mean())).max()
    assert found == pytest.approx(expected, rel=1e-12)
    for factor, empty in ((1.01, True), (0.99, False)):
        fitted = LogisticRegression(l1_ratio=1.0, C=1.0 / (factor * found), solver="saga", max_iter=20_000, tol=1e-8)
        assert (fitted.fit(X, y).coef_ == 0).all() == empty


def test_null_strength_of_targets_that_are_giants():
    X, y = diabetes()
    for size in (1e-8, 1.0, 1e8, 1e14):
        model, likelihood = linear(10, bias=False), br.likelihoods.Gaussian(1.0)
        found = br.sparsity.null_strength(model, br.ModelPrior(model, br.Laplace(1.0)), likelihood, (X, size * y))
        assert found == pytest.approx(size * float((X.T @ y).abs().max()), rel=1e-9)


class Own(nn.Module):
    """A layer that no solver sees through."""

    def __init__(self):
        super().__init__()
        self.layer = linear(10, 3)

    def forward(self, inputs):
        return self.layer(inputs)


@pytest.mark.parametrize("make", [lambda: linear(10, 3), Own])
def test_null_strength_of_a_softmax_has_its_biases_fitted(make):
    X, y = diabetes()
    X = X + 1.0  # or the biases would not matter
    labels = (y[:, 0] > 0.5).long() + (y[:, 0] > 1.5).long()
    model = make()
    found = br.sparsity.null_strength(
        model, br.ModelPrior(model, br.Laplace(1.0)), br.likelihoods.Categorical(), (X, labels)
    )
    apart = torch.nn.functional.one_hot(labels).double()
    assert found == pytest.approx(float((X.T @ (apart - apart.mean(0))).abs().max()), rel=1e-5)


def test_null_strength_of_groups():
    X, y = diabetes()
    Y = torch.cat([y, y.square(), y.abs()], 1)
    model = linear(10, 3, bias=False)
    prior = br.ModelPrior(model, {"*": br.GroupLaplace(2.0, "column")})
    found = br.sparsity.null_strength(model, prior, br.likelihoods.Gaussian(NOISE), (X, Y))
    assert found == pytest.approx((X.T @ Y / NOISE**2).norm(dim=1).max().item() / 2.0, rel=1e-6)


def test_the_path_is_scikit_learns():
    X, y = diabetes()
    model = linear(10, bias=False)
    prior = br.ModelPrior(model, br.Laplace(1.0))
    path = br.sparsity.regularization_path(
        model, prior, br.likelihoods.Gaussian(NOISE), (X, y), count=12, validation=(X[:100], y[:100]), tolerance=1e-9
    )
    # strength·|w| nats against n·alpha/noise².
    alphas = [point.strength * NOISE**2 / len(X) for point in path]
    _, coefs, _ = lasso_path(X.numpy(), y[:, 0].numpy(), alphas=alphas, tol=1e-12, max_iter=100_000)
    mine = torch.stack([point.weights["weight"][0] for point in path], 1)
    assert torch.allclose(mine, torch.as_tensor(coefs), atol=1e-6)
    assert all(point.converged for point in path)
    assert [p.nonzero for p in path] == (torch.as_tensor(coefs) != 0).sum(0).tolist()
    assert path[0].nonzero == 0
    assert path[-1].nonzero == 10
    assert path.best() is min(path, key=lambda point: point.validation_nll)
    assert "nonzero" in str(path)


def test_the_path_is_drawn():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    X, y = diabetes()
    model = linear(10, bias=False)
    path = br.sparsity.regularization_path(
        model, br.ModelPrior(model, br.Laplace(1.0)), br.likelihoods.Gaussian(NOISE), (X, y), count=4
    )
    left, right = path.plot()
    assert len(left.lines) == 10
    assert right.lines[0].get_ydata().tolist() == [point.nonzero for point in path]
    with pytest.raises(br.InvalidArgumentError, match="expected a path with validation data"):
        path.best()


def test_at_the_null_strength_itself_nothing_moves():
    # To the last bit, whatever the scale: of one a bit below the steepest weight would leave.
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        scale = float(torch.rand((), generator=generator, dtype=torch.float64)) + 0.01
        slope = torch.randn(1, 5, generator=generator, dtype=torch.float64)
        prior = br.Laplace(scale)
        found = _least(prior, torch.zeros(1, 5, dtype=torch.float64), slope)
        assert not (prior.subdiff_distance(torch.zeros_like(slope), slope, found) > 0.0).any()
        assert found == pytest.approx(scale * float(slope.abs().max()), rel=1e-14)


LAPLACE_ABOUT_ONE_HALF = br.Laplace(torch.tensor([[0.1, 1.0, 10.0] * 3 + [1.0]]).double(), loc=0.5)


@pytest.mark.parametrize(
    "prior",
    [br.Gaussian(1.0), br.ElasticNet(l1=1.0, l2=0.5), br.Laplace(1.0), LAPLACE_ABOUT_ONE_HALF],
    ids=["gaussian", "elastic net", "laplace", "laplace, rates and centres"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["gaussian", "bernoulli"])
def test_a_point_of_a_path_is_the_fit_of_its_strength(prior, kind):
    X, y = diabetes()
    y = y if kind == "gaussian" else (y > 0.0).double()
    likelihood = br.likelihoods.Gaussian(NOISE) if kind == "gaussian" else br.likelihoods.Bernoulli()
    # Uneven, one of them twice: a line drawn through two fits helps little, or is none.
    strengths = [1000.0, 300.0, 290.0, 290.0, 20.0, 19.0, 1.0, 0.1]
    model = linear(10)
    ours = br.ModelPrior(model, prior)
    path = br.sparsity.regularization_path(model, ours, likelihood, (X, y), strengths=strengths, tolerance=1e-11)
    for strength, point in zip(strengths, path, strict=True):
        other = linear(10)
        alone = br.sparsity.with_strength(br.ModelPrior(other, prior), strength)
        solver = "lbfgs" if prior.traits.smooth else "proximal"
        fitted = br.MAPTrainer(other, alone, likelihood, optimizer=solver, tolerance=1e-11, progress=False).fit((X, y))
        torch.testing.assert_close(point.weights["weight"], other.weight.detach(), rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(point.weights["bias"], other.bias.detach(), rtol=1e-7, atol=1e-9)
        assert point.mean_nll == pytest.approx(fitted.mean_nll, rel=1e-9)
        assert point.strength == strength
        assert point.converged
        if not prior.traits.smooth:
            resting = point.weights["weight"] == prior.centre()
            assert torch.equal(resting, other.weight == prior.centre())
            assert point.nonzero == int((~resting).sum())


def shared(kind, columns=10):
    X, y = diabetes()
    y = y if kind == "gaussian" else (y > 0.0).double()
    likelihood = br.likelihoods.Gaussian(NOISE) if kind == "gaussian" else br.likelihoods.Bernoulli()
    model = linear(columns)
    nn.init.zeros_(model.weight)
    return SharedFit.of(model, br.ModelPrior(model, br.Laplace(1.0)), likelihood, X[:, :columns], y)


def reached(fits):
    return fits._before[-1][1]


def test_between_two_knots_the_weights_of_a_lasso_are_a_line():
    fits = shared("gaussian")
    for strength in (20.0, 19.9):
        assert fits.fit(strength, 1e-12, 100)
    expected = fits._expected(19.8)
    assert fits.fit(19.8, 1e-12, 100)
    torch.testing.assert_close(expected, reached(fits), rtol=0.0, atol=1e-12)


def test_three_fits_point_to_the_next_better_than_two():
    fits, misses = shared("bernoulli"), {}
    strengths = [1.0, 0.9, 0.81, 0.73]
    for strength in strengths:
        expected = fits._expected(strength)
        assert fits.fit(strength, 1e-12, 100)
        misses[strength] = float((expected - reached(fits)).abs().max())
    assert misses[0.73] < 0.2 * misses[0.81]


def test_a_strength_that_was_fitted_twice_points_nowhere_else():
    once, twice = shared("bernoulli"), shared("bernoulli")
    for strength in (0.9, 0.81):
        assert once.fit(strength, 1e-12, 100)
    for strength in (0.9, 0.9, 0.81):
        assert twice.fit(strength, 1e-12, 100)
    torch.testing.assert_close(twice._expected(0.73), once._expected(0.73), rtol=0.0, atol=1e-9)
    assert twice.fit(0.81, 1e-12, 100)
    assert torch.equal(twice._expected(0.73), reached(twice))


def test_bad_targets_are_refused_by_a_path():
    X, y = diabetes()
    model = linear(10)
    prior = br.ModelPrior(model, br.Laplace(1.0))
    with pytest.raises(br.errors.DataError, match=r"targets in \[0, 1\]"):
        br.sparsity.regularization_path(model, prior, br.likelihoods.Bernoulli(), (X, y), strengths=[1.0])


SHAPED = torch.arange(6.0).reshape(2, 3).double() / 7


@pytest.mark.parametrize("prior", [
    br.Laplace(0.3), br.Gaussian(0.3, loc=0.1), br.ElasticNet(1.0, 2.0), br.GroupLaplace(2.0, "row"), br.MCP(1.0, 2.0),
    br.SCAD(1.0, knee=0.2), br.L0(0.4), br.GeneralizedNormal(0.5, 0.3), br.GeneralizedNormal(3.0, 0.3),
    br.MultivariateGaussian(0.5 * torch.eye(3).double()),
    br.MatrixGaussian(torch.eye(2).double(), 0.5 * torch.eye(3).double()),
    br.LowRankGaussian(0.5, torch.ones(2, 3, 1).double()),
], ids=lambda p: p.family)  # fmt: skip
@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_every_penalty_is_multiplied(prior, factor):
    model = nn.Linear(3, 2, bias=False).double()
    model.weight = nn.Parameter(SHAPED.clone())
    held = br.ModelPrior(model, {"*": prior})
    changed = br.sparsity.with_strength(held, factor)
    assert changed.penalty().item() == pytest.approx(factor * held.penalty().item(), rel=1e-9)
    assert changed.notes[-1] == f"All penalties times {factor:g}."


def test_what_does_not_stay_in_its_family_is_refused():
    model = nn.Linear(3, 2)
    with pytest.raises(br.UnsupportedError, match=r"weight: expected a prior that stays in its family .* got StudentT"):
        br.sparsity.with_strength(br.ModelPrior(model, br.StudentT(4.0, 0.1)), 2.0)
    with pytest.raises(br.InvalidArgumentError, match="factor: expected a value > 0"):
        br.sparsity.with_strength(br.ModelPrior(model, br.Laplace(1.0)), -1.0)
    with pytest.raises(br.InvalidArgumentError, match=r"prior: expected a br\.ModelPrior"):
        br.sparsity.with_strength(br.Laplace(1.0), 1.0)


def test_strengths_that_mean_nothing_are_refused():
    X, y = diabetes()
    model, likelihood = linear(10, bias=False), br.likelihoods.Gaussian(NOISE)
    before = model.weight.detach().clone()
    for prior, error, message in (
        (br.Gaussian(1.0), br.InvalidArgumentError, "expected one with a kink"),
        (br.L0(1.0), br.UnsupportedError, "local mode at every strength"),
        (br.GeneralizedNormal(0.5, 1.0), br.UnsupportedError, "local mode at every strength"),
    ):
        with pytest.raises(error, match=message):
            br.sparsity.null_strength(model, br.ModelPrior(model, prior), likelihood, (X, y))
        assert torch.equal(model.weight, before)
    with pytest.raises(br.InvalidArgumentError, match="floor: expected a number in"):
        br.sparsity.regularization_path(model, br.ModelPrior(model, br.Laplace(1.0)), likelihood, (X, y), floor=2.0)


def test_zeros_are_counted_where_the_kink_is():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    centre = torch.full((2, 3), 0.5)
    with torch.no_grad():
        model[0].weight[0] = 0.0
        model[0].weight[1, 0] = 0.0
        model[1].weight.copy_(centre)
        model[1].weight[0, 0] = 0.7
    prior = br.ModelPrior(model, {
        "0.weight": br.GroupLaplace(1.0, "row"), "1.weight": br.Laplace(1.0, loc=centre), "*": br.Gaussian(1.0)
    })  # fmt: skip
    table = br.sparsity.zeros(prior)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["0.weight"] == (12, 4, 4 / 12, "1 of 3")
    assert rows["1.weight"] == (6, 5, 5 / 6, None)
    assert table.notes == ("9 of 18 elements, 50 %.",)
    assert br.sparsity.zeros(br.ModelPrior(model, br.Gaussian(1.0))).notes == ("No prior here has a kink.",)
    assert math.isclose(sum(r[2] for r in table.rows), 9)
    with pytest.raises(br.InvalidArgumentError, match=r"expected a br\.ModelPrior"):
        br.sparsity.zeros(br.Laplace(1.0))


def test_a_prior_of_another_model_changes_nothing():
    X, y = diabetes()
    model, other = linear(10), linear(10)
    prior, noise = br.ModelPrior(model, br.Laplace(0.2)), br.likelihoods.Gaussian(NOISE)
    before = model.weight.detach().clone()
    for call in (br.sparsity.null_strength, br.sparsity.regularization_path):
        with pytest.raises(br.CoverageError):
            call(other, prior, noise, (X, y))
        with pytest.raises(br.InvalidArgumentError, match="expected a ModelPrior"):
            call(model, br.Laplace(0.2), noise, (X, y))
        with pytest.raises(br.DataError, match="as many targets as inputs"):
            call(model, prior, noise, (X, y[:5]))
    horseshoe = br.ModelPrior(model, br.Horseshoe(0.1, "centered"))
    with pytest.raises(br.UnsupportedError, match="stays in its family"):
        br.sparsity.regularization_path(model, horseshoe, noise, (X, y))
    assert torch.equal(model.weight, before)
    assert all(p.requires_grad for p in model.parameters())
    # Single precision data on a model in double precision is no obstacle.
    assert br.sparsity.null_strength(model.train(), prior, noise, (X.float(), y.float())) > 0
    assert model.training


def test_groups_inside_a_product_are_counted():
    model = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight[0] = 0.0
        model.weight[1, 0] = 0.0
    prior = br.ModelPrior(model, br.Product([br.GroupLaplace(1.0), br.Laplace(1.0)]))
    assert "1 of 2" in str(br.sparsity.zeros(prior))
    assert "4 of 6 elements" in str(br.sparsity.zeros(prior))
