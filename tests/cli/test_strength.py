"""`bayesreg strength`, and `auto` in the prior of `bayesreg fit`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import BayesianRidge

import bayesreg as br
from tests.cli.common import answer, refusal


def test_the_strength_of_a_linear_model(run):
    found = answer(run, "strength", "diabetes")
    X, y = load_diabetes(return_X_y=True)
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    reference = BayesianRidge(alpha_1=0.0, alpha_2=0.0, lambda_1=0.0, lambda_2=0.0).fit(X, y)
    # The hyperprior, the intercept's degree of freedom and the noise of leave-one-out move it by less than a tenth.
    assert found["scale"] == pytest.approx(reference.lambda_**-0.5, rel=0.1)
    assert found["method"] == "evidence"
    assert found["interval"][0] < found["scale"] < found["interval"][1]


def test_it_says_what_it_did_and_draws_it(run, tmp_path):
    status, out, _ = run("strength", "wine", "--model", "mlp", "--hidden", "5", "--picture", "s.png")
    assert status == 0
    assert "Prior strength" in out
    assert "Strengths tried" in out
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "prior",
    [
        "gaussian(auto)",
        pytest.param("laplace(scale=auto)", marks=pytest.mark.slow),
        pytest.param("student_t(df=4, scale=auto)", marks=pytest.mark.slow),
    ],
)
def test_a_fit_with_its_strength_chosen(run, tmp_path, prior):
    found = answer(run, "fit", "breast_cancer", "--prior", prior)
    scale = found["strength"]["scale"]
    model, fitted = br.load_run(tmp_path / "runs/fit")
    assert float(fitted["net.weight"].scale) == pytest.approx(scale)
    assert found["assessment"]["scores"][1]["mean"] < 0.15
    assert (tmp_path / "runs/fit/strength.png").exists()
    assert found["converged"]
    assert isinstance(model, torch.nn.Module)


@pytest.mark.slow
def test_a_network_with_its_strength_chosen(run):
    found = answer(run, "fit", "wine", "--model", "mlp", "--prior", "gaussian(auto)")
    assert found["strength"]["method"] == "loo"
    assert found["val_nll"] < 0.25


@pytest.mark.slow
def test_training_in_batches_is_kept(run):
    found = answer(
        run, "fit", "wine", "--model", "mlp", "--prior", "gaussian(auto)", "--optimizer", "adam", "--epochs", "10"
    )
    assert found["strength"]["method"] == "folds"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("strength", "wine", "--prior", "gaussian(1.0)"), "expected one with a number to be chosen"),
        (("strength", "wine", "--prior", "scale_mixture(auto, auto)"), "write auto once"),
        (("strength", "wine", "--prior", "flat(auto)"), "takes no arguments"),
        (("strength", "wine", "--prior", "l2(auto)"), "not for the number of another notation; write gaussian(auto)"),
        (("strength", "wine", "--prior", "lasso(alpha=auto, noise_std=1)"), "write laplace(auto)"),
        (("strength", "wine", "--prior", "ridge(auto, noise_std=1)"), "write gaussian(auto)"),
        (("strength", "wine", "--prior", "laplace(l1=auto)"), "write laplace(auto)"),
        (
            ("strength", "wine", "--prior", "elastic_net(alpha=auto, l1_ratio=0.5, noise_std=1)"),
            r"write elastic_net(l1=auto, l2=1)",
        ),
        (("strength", "wine", "--method", "evidence"), "no Gaussian noise"),
        (("strength", "wine", "--noise-std", "0.5"), "no noise std"),
        (("strength", "wine", "--hidden", "4"), "plays no part"),
        (("strength", "nowhere.csv"), "no such file"),
        (("strength", "nowhere.csv", "--picture", "s.xyz"), "expected a suffix"),  # before anything is done
        (("fit", "wine", "--prior", "gaussian(auto)", "--starts", "3"), "--starts"),
        (("fit", "wine", "--prior", "gaussian(center='auto')"), "auto"),
    ],
)
def test_what_it_refuses(run, arguments, message):
    assert message in refusal(run, *arguments)


def test_a_noise_that_is_known(run, tmp_path):
    rows = np.random.default_rng(0).normal(size=(60, 3))
    y = rows @ [1.0, -2.0, 0.5] + 0.3 * np.random.default_rng(1).normal(size=60)
    lines = "\n".join(",".join(f"{v:.6f}" for v in (*row, t)) for row, t in zip(rows, y, strict=True))
    (tmp_path / "d.csv").write_text(f"a,b,c,y\n{lines}")
    known = answer(run, "strength", "d.csv", "--noise-std", "0.3")
    learned = answer(run, "strength", "d.csv")
    assert known["scale"] == pytest.approx(learned["scale"], rel=0.05)


@pytest.mark.parametrize(
    "words", ["elastic_net(l1=auto, l2=1)", "l2(scale=auto)", "group_laplace(rate=auto, group='row')"]
)
def test_numbers_in_units_of_the_weights_may_be_auto(words):
    from bayesreg.priors.auto import at_scale_one

    assert at_scale_one(words) == words.replace("auto", "1.0")
    assert br.prior_from_words(at_scale_one(words), 100) is not None
