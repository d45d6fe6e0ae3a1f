"""The estimators where scikit-learn puts them: checks, pipelines, searches, tables, weights, interrupts."""

from __future__ import annotations

import copy
import io
import re
from functools import partial
from importlib.util import find_spec

import joblib
import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

import bayesreg as br
from bayesreg.priors import FAMILIES

L = br.likelihoods
X, y = load_diabetes(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
cancer, labels = load_breast_cancer(return_X_y=True)
cancer = (cancer - cancer.mean(0)) / cancer.std(0)

# Every family that has a MAP, one number as its scale and no fixed shape.
SCALAR = {
    "Gaussian": br.Gaussian(1.0),
    "Laplace": br.Laplace(1.0),
    "ElasticNet": br.ElasticNet(l1=1.0, l2=1.0),
    "StudentT": br.StudentT(df=4.0, scale=1.0),
    "Cauchy": br.Cauchy(1.0),
    "Logistic": br.Logistic(1.0),
    "GeneralizedNormal": br.GeneralizedNormal(power=1.5, scale=1.0),
    "Flat": br.Flat(),
    "FanInGaussian": br.FanInGaussian(1.0),
    "GroupLaplace": br.GroupLaplace(1.0, group="column"),
    "Uniform": br.Uniform(-2.0, 2.0),
    "LogUniform": br.LogUniform(low=0.01, high=1.0),
    # So wide that they do not end: of several modes no check of equal fits could say which.
    "MCP": br.MCP(strength=0.1, gamma=10_000.0),
    "SCAD": br.SCAD(strength=0.1, gamma=10_000.0),
    "L0": br.L0(1.0),
    "NormalGamma": br.NormalGamma(concentration=2.0, rate=1.0),
    "ScaleMixture": br.ScaleMixture(weights=[0.5, 0.5], scales=[0.3, 1.0]),
    "HierarchicalGaussian": br.HierarchicalGaussian(br.hyperpriors.InverseGamma(2.0, 1.0)),
    # Of a tail so light and a scale so wide that the objective is convex.
    "R2D2": br.R2D2(concentration=3.0, tail=20.0, scale=3.0),
}
QUIET = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore::sklearn.exceptions.SkipTestWarning",
    "ignore::bayesreg.StrengthWarning",
)  # fmt: skip
QUICK = ("Gaussian", "Laplace", "ElasticNet", "StudentT")


# Classes that can be told apart have no MAP under a flat prior: how far a fit goes is a matter of the processor.
WITHOUT_A_MAP = {"check_sample_weight_equivalence_on_dense_data"}


def checked(estimator, but=frozenset()):
    """All of scikit-learn's checks pass; those that it skips are for what is not installed."""
    found = [one for one in check_estimator(estimator, on_fail=None) if one["check_name"] not in but]
    failed = {one["check_name"]: repr(one["exception"]) for one in found if one["status"] not in ("passed", "skipped")}
    skipped = [one["check_name"] for one in found if one["status"] == "skipped"]
    assert not failed
    of_pandas = {
        "check_sample_weights_pandas_series", "check_regressor_data_not_an_array", "check_classifier_data_not_an_array",
    }  # fmt: skip
    assert set(skipped) <= {"check_array_api_input"} | (of_pandas if find_spec("pandas") is None else set())
    assert len(found) > 50


@QUIET
@pytest.mark.parametrize("family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in SCALAR])
@pytest.mark.parametrize("cls", [br.MAPRegressor, br.MAPClassifier])
def test_scikit_learns_checks_pass(cls, family):
    # Of as many coefficients as examples a learned noise makes a problem that only the quick ones are made for.
    noise = L.Gaussian(1.0) if cls is br.MAPRegressor and family not in QUICK else None
    checked(cls(SCALAR[family], noise), WITHOUT_A_MAP if (cls, family) == (br.MAPClassifier, "Flat") else frozenset())


@QUIET
@pytest.mark.parametrize("cls", [br.MAPRegressor, br.MAPClassifier])
def test_scikit_learns_checks_pass_by_default(cls):
    checked(cls())


def test_every_family_is_in_the_list_or_refused_for_a_reason():
    # Those with tensors of a model's size, or made of others; a density without a maximum is refused in words below.
    other = {
        "AdapterGaussian", "FromDistribution", "FunctionPrior", "LowRankGaussian",
        "MatrixGaussian", "Mixture", "MultivariateGaussian", "Product",
    }  # fmt: skip
    no_map = {"Horseshoe", "RegularizedHorseshoe"}
    ours = {name for name, family in FAMILIES.items() if family.__module__.startswith("bayesreg.")}
    assert ours == set(SCALAR) | other | no_map


@pytest.mark.parametrize("prior", ["horseshoe(1.0)", br.RegularizedHorseshoe(1.0, 1.0)])
def test_a_prior_without_a_map_is_refused(prior):
    with pytest.raises(br.UnsupportedError, match="weight: "):
        br.MAPRegressor(prior).fit(X, y)


# -- what it is made of --------------------------------------------------------------------------------


def test_words_objects_and_rules_are_the_same_prior():
    fits = [
        br.MAPRegressor(prior, L.Gaussian(50.0)).fit(X, y)
        for prior in ("gaussian(20.0)", br.Gaussian(20.0), {"weight": "gaussian(20.0)", "bias": br.Flat()})
    ]
    assert np.array_equal(fits[0].coef_, fits[1].coef_)
    assert np.allclose(fits[0].coef_, fits[2].coef_, rtol=1e-12)


def test_auto_chooses_and_says_how():
    fitted = br.MAPRegressor().fit(X, y)
    assert fitted.choice_.method == "evidence"
    assert fitted.prior_["weight"].quadratic().variance == pytest.approx((fitted.choice_.scale * y.std()) ** 2)
    assert fitted.likelihood_.noise_std == pytest.approx(54.5, abs=1.0)
    given = br.MAPRegressor(br.Gaussian(1.0), strength={}).fit(X, y)
    # There what is believed before the data is in units of the coefficients, as the object is.
    assert given.choice_.scale == pytest.approx(fitted.choice_.scale * y.std(), rel=0.2)
    wider = br.MAPRegressor(strength={"method": "loo", "hyperprior": None}).fit(X, y)
    assert wider.choice_.method == "loo"
    assert br.MAPRegressor("gaussian(1.0)").fit(X, y).choice_ is None


@pytest.mark.parametrize("given", [{"prior": "laplace(auto)"}, {"prior": "gaussian(auto)", "groups": ["weight"]}])
def test_what_is_chosen_is_a_map(given):
    strength = {k: v for k, v in given.items() if k != "prior"}
    fitted = br.MAPRegressor(given["prior"], strength=strength).fit(X, y)
    assert fitted.result_.converged
    assert fitted.result_.kkt_residual <= 1e-9


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prior": 3.0}, "prior: expected words such as 'laplace"),
        ({"prior": "gausian(1.0)"}, "did you mean 'gaussian'"),
        ({"prior": {"weight": "gaussian(auto)", "bias": br.Flat()}}, "in rules auto has no place"),
        ({"hidden": (0,)}, "hidden: expected an integer >= 1"),
        ({"hidden": "64"}, "hidden: expected sizes of layers"),
        ({"hidden": (4,), "module": nn.Linear(10, 1)}, "hidden: plays no part"),
        ({"module": lambda d, k: 3}, "expected a function that returns a torch module"),
        ({"module": lambda d: 3}, "module: expected a function of the numbers of features"),
        ({"module": nn.Linear(2, 1)}, r"module: expected one that takes \(n, 10\) to \(n, 1\)"),
        ({"module": nn.Linear(10, 4)}, r"got one that returns \(2, 4\) for \(2, 10\)"),
        ({"optimizer": "adam"}, "optimizer: expected 'lbfgs', 'proximal' or a factory, got 'adam'"),
        ({"fit_intercept": 2}, "fit_intercept: expected True or False"),
        ({"random_state": "a"}, "random_state: expected an integer"),
        ({"strength": 3}, "strength: expected arguments by name"),
        ({"training": {"max_epochs": 3}}, "training: max_epochs plays no part"),
        ({"strength": {"prior": 1}}, "strength: prior is the estimator's own"),
        ({"tol": 0.0}, "tol: expected"),
        ({"max_iter": 0}, "max_iter: expected"),
        ({"likelihood": L.Bernoulli()}, "classes are br.MAPClassifier's"),
        ({"likelihood": 1.0}, "likelihood: expected one of numbers"),
    ],
)
def test_bad_arguments_are_named_when_it_is_fitted(arguments, said):
    with pytest.raises(br.InvalidArgumentError, match=said):
        br.MAPRegressor(**arguments).fit(X, y)


def test_a_classifier_takes_likelihoods_of_classes():
    with pytest.raises(br.InvalidArgumentError, match=r"numbers are br\.MAPRegressor's"):
        br.MAPClassifier(likelihood=L.Gaussian(1.0)).fit(cancer, labels)
    with pytest.raises(br.InvalidArgumentError, match="Bernoulli\\(\\) is of two classes, and y has 3"):
        br.MAPClassifier(likelihood=L.Bernoulli()).fit(*load_iris(return_X_y=True))
    # A softmax of two outputs has half the variance of one output.
    one = br.MAPClassifier("gaussian(1.0)").fit(cancer, labels)
    two = br.MAPClassifier(br.Gaussian(0.5**0.5), L.Categorical()).fit(cancer, labels)
    assert np.allclose(one.predict_proba(cancer), two.predict_proba(cancer), atol=1e-7)
    assert np.allclose(one.decision_function(cancer), two.decision_function(cancer), atol=1e-5)


def test_outliers_move_student_t_noise_little():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(100, 3))
    target = A @ [1.0, -2.0, 3.0] + 0.1 * rng.normal(size=100)
    target[:10] += 50.0
    robust = br.MAPRegressor("gaussian(10.0)", L.StudentT(3.0)).fit(A, target)
    plain = br.MAPRegressor("gaussian(10.0)").fit(A, target)
    assert np.abs(robust.coef_ - [1.0, -2.0, 3.0]).max() < 0.1
    assert np.abs(plain.coef_ - [1.0, -2.0, 3.0]).max() > 0.5
    assert 0.05 < robust.likelihood_.noise_scale < 0.2
    assert np.allclose(robust.predict(A), A @ robust.coef_ + robust.intercept_)


def test_poisson_predicts_rates():
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.exp(1.0 + 0.3 * X[:, 0]))
    fitted = br.MAPRegressor("gaussian(1.0)", L.Poisson()).fit(X, counts)
    assert np.allclose(fitted.predict(X), np.exp(X @ fitted.coef_ + fitted.intercept_))
    assert fitted.predict(X).mean() == pytest.approx(counts.mean(), rel=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_networks_and_modules():
    wave = np.sin(2.0 * X[:, 0]) * 300.0 + 1000.0
    straight = br.MAPRegressor("gaussian(1.0)").fit(X, wave).score(X, wave)
    fitted = br.MAPRegressor("gaussian(1.0)", hidden=(16,), random_state=0, max_iter=200, tol=1e-3).fit(X, wave)
    assert fitted.score(X, wave) > straight + 0.2
    assert not hasattr(fitted, "coef_")
    state = torch.get_rng_state()
    again = br.MAPRegressor("gaussian(1.0)", hidden=(16,), random_state=0, max_iter=200, tol=1e-3).fit(X, wave)
    assert np.array_equal(fitted.predict(X), again.predict(X))
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(br.UnsupportedError, match="return_std"):
        fitted.predict(X, return_std=True)
    module = nn.Sequential(nn.Linear(10, 3), nn.Tanh(), nn.Linear(3, 1))
    before = copy.deepcopy(module.state_dict())
    own = br.MAPRegressor(
        "gaussian(1.0)", module=module, optimizer=partial(torch.optim.Adam, lr=0.01),
        training={"max_epochs": 3, "batch_size": 64},
    ).fit(X, y / 100.0)  # fmt: skip
    assert own.n_iter_ == 3
    assert own.predict(X).shape == y.shape
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    made = br.MAPClassifier("gaussian(1.0)", module=lambda d, k: nn.Linear(d, k), optimizer="lbfgs").fit(cancer, labels)
    plain = br.MAPClassifier("gaussian(1.0)").fit(cancer, labels)
    assert np.allclose(made.predict_proba(cancer), plain.predict_proba(cancer), atol=1e-7)


def test_weights_reach_networks_too():
    weight = np.arange(len(X)) % 3
    given = {"optimizer": partial(torch.optim.SGD, lr=1e-3), "training": {"max_epochs": 2, "batch_size": 500}}
    module = nn.Linear(10, 1)
    once = br.MAPRegressor("gaussian(1.0)", L.Gaussian(1.0), module=module, **given).fit(X, y / 100.0, weight)
    again = br.MAPRegressor("gaussian(1.0)", L.Gaussian(1.0), module=module, **given).fit(
        X.repeat(weight, 0), y.repeat(weight) / 100.0
    )
    assert np.allclose(once.predict(X), again.predict(X), rtol=1e-9)


# -- data ----------------------------------------------------------------------------------------------


def test_float32_stays_float32_and_costs_no_digits():
    single = br.MAPRegressor("gaussian(20.0)", L.Gaussian(50.0)).fit(X.astype(np.float32), y.astype(np.float32))
    double = br.MAPRegressor("gaussian(20.0)", L.Gaussian(50.0)).fit(X, y)
    assert single.coef_.dtype == single.predict(X.astype(np.float32)).dtype == np.float32
    assert np.allclose(single.coef_, double.coef_, rtol=1e-4)
    classifier = br.MAPClassifier("gaussian(1.0)").fit(cancer.astype(np.float32), labels)
    assert classifier.coef_.dtype == classifier.decision_function(cancer.astype(np.float32)).dtype == np.float32
    assert classifier.predict_proba(cancer.astype(np.float32)).dtype == np.float64


def test_what_cannot_be_used_is_refused():
    from scipy.sparse import csr_matrix

    with pytest.raises(TypeError, match="dense data is required"):
        br.MAPRegressor().fit(csr_matrix(X), y)
    with pytest.raises(ValueError, match="contains NaN"):
        br.MAPRegressor().fit(np.where(X > 2, np.nan, X), y)
    with pytest.raises(ValueError, match="one class"):
        br.MAPClassifier().fit(cancer, np.ones(len(cancer)))
    with pytest.raises(br.DataError, match="expected counts >= 0"):
        br.MAPRegressor("gaussian(1.0)", L.Poisson()).fit(X, y - 300.0)
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        br.MAPRegressor("gaussian(1.0)").fit(X, y, -np.ones(len(X)))
    with pytest.raises(ValueError, match="at least one non-zero"):
        br.MAPRegressor("gaussian(1.0)").fit(X, y, np.zeros(len(X)))
    with pytest.raises(NotFittedError):
        br.MAPRegressor().predict(X)
    for name in ("result_", "prior_", "likelihood_", "choice_"):
        assert not hasattr(br.MAPRegressor(), name)


def test_weights_of_an_automatic_choice_are_whole_numbers():
    weight = np.arange(len(X)) % 3
    ours = br.MAPRegressor().fit(X, y, weight)
    repeated = br.MAPRegressor().fit(X.repeat(weight, 0), y.repeat(weight))
    assert np.allclose(ours.coef_, repeated.coef_, rtol=1e-9)
    with pytest.raises(br.UnsupportedError, match="whole numbers; give the prior a number"):
        br.MAPRegressor().fit(X, y, weight + 0.5)
    br.MAPRegressor("gaussian(1.0)").fit(X, y, weight + 0.5)


def test_targets_that_the_coefficients_reach_are_told():
    rng = np.random.default_rng(0)
    A, target = rng.normal(size=(8, 20)), rng.normal(size=8)
    with pytest.warns(ConvergenceWarning, match="a learned noise would go to 0; it was held at 0.001"):
        fitted = br.MAPRegressor("gaussian(10.0)", L.Gaussian("learned")).fit(A, target)
    assert fitted.likelihood_.noise_std == pytest.approx(1e-3 * target.std())
    # The weak prior that goes with no likelihood= keeps it away from 0.
    fitted = br.MAPRegressor("gaussian(10.0)").fit(A, target)
    assert 0.01 * target.std() < fitted.likelihood_.noise_std < 0.05 * target.std()
    assert fitted.result_.converged
    # By the evidence the weights are integrated out, and there is nothing to go to 0.
    chosen = br.MAPRegressor().fit(A, target)
    assert chosen.likelihood_.noise_std > 0.1 * target.std()


def test_a_fit_begins_inside_of_bounds():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(50, 2))
    fitted = br.MAPRegressor(br.Uniform(1.0, 2.0), L.Gaussian(1.0)).fit(A, A @ [1.5, 5.0])
    assert fitted.coef_ == pytest.approx([1.5, 2.0], abs=0.6)
    assert fitted.coef_[1] == 2.0


def test_too_few_iterations_are_told():
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        br.MAPClassifier("gaussian(1.0)", max_iter=1).fit(cancer, labels)


def test_an_interrupt_leaves_what_there_was(monkeypatch):
    from bayesreg.trainer.full_batch.linear.newton import _Descent

    lower, calls = _Descent._lower, []

    def stop(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return lower(self, *arguments)

    monkeypatch.setattr(_Descent, "_lower", stop)
    fitted = br.MAPClassifier("gaussian(1.0)")
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(cancer, labels)
    assert fitted.score(cancer, labels) > 0.9
    assert "KeyboardInterrupt" in fitted.result_.interrupted
    assert fitted.coef_.any()


# -- in company ----------------------------------------------------------------------------------------


def test_clone_and_joblib():
    fitted = br.MAPRegressor(br.Laplace(3.0)).fit(X, y)
    again = clone(fitted)
    assert again.get_params()["prior"] is not fitted.prior
    assert repr(again.prior) == repr(fitted.prior)
    assert not hasattr(again, "coef_")
    held = io.BytesIO()
    joblib.dump(fitted, held)
    held.seek(0)
    back = joblib.load(held)
    assert np.array_equal(back.predict(X), fitted.predict(X))
    assert back.result_.to_dict() == fitted.result_.to_dict()
    assert torch.equal(back.prior_.log_prob(), fitted.prior_.log_prob())


def test_the_result_is_that_of_the_trainer():
    for prior, solver in (("gaussian(20.0)", "lbfgs"), ("laplace(2.0)", "proximal")):
        ours = br.MAPRegressor(prior, L.Gaussian(50.0)).fit(X, y).result_
        model = nn.Linear(10, 1).double()
        family = br.prior_from_words(prior)
        theirs = br.MAPTrainer(model, family, L.Gaussian(50.0), optimizer=solver, progress=False).fit((X, y[:, None]))
        assert ours.exact_zeros == theirs.exact_zeros
        for name in ("mean_nll", "log_prior", "log_prior_constant", "objective", "num_data"):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-8), name
        assert str(ours.routes.rows) == str(theirs.routes.rows)
        assert ours.summary()


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_searches_over_objects_and_over_words(jobs):
    priors = [br.Gaussian(1.0), br.Gaussian(20.0), br.Laplace(5.0)]
    search = GridSearchCV(br.MAPRegressor(), {"prior": priors}, cv=3, n_jobs=jobs).fit(X, y)
    assert search.best_params_["prior"] is not priors[0]
    assert search.best_score_ > 0.4
    words = {"mapregressor__prior": ["gaussian(1.0)", "gaussian(20.0)"]}
    search = GridSearchCV(make_pipeline(StandardScaler(), br.MAPRegressor()), words, cv=3).fit(X, y)
    assert search.best_params_["mapregressor__prior"] == "gaussian(20.0)"
    assert cross_val_score(br.MAPClassifier("gaussian(1.0)"), cancer, labels, cv=3).mean() > 0.96


def test_importance_by_permutation_sees_the_zeros():
    fitted = br.MAPRegressor(br.Laplace(0.3), L.Gaussian(50.0)).fit(X, y)
    importance = permutation_importance(fitted, X, y, n_repeats=2, random_state=0).importances_mean
    assert np.array_equal(importance == 0.0, fitted.coef_ == 0.0)
    assert 0 < (fitted.coef_ == 0.0).sum() < 10


def test_tables_columns_and_routing():
    pd = pytest.importorskip("pandas", reason="pandas is in the extra third-party alone")
    table = pd.DataFrame(X, columns=load_diabetes().feature_names)
    columns = ColumnTransformer([("scaled", StandardScaler(), ["bmi", "bp"])]).set_output(transform="pandas")
    pipe = make_pipeline(columns, br.MAPRegressor("gaussian(20.0)")).fit(table, y)
    assert list(pipe[-1].feature_names_in_) == ["scaled__bmi", "scaled__bp"]
    with pytest.raises(ValueError, match="feature names should match"):
        pipe[-1].predict(table[["bp", "bmi"]])


def test_metadata_is_routed():
    weight = np.arange(len(X)) % 3 + 0.0
    with sklearn.config_context(enable_metadata_routing=True):
        made = br.MAPRegressor("gaussian(20.0)").set_fit_request(sample_weight=True)
        pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), made).fit(
            X, y, sample_weight=weight
        )
    alone = br.MAPRegressor("gaussian(20.0)").fit(StandardScaler().fit_transform(X), y, weight)
    assert np.allclose(pipe[-1].coef_, alone.coef_)


def test_the_import_is_named_where_scikit_learn_is_missing(monkeypatch):
    import importlib.util
    import sys

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "sklearn" else find(name, *a))
    monkeypatch.delitem(sys.modules, "bayesreg.estimators")
    with pytest.raises(ImportError, match=r"MAPRegressor and MAPClassifier need sklearn.*bayesreg\[sklearn\]"):
        importlib.import_module("bayesreg.estimators")


@pytest.mark.parametrize("estimator", [br.MAPRegressor(), br.MAPClassifier()])
def test_text_among_the_numbers_is_answered_with_a_pipeline(estimator):
    table = np.array([["München", 1.0], ["Köln", 2.0], ["Bonn", 3.0]], dtype=object)
    with pytest.raises(
        br.DataError,
        match=r"X and y: expected numbers, got text such as 'München'; where it is in columns, put a make_column",
    ):
        estimator.fit(table, [0, 1, 0])
    # What it says to write does it, gaps included.
    with pytest.raises(br.DataError) as said:
        estimator.fit(table, [0, 1, 0])
    code = re.search(r"put a (make_column_transformer\(.*\)) before", str(said.value))[1]
    parts = {"OneHotEncoder": OneHotEncoder, "SimpleImputer": SimpleImputer, "StandardScaler": StandardScaler}
    made = {"make_column_transformer": make_column_transformer, "make_pipeline": make_pipeline}
    first = eval(code, {**parts, **made, "columns": [0]})
    rows = np.array([["a", 1.0], ["b", np.nan], ["a", 2.0], ["b", 0.5]] * 5, dtype=object)
    make_pipeline(first, clone(estimator).set_params(prior="gaussian(1.0)")).fit(rows, [0, 1, 0, 1] * 5)
    with pytest.raises(ValueError, match="contains NaN"):
        estimator.fit([[np.nan], [1.0], [2.0]], [0, 1, 0])


def test_a_target_by_name_is_for_the_classifier():
    rows, names = [[1.0], [2.0], [3.0]], np.array(["a", "b", "a"], dtype=object)
    with pytest.raises(br.DataError, match=r"such as 'a'.*targets by name are for MAPClassifier"):
        br.MAPRegressor().fit(rows, names)
    assert list(br.MAPClassifier("gaussian(1.0)").fit(rows, names).classes_) == ["a", "b"]
