"""Priors from words: one per element, every family, and what is answered where they are wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bayesreg as br

ROWS = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("make", [
    lambda s: br.StudentT(4.0, s), lambda s: br.Logistic(s), lambda s: br.GeneralizedNormal(1.5, s),
    lambda s: br.NormalGamma(2.0, s), lambda s: br.ElasticNet(s, s), lambda s: br.Laplace(s),
    lambda s: br.Uniform(-s, s),
])  # fmt: skip
def test_one_number_per_element_survives_every_word(make):
    prior = make(ROWS)
    with pytest.raises(br.NotEquivalentError):
        prior.weight_decay(100)
    assert prior.weight_decay_readings(100).exact is None
    model = nn.Linear(3, 1).double()
    X, y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64)
    result = br.MAPTrainer(model, prior, br.likelihoods.Gaussian(1.0), optimizer="proximal", progress=False).fit((X, y))
    assert "weight" in str(result.summary())


@pytest.mark.parametrize(("words", "message"), [
    ("laplace(scale=1, scale=2)", "expected a family with numbers"),
    ("laplace(**{'scale': 1})", "expected a family with numbers"),
    (5, "words: expected a text, got int 5"),
    ("student(4, 0.1)", r"student_t.*did you mean 'student_t'"),
    ("low_rank_gaussian(1.0)", "which no words can say"),
    ("laplace(variance=0.1)", "unexpected argument 'variance'; it takes scale, loc$"),
    ("gaussian(variance=0.1)", r"a variance v is scale=v\*\*0\.5"),
    ("group_laplace(5.0, group=row)", "text goes in quotes"),
])  # fmt: skip
def test_wrong_words_are_answered(words, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        br.prior_from_words(words)


@pytest.mark.parametrize(("words", "family"), [
    ("student_t(df=4, scale=0.1)", br.StudentT), ("StudentT(4, 0.1)", br.StudentT),
    ("elastic_net(1, 2)", br.ElasticNet),
    ("scale_mixture([0.5, 0.5], [0.1, 1.0])", br.ScaleMixture), ("group_laplace(5.0, group='column')", br.GroupLaplace),
    ("uniform(-1, 1)", br.Uniform), ("multivariate_gaussian([[1, 0.5], [0.5, 1]])", br.MultivariateGaussian),
    ("fan_in_gaussian(1.4)", br.FanInGaussian), ("generalized_normal(0.5, 0.1)", br.GeneralizedNormal),
])  # fmt: skip
def test_families_have_words(words, family):
    assert type(br.prior_from_words(words)) is family


# -- common words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ("l2(scale=0.1)", "gaussian(0.1)"),
        ("L2(scale=0.1, loc=2)", "gaussian(0.1, loc=2)"),
        ("normal(scale=0.1)", "gaussian(0.1)"),
        ("ridge(scale=0.1)", "gaussian(0.1)"),
        ("l2(weight_decay=5e-4)", "gaussian(weight_decay=5e-4)"),
        ("ridge(weight_decay=5e-4)", "gaussian(weight_decay=5e-4)"),
        ("l1(scale=0.1)", "laplace(0.1)"),
        ("l1(coefficient=1e-4)", "laplace(l1=1e-4)"),
        ("lasso(coefficient=1e-4)", "laplace(l1=1e-4)"),
    ],
)
def test_common_words_are_families(words, same):
    assert br.prior_from_words(words, 100).same_as(br.prior_from_words(same, 100))


def test_the_alphas_of_scikit_learn_are_relative_to_the_noise():
    """Ridge: α = τ²/σ². Lasso: α = τ²/(n·b)."""
    ridge = br.prior_from_words("ridge(alpha=4, noise_std=0.5)", 100)
    assert ridge.scale.item() == pytest.approx(0.5 / 2)
    lasso = br.prior_from_words("lasso(alpha=0.05, noise_std=2)", 100)
    assert lasso.scale.item() == pytest.approx(4 / (100 * 0.05))
    told = br.LossScale.half_squared_error(100, 2.0)
    assert br.prior_from_words("lasso(alpha=0.05)", told).same_as(lasso)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "l2(0.1)",
            r"what is 0\.1\? Write l2\(scale=0\.1\), .*; or l2\(weight_decay=0\.1\), .* a scale of 0\.3162",
        ),
        ("l1(0.1)", r"what is 0\.1\? Write l1\(scale=0\.1\), .*; or l1\(coefficient=0\.1\), .* here a scale of 0\.1"),
        ("lasso(1)", r"lasso\(alpha=1, noise_std=\.\.\.\)"),
        ("l2", r"expected its number by name: l2\(scale=\.\.\.\)"),
        ("normal(0, 1)", "expected its number by name"),
        ("l2(sigma=1)", "l2 takes scale, weight_decay, loc, center, got sigma; did you mean 'scale'"),
        ("l2(alpha=1)", "l2 takes scale, weight_decay, loc, center, got alpha"),
        ("l2(scale=1, weight_decay=1)", "expected one of scale, weight_decay, got scale and weight_decay"),
        ("l2(scale=1, noise_std=1)", "got noise_std"),
        ("ridge(scale=1, noise_std=1)", "noise_std plays no part with scale"),
        ("ridge(alpha=1)", "alpha is relative to the noise: add its standard deviation, noise_std="),
        ("l2(scale=-1)", "scale: expected a value > 0, got -1"),
        ("rige(1)", "did you mean 'ridge'"),
        ("gaussian(weight_decay=1e-3, scale=2)", "expected a scale or weight_decay=, not both"),
        ("gaussian(" + "-" * 3_000 + "1)", "expected a family with numbers"),
        ("gaussian(" + "[" * 3_000 + ")", "expected a family with numbers"),
        ("gaussian(1e-200)", "expected a value whose square is a number"),
    ],
)
def test_common_words_that_could_be_several_things_are_answered(words, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        br.prior_from_words(words, 100)


def test_the_alpha_of_lasso_needs_n():
    with pytest.raises(br.InvalidArgumentError, match="the alpha of Lasso needs the size of the training set"):
        br.prior_from_words("lasso(alpha=1, noise_std=1)")
