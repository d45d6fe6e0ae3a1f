"""One linear layer: closed derivatives against autograd, its minimum against the generic solvers and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet, Lasso
from torch import nn

import bayesreg as br
from bayesreg.data import Batch, BatchFormat, Counting, Reading
from bayesreg.data.scaling import Standardize, Unstandardize
from bayesreg.trainer.full_batch.linear import Blocks, LinearProblem, blocks, linear_view, minimise_newton
from bayesreg.trainer.full_batch.linear.lasso import minimise_lasso
from bayesreg.trainer.full_batch.problem import FullBatchProblem

L = br.likelihoods
N, D = 40, 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def layer(outputs=1, bias=True, seed=0):
    made = nn.Linear(D, outputs, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        for number, p in enumerate(made.parameters()):
            p.copy_(0.5 * randn(*p.shape, seed=seed + number))
    return made


LIKELIHOODS = {
    "gaussian": (L.Gaussian(0.7), lambda k: randn(N, k, seed=3)),
    "learned": (L.Gaussian("learned"), lambda k: randn(N, k, seed=3)),
    "learned, prior": (
        L.Gaussian("learned", prior=br.hyperpriors.HalfNormal(2.0)),
        lambda k: randn(N, k, seed=3),
    ),
    "student": (L.StudentT(3.0, 0.7), lambda k: randn(N, k, seed=3)),
    "bernoulli": (L.Bernoulli(), lambda k: (randn(N, k, seed=3) > 0).double()),
    "poisson": (L.Poisson(), lambda k: torch.poisson(torch.ones(N, k, dtype=torch.float64), generator=generator())),
    "categorical": (L.Categorical(), lambda k: torch.randint(0, k, (N,), generator=generator())),
}
PRIORS = {
    "gaussian": br.Gaussian(0.5),
    "centred": br.Gaussian(0.5, loc=0.3),
    "student": br.StudentT(df=3.0, scale=0.3),
    "laplace": br.Laplace(0.3, loc=0.1),
    "net": br.ElasticNet(l1=2.0, l2=3.0),
    "group": br.GroupLaplace(2.0, group="column"),
    "biases too": {"*": br.Gaussian(0.5)},
    "flat": br.Flat(),
}


def problems(model, prior, likelihood, target, weight=None, inputs=None):
    """The same objective twice: with closed derivatives and with autograd's."""
    own = br.ModelPrior(model, prior)
    factor = 1.0 if weight is None else 0.5
    reading = Reading(likelihood, BatchFormat(), None, Counting(None, factor=factor))
    rows = randn(N, D, seed=9) if inputs is None else inputs
    cut = None if weight is None else weight[:15], None if weight is None else weight[15:]
    batches = [Batch(rows[:15], target[:15], cut[0]), Batch(rows[15:], target[15:], cut[1])]
    view = linear_view(model.eval(), own, reading, batches)
    assert view is not None
    objective = (model, own, reading, batches, br.LossScale(0.02))
    return LinearProblem(view, *objective), FullBatchProblem(*objective)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(("outputs", "bias", "weighted"), [(1, True, False), (3, False, True), (3, True, True)])
def test_value_gradient_and_hessian_are_those_of_autograd(prior, likelihood, outputs, bias, weighted):
    lik, target = LIKELIHOODS[likelihood]
    if likelihood == "categorical" and outputs == 1:
        pytest.skip("a softmax has several outputs")
    if prior == "biases too" and not bias:
        pytest.skip("no biases")
    weight = randn(N, seed=5).abs() if weighted else None
    ours, theirs = problems(layer(outputs, bias), PRIORS[prior], lik, target(outputs), weight)
    flat = 0.4 * randn(len(theirs.get()), seed=11)
    value, grad = ours.value_and_grad(flat)
    expected, slope = theirs.value_and_grad(flat)
    assert value == pytest.approx(expected, rel=1e-12)
    assert torch.allclose(grad, slope, rtol=1e-11, atol=1e-13)
    assert ours.value(flat) == pytest.approx(theirs.value(flat), rel=1e-12)
    assert ours.residual(flat, grad) == pytest.approx(theirs.residual(flat, slope), rel=1e-9)
    assert ours.kinked_value(flat) == pytest.approx(theirs.kinked_value(flat), rel=1e-12)
    # Each weight alone, on its kink or off it, a slope beside it that is within its rate or beyond.
    resting = theirs.inside(torch.zeros_like(flat)) if prior == "group" else torch.full_like(flat, 0.1)
    for at in range(0, len(flat), 3):
        one = torch.zeros_like(slope)
        one[at] = slope[at] * 10.0 ** (at % 4 - 2)
        for place in (flat, resting, 0.0 * flat):
            assert ours.residual(place, one) == pytest.approx(theirs.residual(place, one), rel=1e-9, abs=1e-15)
    way = randn(len(flat), seed=12)
    if ours.at_own is not None:
        way[ours.at_own] = 0.0
    image, wanted = ours.hessian_times(flat, way), theirs.hessian_times(flat, way)
    if ours.at_own is not None:
        image[ours.at_own] = wanted[ours.at_own] = 0.0
    assert torch.allclose(image, wanted, rtol=1e-9, atol=1e-12)


def test_classes_that_do_not_count_have_no_slope():
    target = torch.randint(0, 3, (N,), generator=generator())
    target[::4] = -1
    ours, theirs = problems(layer(3), br.Gaussian(1.0), L.Categorical(ignore_index=-1), target)
    flat = randn(18, seed=2)
    assert torch.allclose(ours.value_and_grad(flat)[1], theirs.value_and_grad(flat)[1], atol=1e-14)
    way = randn(18, seed=3)
    assert torch.allclose(ours.hessian_times(flat, way), theirs.hessian_times(flat, way), atol=1e-14)


def test_layers_that_standardise_are_seen_through():
    rows = 3.0 + 2.0 * randn(N, D, seed=9)
    target = 50.0 + 20.0 * randn(N, 1, seed=3)
    model = nn.Sequential(Standardize(rows), layer(), Unstandardize(target)).double()
    ours, theirs = problems(model, br.Gaussian(0.5), L.Gaussian(10.0), target, inputs=rows)
    flat = randn(D + 1, seed=2)
    value, grad = ours.value_and_grad(flat)
    expected, slope = theirs.value_and_grad(flat)
    assert value == pytest.approx(expected, rel=1e-12)
    assert torch.allclose(grad, slope, rtol=1e-11, atol=1e-13)
    way = randn(D + 1, seed=4)
    assert torch.allclose(ours.hessian_times(flat, way), theirs.hessian_times(flat, way), rtol=1e-10)


class Own(nn.Linear):
    def forward(self, x):
        return super().forward(x) ** 3


@pytest.mark.parametrize(
    "model",
    [
        Own(D, 1),
        nn.Sequential(nn.Linear(D, 2), nn.Linear(2, 1)),
        nn.Sequential(nn.Linear(D, 1), nn.Tanh()),
        nn.Sequential(nn.Linear(D, 1), nn.Flatten(0)),
        nn.utils.parametrizations.weight_norm(nn.Linear(D, 1)),
    ],
)
def test_other_models_are_not_taken_for_a_layer(model):
    model = model.double()
    prior = br.ModelPrior(model, {"*": br.Gaussian(1.0)})
    batch = Batch(randn(N, D), randn(N, 1))
    assert linear_view(model, prior, Reading(L.Gaussian(1.0)), [batch]) is None


@pytest.mark.parametrize("kind", ["hook", "frozen bias", "output", "joint", "loss", "ids"])
def test_what_a_layer_may_not_have(kind):
    model, likelihood, batch = layer(), L.Gaussian(1.0), Batch(randn(N, D), randn(N, 1))
    pick = None
    if kind == "hook":
        model.register_forward_hook(lambda module, x, y: 2.0 * y)
    if kind == "frozen bias":
        model.bias.requires_grad_(False)
    if kind == "output":
        pick = lambda output: 2.0 * output  # noqa: E731
    if kind == "loss":
        likelihood = L.FromLoss(nn.L1Loss())
    if kind == "ids":
        batch = Batch(torch.zeros(N, D, dtype=torch.long), randn(N, 1))
    rules = {"*": br.Gaussian(1.0)}
    if kind == "joint":
        rules = {"*": br.HierarchicalGaussian(br.hyperpriors.InverseGamma(2.0, 0.5))}
    prior = br.ModelPrior(model, rules)
    reading = Reading(likelihood, pick=pick)
    found = linear_view(model, prior, reading, [batch])
    # The hierarchy over both parameters may be one density for each; a layer is seen then.
    assert found is None or kind == "joint"


def test_a_head_on_frozen_features_is_a_layer():
    body = nn.Sequential(nn.Linear(D, 7), nn.Tanh()).double()
    for p in body.parameters():
        p.requires_grad_(False)
    model = nn.Sequential(body, nn.Linear(7, 1, dtype=torch.float64))
    batch = Batch(randn(N, D), randn(N, 1))
    view = linear_view(model, br.ModelPrior(model, br.Gaussian(1.0)), Reading(L.Gaussian(1.0)), [batch])
    assert view is not None
    assert torch.equal(view.features, body(batch.inputs))


# -- the minimum ---------------------------------------------------------------------------------------


def test_the_weights_are_where_it_is_and_it_is_where_the_weights_are():
    """Several starts are written into the model, past the problem."""
    model = layer()
    ours, _ = problems(model, br.Laplace(0.3), *(LIKELIHOODS["gaussian"][0], LIKELIHOODS["gaussian"][1](1)))
    flat = randn(D + 1, seed=2)
    ours.value_and_grad(flat)
    assert torch.equal(model.weight.detach().reshape(-1), flat[ours.at_weight])
    with torch.no_grad():
        model.weight.fill_(3.0)
    assert torch.equal(ours.get()[ours.at_weight], torch.full((D,), 3.0, dtype=torch.float64))


@pytest.mark.parametrize("prior", ["gaussian", "centred", "student", "laplace", "net", "biases too"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_newton_ends_where_the_objective_has_no_slope(prior, likelihood):
    lik, target = LIKELIHOODS[likelihood]
    outputs = 3 if likelihood == "categorical" else 1
    kinked = prior in ("laplace", "net")
    ours, theirs = problems(layer(outputs), PRIORS[prior], lik, target(outputs))
    flat, residual = minimise_newton(ours, 1e-10, 200, lambda *_: None)
    if kinked and outputs > 1:
        # L1 terms on outputs that meet are the generic solver's.
        assert residual == float("inf")
        return
    assert residual <= 1e-10
    assert theirs.residual(flat, theirs.value_and_grad(flat)[1]) <= 2e-10


@pytest.mark.parametrize("prior", [br.Gaussian(0.5), br.Laplace(0.2), br.GroupLaplace(4.0, group="column")])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "categorical"])
def test_the_trainer_ends_where_it_ends_without_seeing_the_layer(prior, likelihood, monkeypatch):
    lik, target = LIKELIHOODS[likelihood]
    outputs = 3 if likelihood == "categorical" else 1

    def fitted():
        model = layer(outputs)
        solver = "lbfgs" if prior.traits.smooth else "proximal"
        result = br.MAPTrainer(model, prior, lik, optimizer=solver, progress=False).fit((
            randn(N, D, seed=9),
            target(outputs),
        ))
        assert result.converged
        return model, result

    seen, result = fitted()
    monkeypatch.setattr("bayesreg.trainer.solve.linear_view", lambda *_: None)
    plain, other = fitted()
    assert torch.allclose(seen.weight, plain.weight, atol=1e-7)
    assert torch.equal(seen.weight == 0.0, plain.weight == 0.0)
    assert result.objective == pytest.approx(other.objective, abs=1e-10)


def test_many_features_and_few_examples():
    torch.manual_seed(0)
    X, y = randn(20, 3100, seed=1), randn(20, 1, seed=2)
    model = nn.Linear(3100, 1, dtype=torch.float64)
    result = br.MAPTrainer(model, br.Gaussian(0.5), L.Gaussian(1.0), optimizer="lbfgs", progress=False).fit((X, y))
    assert result.converged
    Xc, yc = (X - X.mean(0)).numpy(), (y - y.mean()).numpy()
    expected = Xc.T @ np.linalg.solve(Xc @ Xc.T + 4.0 * np.eye(20), yc)
    assert np.allclose(model.weight.detach().numpy(), expected.T, atol=1e-9)


WIDE = {
    "gaussian": br.Gaussian(0.5),
    "centred": br.Gaussian(0.5, loc=0.3),
    "by weight": br.Gaussian(torch.linspace(0.2, 2.0, 400, dtype=torch.float64)),
    "biases too": {"*": br.Gaussian(0.5)},
}


def wide(prior, likelihood, outputs, columns=400, bias=True, weight=None):
    made = nn.Linear(columns, outputs, bias=bias, dtype=torch.float64)
    lik, target = LIKELIHOODS[likelihood]
    inputs = randn(N, columns, seed=9) + 3.0
    return problems(made, prior, lik, target(outputs), weight, inputs)[0]


@pytest.mark.parametrize("prior", WIDE)
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "poisson", "categorical"])
@pytest.mark.parametrize(("bias", "weighted"), [(True, False), (False, True), (True, True)])
def test_few_examples_of_many_features_are_solved_by_the_examples(prior, likelihood, bias, weighted):
    if prior == "biases too" and not bias:
        pytest.skip("no biases")
    outputs = 3 if likelihood in ("categorical", "gaussian") else 1
    ours = wide(WIDE[prior], likelihood, outputs, bias=bias, weight=randn(N, seed=5).abs() if weighted else None)
    flat, goal = 0.1 * randn(len(ours.get()), seed=11), randn(len(ours.get()), seed=12)
    small, large = Blocks(ours), Blocks(ours)
    assert small.few
    large.few = False
    assert small._few_rows(1.0, ours.matrix(ours.curvature(flat)), None) is not None
    (by_rows, exact), (by_columns, also) = small.solver(flat), large.solver(flat)
    assert exact is also
    assert torch.allclose(by_rows(goal), by_columns(goal), rtol=1e-8, atol=1e-10)
    _, residual = minimise_newton(ours, 1e-10, 100, lambda *_: None)
    assert residual <= 1e-10


def test_where_the_prior_hardly_counts_they_are_solved_by_the_features():
    ours = wide(br.Gaussian(1e5), "gaussian", 1)
    alone = ours.matrix(ours.curvature(ours.get()))
    assert Blocks(ours)._few_rows(1.0, alone, None) is None
    assert Blocks(ours)._few_rows(1.0, 0.0 * alone, None) is None
    assert not Blocks(wide(br.Gaussian(1.0), "gaussian", 1, columns=79)).few
    # Half of the digits leave room for a strong prior only.
    model, rows = nn.Linear(400, 1), randn(N, 400, seed=9).float()
    for scale, by_rows in ((1.0, False), (0.01, True)):
        single, _ = problems(model, br.Gaussian(scale), L.Gaussian(1.0), randn(N, 1, seed=3).float(), inputs=rows)
        alone = single.matrix(single.curvature(single.get()))
        assert (Blocks(single)._few_rows(1.0, alone, None) is not None) is by_rows
    _, residual = minimise_newton(ours, 1e-10, 100, lambda *_: None)
    assert residual <= 1e-10


def test_more_features_than_a_matrix_of_them_takes_need_no_rounds():
    ours = wide(br.Gaussian(0.5), "bernoulli", 1, columns=3100)
    steps = []
    _, residual = minimise_newton(ours, 1e-10, 100, lambda done, *_: steps.append(done))
    assert Blocks(ours).solver(ours.get())[1]
    assert residual <= 1e-10
    assert steps[-1] <= 12


@pytest.mark.parametrize("few", [True, False])
def test_an_offset_of_the_features_costs_no_digits(few, monkeypatch):
    if not few:
        monkeypatch.setattr(blocks, "_SMALL", 0)
    X = 1e6 + randn(N, D, seed=1)
    y = X @ randn(D, 1, seed=2)
    model = layer()
    # The gradient itself is a sum of numbers of 1e6, with the rounding of those; the weights have none of it.
    trainer = br.MAPTrainer(model, br.Gaussian(10.0), L.Gaussian(1.0), optimizer="lbfgs", progress=False)
    with pytest.warns(RuntimeWarning, match="stopped at a KKT residual"):
        trainer.fit((X, y))
    Xc, yc = X - X.mean(0), y - y.mean()
    expected = torch.linalg.solve(Xc.T @ Xc + torch.eye(D, dtype=torch.float64) / 100.0, Xc.T @ yc)
    assert torch.allclose(model.weight.T, expected, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("likelihood", ["bernoulli", "poisson"])
@pytest.mark.parametrize(("outputs", "bias"), [(1, True), (3, False), (3, True)])
def test_sums_of_few_features_are_those_of_many(likelihood, outputs, bias, monkeypatch):
    lik, target = LIKELIHOODS[likelihood]
    ours, _ = problems(layer(outputs, bias), br.Laplace(0.3), lik, target(outputs), randn(N, seed=5).abs())
    weights = ours.local(ours.get()).diagonal
    few = Blocks(ours)._sums(weights)
    monkeypatch.setattr(blocks, "_SMALL", 0)
    for own, others in zip(few, Blocks(ours)._sums(weights), strict=True):
        assert own.shape == others.shape
        assert own.dtype == others.dtype
        assert torch.allclose(own, others, rtol=1e-12, atol=1e-15)


def test_bad_targets_are_refused_before_the_first_step():
    target = (randn(N, 1, seed=3) > 0).double()
    target[7] = 2.0
    model = layer()
    before = model.weight.detach().clone()
    trainer = br.MAPTrainer(model, br.Laplace(1.0), L.Bernoulli(), optimizer="proximal", progress=False)
    with pytest.raises(br.errors.DataError, match=r"targets in \[0, 1\]"):
        trainer.fit((randn(N, D, seed=9), target))
    assert torch.equal(model.weight, before)


def test_float32_goes_as_far_as_it_can():
    X, y = randn(N, D, seed=1).float(), randn(N, 1, seed=2).float()
    for prior, solver in ((br.Gaussian(0.5), "lbfgs"), (br.Laplace(0.2), "proximal")):
        model = layer().float()
        result = br.MAPTrainer(model, prior, L.Gaussian(1.0), optimizer=solver, progress=False).fit((X, y))
        assert model.weight.dtype == torch.float32
        assert result.converged
        assert result.kkt_residual < 1e-5


# -- parabolas with L1 terms ---------------------------------------------------------------------------


def kkt(hessian, slope, rates, start, x):
    grad = slope + hessian @ (x - start)
    return np.where(x != 0.0, np.abs(grad + rates * np.sign(x)), np.maximum(np.abs(grad) - rates, 0.0)).max()


@pytest.mark.parametrize("columns", [1, 4, 12, 60])
@pytest.mark.parametrize("rows", [3, 20, 200])
@pytest.mark.parametrize("kind", ["plain", "twins", "correlated", "some free", "warm"])
def test_the_lasso_is_solved_to_the_last_digits(columns, rows, kind):
    rng = np.random.default_rng(columns + rows)
    X = rng.normal(size=(rows, columns))
    if kind == "twins":
        X[:, columns // 2 :] = X[:, : columns - columns // 2]
    if kind == "correlated":
        X += 5.0 * rng.normal(size=(rows, 1))
    y = X @ rng.normal(size=columns) + rng.normal(size=rows)
    hessian, slope = X.T @ X / rows, -X.T @ y / rows
    rates = np.full(columns, 0.2 * np.abs(slope).max())
    if kind == "some free" and rows > columns:
        rates[: columns // 3] = 0.0
    start = np.zeros(columns)
    if kind == "warm":
        start = rng.normal(size=columns) * (rng.random(columns) > 0.5)
        slope = slope + hessian @ start
    x = minimise_lasso(hessian, slope, rates, start, 1000)
    assert kkt(hessian, slope, rates, start, x) <= 1e-11 * max(1.0, np.abs(slope).max())
    inside = np.abs(slope + hessian @ (x - start)) < rates * (1.0 - 1e-6)
    assert (x[inside] == 0.0).all()


def test_what_comes_to_rest_is_exactly_zero():
    # Steps to a sign's turn may end a denormal beside 0.
    for seed in range(850, 900):
        rng = np.random.default_rng(seed)
        columns, rows = rng.integers(2, 15), rng.integers(3, 40)
        X = rng.normal(size=(rows, columns)) + rng.normal(size=(rows, 1))
        slope = -X.T @ (X @ rng.normal(size=columns) + rng.normal(size=rows)) / rows
        hessian, rates = X.T @ X / rows, np.full(columns, 0.3 * np.abs(slope).max())
        start = rng.normal(size=columns)
        x = minimise_lasso(hessian, slope + hessian @ start, rates, start, 1000)
        assert (np.abs(x[x != 0.0]) > 1e-12).all()


@pytest.mark.parametrize("prior", [br.Gaussian(0.5), br.Laplace(0.05), br.ElasticNet(l1=20.0, l2=3.0)])
@pytest.mark.parametrize("rules", [False, True])
def test_a_parabola_takes_one_step_wherever_its_features_are(prior, rules):
    given = {"weight": prior, "bias": br.Gaussian(2.0)} if rules else prior
    model = layer()
    solver = "lbfgs" if prior.traits.smooth else "proximal"
    trainer = br.MAPTrainer(model, given, L.Gaussian(1.0), optimizer=solver, progress=False)
    features = 5.0 + randn(N, D, seed=1)
    result = trainer.fit((features, 3.0 * features[:, :1] + randn(N, 1, seed=2)))
    assert float(model.weight.detach()[0, 0]) > 1.0
    assert [record["iteration"] for record in result.history] == [0, 1]
    assert result.kkt_residual < 1e-11


def test_the_lasso_is_scikit_learns():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 20)) + rng.normal(size=(50, 1))
    X -= X.mean(0)
    y = X[:, :4] @ [3.0, -2.0, 1.0, 0.5] + rng.normal(size=50)
    hessian, slope = X.T @ X / 50, -X.T @ y / 50
    for rate in (0.01, 0.1, 1.0):
        x = minimise_lasso(hessian, slope, np.full(20, rate), np.zeros(20), 1000)
        expected = Lasso(alpha=rate, fit_intercept=False, tol=1e-14, max_iter=10**6).fit(X, y).coef_
        assert np.allclose(x, expected, atol=1e-9)
        assert np.array_equal(x == 0.0, expected == 0.0)
        net = minimise_lasso(hessian + 0.5 * rate * np.eye(20), slope, np.full(20, 0.5 * rate), np.zeros(20), 1000)
        expected = ElasticNet(alpha=rate, fit_intercept=False, tol=1e-14, max_iter=10**6).fit(X, y).coef_
        assert np.allclose(net, expected, atol=1e-9)
