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
