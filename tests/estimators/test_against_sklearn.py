"""The same coefficients and the same zeros as scikit-learn's models, both ways."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import (
    ARDRegression,
    BayesianRidge,
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeCV,
)

import bayesreg as br

L = br.likelihoods


def standardised(loader):
    X, y = loader(return_X_y=True)
    return (X - X.mean(0)) / X.std(0), y


X, y = standardised(load_diabetes)
Y = np.column_stack([y, np.roll(y, 1)])
cancer, iris = standardised(load_breast_cancer), standardised(load_iris)
counts = np.random.default_rng(0).poisson(np.exp(1.0 + 0.2 * X[:, 2])).astype(float)
weights = np.random.default_rng(1).integers(0, 4, len(X)).astype(float)
EXACT = {"tol": 1e-13, "max_iter": 100_000}

REGRESSORS = {
    "least squares": (LinearRegression(), y),
    "ridge": (Ridge(alpha=30.0), y),
    "ridge of two targets": (Ridge(alpha=30.0), Y),
    "ridge without an intercept": (Ridge(alpha=30.0, fit_intercept=False), y),
    "no ridge": (Ridge(alpha=0.0), y),
    "lasso": (Lasso(alpha=3.0, **EXACT), y),
    "lasso of two targets": (Lasso(alpha=3.0, **EXACT), Y),
    "net": (ElasticNet(alpha=1.0, l1_ratio=0.7, **EXACT), y),
    "net, all L1": (ElasticNet(alpha=3.0, l1_ratio=1.0, **EXACT), y),
    "poisson": (PoissonRegressor(alpha=0.1, tol=1e-12, max_iter=10_000), counts),
}


@pytest.mark.parametrize("name", REGRESSORS)
@pytest.mark.parametrize("weight", [None, weights])
def test_regressors_have_the_same_coefficients_and_zeros(name, weight):
    theirs, target = REGRESSORS[name]
    ours = br.MAPRegressor.from_sklearn(theirs).fit(X, target, weight)
    theirs.fit(X, target, weight)
    size = np.abs(theirs.coef_).max()
    assert ours.coef_.shape == theirs.coef_.shape
    assert np.allclose(ours.coef_, theirs.coef_, atol=1e-6 * size)
    assert np.array_equal(ours.coef_ == 0.0, theirs.coef_ == 0.0)
    assert np.allclose(ours.intercept_, theirs.intercept_, atol=1e-6 * size)
    assert np.allclose(ours.predict(X), theirs.predict(X), rtol=1e-6)
    assert ours.score(X, target) == pytest.approx(1 - ((target - theirs.predict(X)) ** 2).sum() / (
        (target - target.mean(0)) ** 2).sum(), abs=0.05)  # fmt: skip
    if "lasso" in name:
        assert 0 < (ours.coef_ == 0.0).sum() < ours.coef_.size
    back = ours.to_sklearn()
    assert type(back) is type(theirs) or name in ("no ridge", "net, all L1")
    assert np.allclose(back.predict(X), ours.predict(X), rtol=1e-12)
    if hasattr(theirs, "alpha") and type(back) is type(theirs):
        assert back.alpha == pytest.approx(theirs.alpha, rel=1e-9)


CLASSIFIERS = {
    "binary": (LogisticRegression(C=0.3, tol=1e-10, max_iter=100_000), cancer),
    "binary without an intercept": (LogisticRegression(C=0.3, tol=1e-10, fit_intercept=False, max_iter=10**5), cancer),
    "softmax": (LogisticRegression(C=0.3, tol=1e-10, max_iter=100_000), iris),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_classifiers_have_the_same_coefficients(name, weighted):
    theirs, (features, labels) = CLASSIFIERS[name]
    weight = np.random.default_rng(1).integers(0, 4, len(features)).astype(float) if weighted else None
    ours = br.MAPClassifier.from_sklearn(theirs).fit(features, labels, weight)
    theirs.fit(features, labels, weight)
    assert ours.coef_.shape == theirs.coef_.shape
    # Its own stopping rule leaves a few units of the sixth digit.
    assert np.allclose(ours.coef_, theirs.coef_, atol=5e-6)
    # An intercept of a softmax is one of many: only differences count.
    assert np.allclose(*(m.intercept_ - m.intercept_.mean() * (name == "softmax") for m in (ours, theirs)), atol=5e-5)
    assert np.allclose(ours.predict_proba(features), theirs.predict_proba(features), atol=1e-6)
    assert np.allclose(ours.predict_log_proba(features), np.log(ours.predict_proba(features)), atol=1e-9)
    assert np.array_equal(ours.predict(features), theirs.predict(features))
    assert ours.score(features, labels) == theirs.score(features, labels)
    back = ours.to_sklearn()
    assert pytest.approx(0.3) == back.C
    assert np.allclose(back.predict_proba(features), ours.predict_proba(features), atol=1e-12)
    assert np.array_equal(back.predict(features), ours.predict(features))


@pytest.mark.parametrize(("ratio", "family"), [(1.0, "Laplace"), (0.3, "ElasticNet")])
def test_l1_logistic_is_below_what_scikit_learn_reaches(ratio, family):
    features, labels = cancer
    theirs = LogisticRegression(C=0.3, l1_ratio=ratio, solver="saga", tol=1e-7, max_iter=20_000)
    ours = br.MAPClassifier.from_sklearn(theirs).fit(features, labels)
    theirs.fit(features, labels)

    def objective(coef, intercept):
        score = features @ coef[0] + intercept
        nll = np.logaddexp(0.0, np.where(labels == 1, -score, score)).sum()
        return nll + (ratio * np.abs(coef).sum() + 0.5 * (1.0 - ratio) * (coef**2).sum()) / 0.3

    assert ours.prior_["weight"].family == family
    assert objective(ours.coef_, ours.intercept_) <= objective(theirs.coef_, theirs.intercept_) + 1e-9
    assert np.array_equal(ours.coef_ == 0.0, theirs.coef_ == 0.0)
    assert np.allclose(ours.coef_, theirs.coef_, atol=1e-3)
    assert ours.to_sklearn().l1_ratio == pytest.approx(ratio)


def test_the_evidence_is_bayesian_ridges_where_no_intercept_is_counted():
    # scikit-learn's counts the intercept for nothing; ours loses a degree of freedom by it, as it should.
    given = {"alpha_1": 0.0, "alpha_2": 0.0, "lambda_1": 0.0, "lambda_2": 0.0, "tol": 1e-14, "max_iter": 10_000}
    centred = y - y.mean()
    theirs = BayesianRidge(fit_intercept=False, **given).fit(X, centred)
    ours = br.MAPRegressor.from_sklearn(BayesianRidge(fit_intercept=False)).fit(X, centred)
    assert ours.choice_.method == "evidence"
    assert np.allclose(ours.coef_, theirs.coef_, atol=1e-6 * np.abs(theirs.coef_).max())
    ratio = ours.likelihood_.noise_std**2 / ours.prior_["weight"].quadratic().variance
    assert ratio == pytest.approx(theirs.lambda_ / theirs.alpha_, rel=1e-5)
    with_one = br.MAPRegressor.from_sklearn(BayesianRidge()).fit(X, y)
    assert np.allclose(with_one.coef_, BayesianRidge(**given).fit(X, y).coef_, rtol=0.02, atol=0.2)


def test_the_spread_is_bayesian_ridges_and_that_of_the_intercept():
    theirs = BayesianRidge(fit_intercept=False, alpha_1=0.0, alpha_2=0.0, lambda_1=0.0, lambda_2=0.0, tol=1e-14)
    theirs.fit(X, y - y.mean())
    noise, width = theirs.alpha_**-0.5, theirs.lambda_**-0.5
    given = {"prior": br.Gaussian(width), "likelihood": L.Gaussian(noise)}
    mean, std = br.MAPRegressor(fit_intercept=False, **given).fit(X, y - y.mean()).predict(X, return_std=True)
    expected = theirs.predict(X, return_std=True)
    assert np.allclose(mean, expected[0], rtol=1e-6)
    assert np.allclose(std, expected[1], rtol=1e-6)
    _, more = br.MAPRegressor(**given).fit(X, y).predict(X, return_std=True)
    # The same where the strength was chosen, and the fit began at its end.
    mean, std_chosen = (
        br.MAPRegressor
        .from_sklearn(BayesianRidge(fit_intercept=False))
        .fit(X, y - y.mean())
        .predict(X, return_std=True)
    )
    assert np.allclose(mean, expected[0], rtol=1e-4, atol=1e-3)
    assert np.allclose(std_chosen, expected[1], rtol=0.02)
    # A flat intercept adds the variance of the mean of n; the features have mean 0 here.
    assert np.allclose(more**2 - std**2, noise**2 / len(X), rtol=1e-6)


@pytest.mark.parametrize("where", ["intercept", "weights", "targets", "wide", "by weight"])
def test_the_spread_is_that_of_the_gaussian_posterior(where):
    rng = np.random.default_rng(2)
    n, d = (12, 30) if where == "wide" else (30, 4)
    A, target = 2.0 + rng.normal(size=(n, d)), rng.normal(size=(n, 2) if where == "targets" else n)
    weight = rng.integers(1, 4, n).astype(float) if where == "weights" else None
    own = np.full(d, 0.7)
    prior = br.Gaussian(0.7)
    if where == "intercept":
        prior = {"*": br.Gaussian(0.7)}
    if where == "by weight":
        own = np.linspace(0.1, 1.0, d)
        prior = br.Gaussian(own[None])
    fitted = br.MAPRegressor(prior, L.Gaussian(0.5)).fit(A, target, weight)
    new = rng.normal(size=(7, d))
    mean, std = fitted.predict(new, return_std=True)
    rows, at = np.column_stack([A, np.ones(n)]), np.column_stack([new, np.ones(7)])
    precision = np.diag([*own**-2.0, 0.7**-2 if where == "intercept" else 0.0])
    inverse = np.linalg.inv((rows.T * (1.0 if weight is None else weight)) @ rows / 0.25 + precision)
    expected = np.sqrt(0.25 + np.einsum("nd,de,ne->n", at, inverse, at))
    assert std.shape == mean.shape
    assert np.allclose(std.T, expected, rtol=1e-8)


def test_a_spread_that_is_not_known_exactly_is_refused():
    for made in (br.MAPRegressor("laplace(1.0)"), br.MAPRegressor("gaussian(1.0)", L.StudentT(4.0, 1.0))):
        with pytest.raises(
            br.UnsupportedError, match="return_std: exact for linear models of at most 3,000 features with Gaussian"
        ):
            made.fit(X, y).predict(X, return_std=True)


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (Ridge(alpha=np.ones(2)), "expected one alpha for all targets"),
        (Lasso(positive=True), "positive=True has no counterpart"),
        (RidgeCV(), "expected a regressor among Ridge"),
        (ARDRegression(), "expected a regressor among Ridge"),
        (LogisticRegression(), "expected a regressor among Ridge"),
        ("ridge", "expected a regressor among Ridge"),
    ],
)
def test_what_has_no_counterpart_is_refused(estimator, said):
    with pytest.raises(br.UnsupportedError, match=said):
        br.MAPRegressor.from_sklearn(estimator)
    with pytest.raises(br.UnsupportedError, match="class_weight='balanced' has no counterpart"):
        br.MAPClassifier.from_sklearn(LogisticRegression(class_weight="balanced"))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (br.MAPRegressor("student_t(df=3, scale=1.0)", L.Gaussian(1.0)), "scikit-learn has no StudentT"),
        (br.MAPRegressor(br.Gaussian(1.0, loc=0.5), L.Gaussian(1.0)), "priors are about 0"),
        (br.MAPRegressor({"*": br.Gaussian(1.0)}, L.Gaussian(1.0)), "intercepts are flat"),
        (br.MAPRegressor("gaussian(1.0)", L.StudentT(4.0, 1.0)), "no linear model of StudentT"),
        (br.MAPRegressor("gaussian(1.0)", L.Gaussian(1.0), hidden=2, max_iter=3), "expected a linear model"),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_scikit_learn_has_not_is_said(made, said):
    with pytest.raises(br.NotEquivalentError, match=said):
        made.fit(X, (y - y.mean()) / y.std()).to_sklearn()
    two = br.MAPClassifier("gaussian(1.0)", L.Categorical()).fit(*cancer)
    with pytest.raises(br.NotEquivalentError, match="one output for two classes"):
        two.to_sklearn()
