"""The families on the command line: in words, trained, reported, saved and read back."""

from __future__ import annotations

import pytest

import bayesreg as br
from tests.cli.common import answer, refusal
from tests.sampling import thinned


@pytest.mark.parametrize(
    ("words", "family"),
    thinned(
        [
            ("student_t(df=4, scale=0.3)", "StudentT"),
            ("cauchy(0.3)", "Cauchy"),
            ("normal_gamma(concentration=2, rate=0.1)", "NormalGamma"),
            ("elastic_net(l1=5, l2=5)", "ElasticNet"),
            ("generalized_normal(power=0.5, scale=0.2)", "GeneralizedNormal"),
            ("logistic(0.3)", "Logistic"),
            ("scale_mixture(weights=[0.9, 0.1], scales=[0.05, 1])", "ScaleMixture"),
            ("group_laplace(10, group='column')", "GroupLaplace"),
            ("uniform(-0.5, 0.5)", "Uniform"),
            ("fan_in_gaussian(1.0)", "Gaussian"),
            (
                "multivariate_gaussian([[1, 0.2, 0, 0], [0.2, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])",
                "MultivariateGaussian",
            ),
        ],
        5,
    ),
)
def test_iris_under_every_family(run, words, family):
    found = answer(run, "fit", "iris", "--prior", words, "--output", "run")
    assert found["converged"]
    model, prior = br.load_run("run")
    weight = next(entry for entry in prior if entry.name.endswith("weight"))
    assert weight.prior.family == family
    assert weight.prior.penalty(weight.parameter.detach()).isfinite()
    assert model is not None


@pytest.mark.slow
def test_several_starts_are_reported(run):
    words = "scale_mixture(weights=[0.5, 0.5], scales=[0.01, 0.3])"
    arguments = ("fit", "diabetes", "--prior", words, "--noise-std", "54", "--starts", "6")
    found = answer(run, *arguments, "--output", "run")
    assert sum(mode["found"] for mode in found["modes"]) == 6
    assert len(found["modes"]) > 1
    status, out, _ = run(*arguments, "--output", "again")
    assert status == 0
    assert "above the lowest" in out
    assert "solver" in refusal(run, "fit", "iris", "--model", "mlp", "--prior", "cauchy(1)", "--starts", "3")
