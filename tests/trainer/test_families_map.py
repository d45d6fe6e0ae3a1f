"""MAP estimates under every family: convex ones against scikit-learn and skglm, the others against SciPy's modes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.linear_model import ElasticNet, MultiTaskLasso
from torch import nn

import bayesreg as br
from tests.trainer.test_against_sklearn import fit, linear, standardised


@pytest.mark.parametrize(("elastic_alpha", "l1_ratio"), [(0.01, 0.5), (0.1, 0.9), (0.3, 0.1)])
@pytest.mark.parametrize("noise_std", [0.5, 2.0])
def test_elastic_net_on_diabetes(elastic_alpha, l1_ratio, noise_std):
    X, y = standardised(load_diabetes)
    model = linear(10, 1)
    l1, l2 = br.sklearn_to_elastic_net_rates(elastic_alpha, l1_ratio, len(y), noise_std)
    fit(model, br.ElasticNet(l1, l2), br.likelihoods.Gaussian(noise_std), (X, y), "proximal")
    coef = model.weight.detach().numpy()[0]
    one = ElasticNet(alpha=elastic_alpha, l1_ratio=l1_ratio, tol=1e-14, max_iter=1_000_000).fit(X, y)
    assert np.abs(coef - one.coef_).max() < 1e-6
    assert np.array_equal(coef == 0, one.coef_ == 0)


# skglm compiles its solvers for ten seconds each.
@pytest.mark.slow
def test_elastic_net_logistic_regression_on_breast_cancer():
    X, y = standardised(load_breast_cancer, classification=True)
    model, n = linear(30, 1), len(y)
    prior = br.ElasticNet.from_penalties(0.02, 0.01, n)
    fit(model, prior, br.likelihoods.Bernoulli(), (X, y.astype(float)), "proximal")
    import skglm

    truth = skglm.GeneralizedLinearEstimator(
        datafit=skglm.datafits.Logistic(),
        penalty=skglm.penalties.L1_plus_L2(0.03, 2 / 3),
        solver=skglm.solvers.ProxNewton(tol=1e-13, fit_intercept=True, max_iter=500),
    ).fit(np.asfortranarray(X), 2 * y - 1)
    coef = model.weight.detach().numpy()[0]
    assert np.abs(coef - truth.coef_.ravel()).max() < 1e-6
    assert np.array_equal(coef == 0, truth.coef_.ravel() == 0)
    assert 0.2 < (coef == 0).mean() < 0.9


class Grouped(nn.Module):
    """A linear model whose weights are held as one row per group of neighbouring inputs."""

    def __init__(self, groups: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(groups, size, dtype=torch.float64))

    def forward(self, x):
        return x @ self.weight.reshape(-1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("group_alpha", [0.02, 0.2, 0.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_group_lasso_on_diabetes(group_alpha, weighted):
    X, y = standardised(load_diabetes)
    noise_std, n = 0.8, len(y)
    weights = np.array([1.0, 0.5, 2.0, 1.0, 1.5]) if weighted else np.ones(5)
    rate = torch.tensor(n * group_alpha / noise_std**2 * weights)[:, None]
    model = Grouped(5, 2)
    fit(model, br.GroupLaplace(rate, "row"), br.likelihoods.Gaussian(noise_std), (X, y), "proximal")
    import skglm

    truth = skglm.GroupLasso(groups=2, alpha=group_alpha, weights=weights, tol=1e-13, fit_intercept=False).fit(X, y)
    coef = model.weight.detach().numpy().ravel()
    assert np.abs(coef - truth.coef_).max() < 1e-6
    assert np.array_equal(coef == 0, truth.coef_ == 0)


@pytest.mark.parametrize("task_alpha", [0.05, 0.15])
def test_columns_that_vanish_are_the_multi_task_lasso(task_alpha):
    X, labels = standardised(load_digits, classification=True)
    keep = X.std(0) > 0
    X, Y = X[:, keep], np.eye(10)[labels]
    Y = (Y - Y.mean(0)) / Y.std(0)
    model = linear(X.shape[1], 10)
    rate = len(X) * task_alpha / 0.7**2
    fit(model, br.GroupLaplace(rate, "column"), br.likelihoods.Gaussian(0.7), (X, Y), "proximal")
    truth = MultiTaskLasso(alpha=task_alpha, tol=1e-13, max_iter=100_000).fit(X, Y)
    coef = model.weight.detach().numpy()
    assert np.abs(coef - truth.coef_).max() < 1e-6
    assert np.array_equal(coef == 0, truth.coef_ == 0)
    assert 0 < (coef == 0).mean() < 1


SPD = torch.tensor([[1.0, 0.4], [0.4, 2.0]], dtype=torch.float64)
EVERY = {
    "gaussian": br.Gaussian(0.5), "laplace": br.Laplace(0.5), "flat": br.Flat(), "elastic net": br.ElasticNet(2.0, 3.0),
    "student": br.StudentT(4.0, 0.5), "cauchy": br.Cauchy(0.5), "normal-gamma": br.NormalGamma(2.0, 0.5),
    "logistic": br.Logistic(0.3),
    "power 0.5": br.GeneralizedNormal(0.5, 0.3), "power 3": br.GeneralizedNormal(3.0, 0.5),
    "mixture": br.ScaleMixture.spike_and_slab(0.1, 2.0), "groups": br.GroupLaplace(2.0, "column"),
    "bounds": br.Uniform(-0.5, 0.5), "multivariate": br.MultivariateGaussian(torch.block_diag(SPD, SPD)),
    "matrix": br.MatrixGaussian(SPD, torch.block_diag(SPD, SPD)), "fan-in": br.FanInGaussian.he(),
    "low rank": br.LowRankGaussian(0.3, torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(2, 4, 2)),
    "r2d2": br.R2D2(2.0, 3.0),
    "distribution": br.FromDistribution(torch.distributions.StudentT(4.0, 0.0, 0.5)),
}  # fmt: skip


def iris():
    X, y = standardised(load_iris, classification=True)
    # Not separable: the optimum exists without any prior, too.
    return X, (y == 1).astype(int)


@pytest.mark.parametrize("family", EVERY)
def test_every_family_trains_to_optimality(family):
    model = linear(4, 2)
    solver = "lbfgs" if EVERY[family].traits.smooth else "proximal"
    result = fit(model, EVERY[family], br.likelihoods.Categorical(), iris(), solver)
    prior = br.ModelPrior(model, EVERY[family])
    X, y = iris()
    loss = torch.nn.functional.cross_entropy(model(torch.as_tensor(X)), torch.as_tensor(y))
    model.zero_grad()
    loss.backward()
    distance = prior["weight"].subdiff_distance(model.weight.detach(), model.weight.grad, 1 / len(y))
    assert distance.max() < 1e-8
    assert result.objective == pytest.approx(
        loss.item() + prior["weight"].penalty(model.weight).item() / len(y), rel=1e-9
    )


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_every_family_trains_by_epochs(family, optimizer):
    model = linear(4, 2)
    trainer = br.MAPTrainer(
        model, EVERY[family], br.likelihoods.Categorical(), optimizer=lambda groups: optimizer(groups, lr=0.02),
        max_epochs=5, progress=False, cpu=True,
    )  # fmt: skip
    result = trainer.fit(iris())
    objectives = result.history.column("running_objective")
    assert objectives[-1] < objectives[0]
    assert result.routes.rows


# -- priors with several modes --------------------------------------------------------------------------


def student_penalty(w):
    return (0.5 + 1.0) * np.log1p(w**2 / (2.0 * 0.005**2)).sum()


def mixture_penalty(w):
    parts = np.stack([np.log(0.5 / s) - w**2 / (2 * s**2) for s in (0.01, 0.3)])
    return -scipy.special.logsumexp(parts, axis=0).sum()


CASES = {
    "student": (br.StudentT(2.0, 0.005), student_penalty, 0.7, 1),
    "mixture": (br.ScaleMixture.spike_and_slab(0.01, 0.3), mixture_penalty, 0.7, 11),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_modes_on_diabetes_are_scipys(case):
    prior, penalty, noise_std, at_least = CASES[case]
    X, y = standardised(load_diabetes)
    n = len(y)

    def objective(w):
        return (np.square(y - X @ w).sum() / (2 * noise_std**2) + penalty(w)) / n

    model = nn.Linear(10, 1, bias=False).double()
    trainer = br.MAPTrainer(
        model, prior, br.likelihoods.Gaussian(noise_std), optimizer="lbfgs", starts=60, progress=False
    )
    result = trainer.fit((X, y))
    assert result.converged
    assert len(result.modes) >= at_least
    found = [objective(point.numpy()) for point in result.modes._points]
    # Up to constants, which differ by construction.
    offset = result.modes[0].objective - found[0]
    assert np.allclose([mode.objective - offset for mode in result.modes], found, atol=1e-10)
    for point in result.modes._points:
        again = scipy.optimize.minimize(objective, point.numpy(), method="BFGS", options={"gtol": 1e-9})
        assert np.abs(again.x - point.numpy()).max() < 1e-5
    rng = np.random.default_rng(0)
    starts = [rng.normal(0, 0.5, 10) * (rng.random(10) < 0.5) for _ in range(60)]
    theirs = [scipy.optimize.minimize(objective, s, method="BFGS", options={"gtol": 1e-8}).fun for s in starts]
    # A random search may miss the lowest mode: SciPy's and ours are held to the same number.
    assert found[0] <= min(theirs) + 1e-9
    assert objective(model.weight.detach().numpy()[0]) == pytest.approx(found[0], abs=1e-12)


@pytest.mark.slow
def test_several_modes_are_reported():
    X, y = standardised(load_diabetes)
    prior = br.ScaleMixture.spike_and_slab(0.01, 0.3)

    def run(**more):
        model = nn.Linear(10, 1, bias=False).double()
        nn.init.zeros_(model.weight)
        noise = br.likelihoods.Gaussian(0.7)
        return br.MAPTrainer(model, prior, noise, optimizer="lbfgs", progress=False, **more).fit((X, y))

    single = run()
    assert single.modes is None
    assert single.multimodal == ("weight",)
    assert "may be one local mode of several" in str(single.summary())
    several = run(starts=15)
    assert several.modes.starts == 15
    assert several.objective <= single.objective + 1e-12
    assert several.objective == pytest.approx(several.modes[0].objective, rel=1e-9)
    assert sum(mode.found for mode in several.modes) + several.modes.unconverged == 15
    assert f"{len(several.modes)} local modes from 15 starts" in str(several.summary())
    assert several.to_dict()["modes"][0]["objective"] == several.modes[0].objective
    assert [m.objective for m in several.modes] == sorted(m.objective for m in several.modes)
    assert run(starts=15).modes[0].objective == several.modes[0].objective


def test_a_convex_problem_has_one_mode():
    X, y = standardised(load_diabetes)
    model = linear(10, 1)
    trainer = br.MAPTrainer(
        model, br.ElasticNet(100.0, 10.0), br.likelihoods.Gaussian(0.7), optimizer="proximal", starts=4, progress=False
    )
    result = trainer.fit((X, y))
    assert len(result.modes) == 1
    assert result.multimodal == ()
    assert "ended in one mode" in str(result.summary())


def test_starts_need_a_solver():
    with pytest.raises(br.InvalidArgumentError, match="starts: several starting points need a full-batch solver"):
        br.MAPTrainer(nn.Linear(2, 1), br.Cauchy(1.0), br.likelihoods.Gaussian(1.0), starts=3)
    with pytest.raises(br.InvalidArgumentError, match="starts: expected an integer >= 1"):
        br.MAPTrainer(nn.Linear(2, 1), br.Cauchy(1.0), br.likelihoods.Gaussian(1.0), optimizer="lbfgs", starts=0)


def test_describe_says_where_a_map_may_be_one_of_several():
    prior = br.ModelPrior(nn.Linear(2, 1), br.Cauchy(1.0))
    assert "Not convex: weight." in str(prior.describe())
    assert "Not convex" not in str(br.ModelPrior(nn.Linear(2, 1), br.Logistic(1.0)).describe())
