"""Scales of their own, of groups of parameters and of every weight."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import ARDRegression
from torch import nn
from torch.distributions import MultivariateNormal

import bayesreg as br
from tests.strength.test_choose import CLASSES, network, standardised

LEARNED = br.likelihoods.Gaussian("learned")


@pytest.fixture
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    return torch.tensor(X), torch.tensor(y)[:, None]


class Two(nn.Module):
    """A sum of two linear layers on half of the features each."""

    def __init__(self, outputs=1):
        super().__init__()
        self.a, self.b = nn.Linear(3, outputs), nn.Linear(3, outputs, bias=False)
        self.double()

    def forward(self, x):
        return self.a(x[:, :3]) + self.b(x[:, 3:])


def halves(outputs=1, n=80):
    """Return inputs and targets of which the second half of the features says next to nothing."""
    generator = torch.Generator().manual_seed(3)
    X = torch.randn(n, 6, generator=generator).double()
    weight = torch.randn(6, outputs, generator=generator).double() * torch.tensor([3.0] * 3 + [0.05] * 3)[:, None]
    return X, X @ weight + 0.5 * torch.randn(n, outputs, generator=generator).double()


def test_a_scale_for_every_weight_is_ard_regression(diabetes):
    X, y = diabetes
    choice = br.choose_strength(
        nn.Linear(10, 1, bias=False).double(), br.Gaussian(1.0), LEARNED, (X, y), groups="each", hyperprior=None
    )
    ours = choice.model.weight.detach().numpy().ravel()
    theirs = ARDRegression(
        max_iter=100_000, tol=1e-14, threshold_lambda=1e9, alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0,
        fit_intercept=False,
    ).fit(X.numpy(), y.numpy().ravel())  # fmt: skip
    assert ours == pytest.approx(theirs.coef_, abs=1e-6)
    scale = choice.groups[0].scale.numpy().ravel()
    kept = theirs.coef_ != 0.0
    assert 0 < kept.sum() < 10
    ratio = choice.likelihood.noise_std**2 / scale**2
    assert ratio[kept] == pytest.approx(theirs.lambda_[kept] / theirs.alpha_, rel=1e-5)
    # What it gives up, so do we: its width is nothing, its weight is 0.
    assert scale[~kept].max() < 1e-5
    assert choice.prior["weight"].scale.shape == (1, 10)


def evidence_by_hand(X, y, scale, noise):
    """Return −log density of y with weights and (nearly) flat intercept integrated out, minus the log hyperpriors."""
    covariance = noise**2 * torch.eye(len(y)) + (X * scale**2) @ X.T
    centre = torch.eye(len(y)) - 1.0 / len(y)
    basis = torch.linalg.eigh(centre.double())[1][:, 1:]
    inside = MultivariateNormal(torch.zeros(len(y) - 1).double(), basis.T @ covariance.double() @ basis)
    density = br.hyperpriors.HalfCauchy(1.0).log_scale_density(scale.log())[0].sum()
    return -inside.log_prob(basis.T @ y[:, 0]) - density


def test_every_scale_is_where_the_evidence_by_hand_is_stationary(diabetes):
    X, y = diabetes[0][:60], diabetes[1][:60]
    noise = br.likelihoods.Gaussian(0.7)
    choice = br.choose_strength(nn.Linear(10, 1).double(), br.Gaussian(1.0), noise, (X, y), groups="each")
    assert "Chosen, the widths of the prior that was given times its group's scale:" in str(choice.summary())
    scale = choice.groups[0].scale.flatten().log().requires_grad_()
    (slope,) = torch.autograd.grad(evidence_by_hand(X, y, scale.exp(), 0.7), scale)
    assert float(slope.abs().max()) < 1e-6
    common = torch.full((10,), choice.scale, dtype=torch.float64)
    assert evidence_by_hand(X, y, scale.exp(), 0.7) < evidence_by_hand(X, y, common, 0.7)


def test_the_same_with_noise_that_is_learned(diabetes):
    X, y = diabetes[0][:60], diabetes[1][:60]
    choice = br.choose_strength(nn.Linear(10, 1).double(), br.Gaussian(1.0), LEARNED, (X, y), groups="each")
    basis = torch.linalg.eigh(torch.eye(60).double() - 1.0 / 60)[1][:, 1:]
    z = basis.T @ y

    def by_hand(log_ratio):
        inside = basis.T @ X
        C = torch.eye(59).double() + (inside / log_ratio.exp()) @ inside.T
        square = (z * torch.linalg.solve(C, z)).sum()
        scales = 0.5 * (torch.log(square / 59) - log_ratio)
        density = br.hyperpriors.HalfCauchy(1.0).log_scale_density(scales)[0].sum()
        return 0.5 * (59 * torch.log(square) + torch.logdet(C)) - density

    log_ratio = 2.0 * torch.log(choice.likelihood.noise_std / choice.groups[0].scale.flatten()).requires_grad_()
    (slope,) = torch.autograd.grad(by_hand(log_ratio), log_ratio)
    assert float(slope.abs().max()) < 1e-6


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("noise", [LEARNED, br.likelihoods.Gaussian(0.5)], ids=["learned", "known"])
def test_layers_that_say_nothing_get_a_narrow_prior(outputs, noise):
    data = halves(outputs)
    choice = br.choose_strength(Two(outputs), br.Gaussian(1.0), noise, data, groups=["b.*"])
    (own,) = choice.groups
    assert own.group == "'b.*'"
    assert own.names == ("b.weight",)
    assert own.scale < 0.2 < 1.0 < choice.scale
    assert float(choice.prior["a.weight"].scale) == pytest.approx(choice.scale)
    assert float(choice.prior["b.weight"].scale) == pytest.approx(own.scale)
    common = br.choose_strength(Two(outputs), br.Gaussian(1.0), noise, data)
    seen = [br.strength.evidence(c.model, c.prior, choice.likelihood, data).log_evidence for c in (common, choice)]
    assert seen[1] > seen[0] + 2.0
    assert "scale of 'b.*'" in str(choice)
    assert "Widths of 'b.*' times" in str(choice.prior.describe())
    # Every layer in a group is the same as all but one.
    both = br.choose_strength(Two(outputs), br.Gaussian(1.0), noise, data, groups=["b.*", "a.*"])
    assert [group.scale for group in both.groups] == pytest.approx([own.scale, choice.scale], rel=1e-5)
    assert "All other widths" in str(choice.prior.describe())
    assert "All other widths" not in str(both.prior.describe())


def test_the_model_is_at_the_map_of_its_scales():
    data = halves(3)
    for groups in ("each", ["b.*"]):
        choice = br.choose_strength(Two(3), br.Gaussian(1.0), LEARNED, data, groups=groups)
        objective = choice.likelihood.nll(choice.model(data[0]), data[1]).sum() - choice.prior.log_prob()
        slopes = torch.autograd.grad(objective, list(choice.model.parameters()))
        assert max(float(slope.abs().max()) for slope in slopes) < 1e-7


def test_a_group_is_walked_after_the_common_scale():
    """Many columns of noise beside those that tell: the layer on them alone should be narrow."""
    (X, y), (Xt, yt) = standardised(load_breast_cancer, 60, 0)

    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.told, self.idle = nn.Linear(30, 2), nn.Linear(60, 2, bias=False)
            self.double()

        def forward(self, x):
            return self.told(x[:, :30]) + self.idle(x[:, 30:])

    generator = torch.Generator().manual_seed(0)
    X, Xt = (torch.cat([x, torch.randn(len(x), 60, generator=generator).double()], 1) for x in (X, Xt))
    model = Beside()
    common = br.choose_strength(model, br.Gaussian(1.0), CLASSES, (X, y))
    choice = br.choose_strength(model, br.Gaussian(1.0), CLASSES, (X, y), groups=["idle.*"])
    (own,) = choice.groups
    assert own.scale < 0.5 * choice.scale
    assert choice.scale == common.scale
    assert min(step.objective for step in own.steps) < min(step.objective for step in common.steps)
    assert float(choice.prior["idle.weight"].scale) == pytest.approx(own.scale)
    assert float(choice.prior["told.weight"].scale) == pytest.approx(choice.scale)
    assert choice.evaluations > common.evaluations
    low, high = own.interval
    assert (low or 0.0) < own.scale < (high or math.inf)
    with torch.no_grad():
        nll = [float(nn.functional.cross_entropy(c.model(Xt), yt)) for c in (common, choice)]
    assert nll[1] < nll[0]


def test_a_group_and_a_noise_that_is_learned(diabetes):
    order = np.random.default_rng(0).permutation(442)[:80]
    data = diabetes[0][order], diabetes[1][order]
    model = network(10, 6, 1)
    model[1] = nn.Tanh()  # without kinks a fit ends at rest
    choice = br.choose_strength(model, br.Gaussian(1.0), LEARNED, data, groups=["2.*"])
    found = br.strength.loo(choice.model, choice.prior, choice.likelihood, data)
    assert found.noise_std == pytest.approx(choice.likelihood.noise_std, rel=1e-6)
    assert float(choice.prior["2.weight"].scale) == pytest.approx(choice.groups[0].scale)
    assert float(choice.prior["0.weight"].scale) == pytest.approx(choice.scale)
    assert found.gradient < 1e-4


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"groups": "ones"}, br.InvalidArgumentError, "expected 'one', 'each' or a list of rules"),
        ({"groups": np.empty((0, 3))}, br.InvalidArgumentError, "or a list of rules .*, got "),
        ({"groups": []}, br.InvalidArgumentError, "expected 'one', 'each' or a list of rules"),
        ({"groups": ["c.*"]}, br.PatternError, r"groups 'c\.\*': expected a rule that matches a parameter"),
        ({"groups": ["a.*", "a.weight"]}, br.PatternError, "that no rule before it has"),
        ({"groups": ["a.bias"]}, br.PatternError, "a parameter with a prior"),
        ({"groups": "each", "prior": br.StudentT(4.0, 1.0)}, br.UnsupportedError, "give groups as rules"),
        ({"groups": ["a.*"], "method": "loo"}, br.UnsupportedError, "go by the evidence"),
    ],
)  # fmt: skip
def test_what_it_refuses(given, error, match):
    with pytest.raises(error, match=match):
        br.choose_strength(**{
            "model": Two(),
            "prior": br.Gaussian(1.0),
            "likelihood": LEARNED,
            "data": halves(),
            **given,
        })
