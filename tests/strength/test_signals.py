"""What speaks against a choice: each signal has data that trigger it, and data that do not."""

import contextlib
import warnings

import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.strength.signals import of_walk
from bayesreg.strength.walk.points import Measured, Point
from bayesreg.strength.walk.walk import Walked
from tests.strength.test_choose import CLASSES, network


def draws(n, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, d, generator=generator).double()
    return X, torch.randint(0, 2, (n,), generator=generator), torch.randn(n, 1, generator=generator).double()


def loud(name):
    return pytest.warns(br.StrengthWarning, match=name) if name else contextlib.nullcontext()


def choose(model, data, likelihood=CLASSES, said=None, **settings):
    with loud(said), warnings.catch_warnings():
        if said is None:
            warnings.simplefilter("error", br.StrengthWarning)
        return br.choose_strength(model, br.Gaussian(1.0), likelihood, data, **settings)


def test_labels_that_are_noise_leave_a_linear_model_undecided():
    X, labels, _ = draws(30, 2)
    choice = choose(nn.Linear(2, 2).double(), (X, labels))
    assert set(choice.warnings) == {"undecided"}
    assert choice.interval[0] < 0.1 * choice.scale
    told = choose(nn.Linear(2, 2).double(), (X, (X[:, 0] + 0.3 * X[:, 1] > 0).long()))
    assert "undecided" not in told.warnings


def test_a_network_on_labels_that_are_noise_ends_beside_the_collapse():
    X, labels, _ = draws(60, 5)
    choice = choose(network(5, 20, 2), (X, labels), said="The strongest prior that was tried")
    assert {"end", "collapse"} <= choice.warnings.keys()
    assert "collapsed" in choice.warnings["end"]
    assert choice.interval[0] is None


def test_data_that_want_no_prior_end_at_the_weakest():
    """Weights of a hundred thousand: no prior within reach of the one that was given is wide enough."""
    X, _, noise = draws(60, 5)
    data = X, 1e5 * X.sum(1, keepdim=True) + 100.0 * noise
    choice = choose(
        nn.Linear(5, 1).double(),
        data,
        br.likelihoods.Gaussian(100.0),
        said="The weakest prior that was",
        method="split",
    )
    assert "the best may lie beyond it" in choice.warnings["end"]
    assert choice.interval[1] is None
    assert choice.scale == pytest.approx(1000.0)


def lone(n=60):
    """Return inputs of which one alone has the last feature, and what is to be said of it."""
    X, _, noise = draws(n, 5)
    X[0], X[:, 4] = 0.0, 0.0
    X[0, 4] = 100.0
    target = X[:, :1] + 0.1 * noise
    target[0] = 3.0
    return X, target


def test_an_example_that_decides_alone_has_leverage():
    linear = choose(nn.Linear(5, 1).double(), lone(), br.likelihoods.Gaussian(0.1))
    assert "extrapolates" in linear.warnings["leverage"]
    deep = choose(network(5, 20, 1), lone(), br.likelihoods.Gaussian(0.1), said="no minimum")
    assert "leverage" in deep.warnings
    X, target = lone()
    assert (
        "leverage" not in choose(nn.Linear(5, 1).double(), (X[1:], target[1:]), br.likelihoods.Gaussian(0.1)).warnings
    )


def test_a_fit_that_is_no_minimum_is_said_where_that_moves_its_score():
    """Its one example with leverage makes the score jump as training goes on."""
    choice = choose(network(5, 20, 1), lone(), br.likelihoods.Gaussian(0.1), said="a gradient of")
    assert "method='folds'" in choice.warnings["gradient"]


def two_scales(strong):
    """Return data with large directions that matter little, small ones that matter much, and idle ones between."""
    generator = torch.Generator().manual_seed(0)
    directions, _ = torch.linalg.qr(torch.randn(80, 60, generator=generator).double())
    length = torch.cat([torch.full((5,), 30.0), torch.ones(45), torch.full((10,), 0.02)]).double()
    weights = torch.cat([torch.full((5,), 0.3), torch.zeros(45), torch.full((10,), strong)]).double()
    X = directions * length
    return X, (X @ weights)[:, None] + torch.randn(80, 1, generator=generator).double()


@pytest.mark.parametrize(("method", "strong"), [("evidence", 340.0), ("loo", 228.0)])
def test_weights_of_two_scales_have_several_strengths(method, strong):
    model, noise = nn.Linear(60, 1, bias=False).double(), br.likelihoods.Gaussian(1.0)
    choice = choose(model, two_scales(strong), noise, method=method, hyperprior=None)
    assert "several" in choice.warnings
    assert "disagree" in choice.warnings
    values = [step.objective for step in choice.steps]
    assert "several" not in choose(model, two_scales(0.0), noise, method=method, hyperprior=None).warnings
    # A scale for every weight gives each kind its own.
    each = choose(model, two_scales(strong), noise, groups="each", hyperprior=None).groups[0].scale[0]
    assert float(each[:5].median()) < 1.0
    assert float(each[50:].median()) > 100.0
    assert len(values) > 10


def walked(values, **more):
    points = [
        Point(at, Measured(10.0**at, value, 0.0, **more), value * 100, 0.0, None) for at, value in enumerate(values)
    ]
    return dict(of_walk(Walked(points, (), 0), 100))


def test_several_minima_of_a_walk():
    assert "several" in walked([1.0, 0.5, 0.9, 0.52, 1.0])
    # The other one is worse by more than 5 nats; the hill between is under 2; there is no other.
    assert "several" not in walked([1.0, 0.5, 0.9, 0.6, 1.0])
    assert "several" not in walked([1.0, 0.5, 0.51, 0.505, 1.0])
    assert "several" not in walked([1.0, 0.5, 0.9, 1.0, 1.2])


def test_evidence_of_the_fits_that_asks_for_another_strength():
    def opinions(evidences):
        points = [
            Point(at, Measured(10.0**at, value, 0.0, log_evidence=evidence), value * 100, 0.0, None)
            for at, (value, evidence) in enumerate(zip([1.0, 0.5, 1.0], evidences, strict=True))
        ]
        return dict(of_walk(Walked(points, (), 0), 100))

    assert "scale of 100" in opinions([-90.0, -80.0, -70.0])["disagree"]
    assert "disagree" not in opinions([-90.0, -60.0, -70.0])
    assert "disagree" not in opinions([-90.0, None, -70.0])
