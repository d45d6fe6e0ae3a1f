"""`br.choose_strength` by walking: what it gives back, what it leaves alone, what it says."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import bayesreg as br
from bayesreg.strength.route import route
from bayesreg.strength.setting import Setting

CLASSES = br.likelihoods.Categorical()


def standardised(load, n, seed, test=500):
    X, y = load(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    fit, rest = order[:n], order[n : n + test]
    mean, std = X[fit].mean(0), X[fit].std(0) + 1e-12
    return [(torch.tensor((X[part] - mean) / std), torch.tensor(y[part])) for part in (fit, rest)]


def network(*widths, seed=0):
    torch.manual_seed(seed)
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).double()


@pytest.mark.slow
def test_a_network_on_wine():
    """The prior as given, N(0, 1), kills the network from a strong start; the walk ends below .15 nats."""
    data, (X, y) = standardised(load_wine, 40, 1)
    model = network(13, 50, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    choice = br.choose_strength(model, br.Gaussian(1.0), CLASSES, data)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    with torch.no_grad():
        assert float(F.cross_entropy(choice.model(X), y)) < 0.15
    assert choice.method == "loo"
    low, high = choice.interval
    assert (low or 0.0) < choice.scale < (high or math.inf)
    assert float(choice.prior["0.weight"].scale) == pytest.approx(choice.scale)
    assert choice.weight_decay() == pytest.approx(1.0 / (40 * choice.scale**2))
    assert choice.weight_decay(400) == pytest.approx(choice.weight_decay() / 10.0)
    assert sum(step.evaluations for step in choice.steps) <= choice.evaluations
    again = br.choose_strength(model, br.Gaussian(1.0), CLASSES, data)
    assert again.scale == choice.scale
    for name, value in choice.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


@pytest.mark.slow
def test_a_second_look_at_a_fit_leaves_the_last_one_in_the_model(monkeypatch):
    """Where the gradient is large the best fit is taken further, to see whether its score stays."""
    data, _ = standardised(load_wine, 40, 1)
    choices = []
    for limit in (float("inf"), -1.0):
        monkeypatch.setattr("bayesreg.strength.by_walk.STATIONARY", limit)
        choices.append(br.choose_strength(network(13, 8, 3), br.Gaussian(1.0), CLASSES, data))
    assert choices[0].evaluations < choices[1].evaluations
    assert choices[0].scale == choices[1].scale
    for one, other in zip(choices[0].model.parameters(), choices[1].model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "kind", [lambda d: d, lambda d: DataLoader(d, batch_size=7), lambda d: DataLoader(d, 40, True)]
)
def test_a_dataset_is_read_whole(kind):
    data, _ = standardised(load_wine, 40, 1)
    dataset = kind(TensorDataset(data[0].float(), data[1]))
    model = nn.Linear(13, 3).double()
    arrays = br.choose_strength(model, br.Gaussian(1.0), CLASSES, data)
    found = br.choose_strength(model, br.Gaussian(1.0), CLASSES, dataset)
    assert found.num_data == 40
    assert found.scale == pytest.approx(arrays.scale, rel=1e-3)


def test_the_prior_belongs_to_the_copy():
    data, _ = standardised(load_wine, 40, 1)
    model = network(13, 8, 3)
    choice = br.choose_strength(model, br.Gaussian(1.0), CLASSES, data)
    own = {id(p) for p in choice.model.parameters()}
    assert all(id(entry.parameter) in own for entry in choice.prior)
    result = br.MAPTrainer(choice.model, choice.prior, CLASSES, optimizer="lbfgs", tolerance=1e-2, progress=False).fit(
        data
    )
    assert result.converged


def test_a_dead_start_begins_weaker():
    data, (X, y) = standardised(load_wine, 40, 0)
    choice = br.choose_strength(network(13, 50, 3), br.Gaussian(0.03), CLASSES, data)
    assert "collapse at start" in choice.warnings
    with torch.no_grad():
        assert float(F.cross_entropy(choice.model(X), y)) < 0.4


def test_a_linear_model_does_not_collapse():
    data, _ = standardised(load_breast_cancer, 60, 0)
    choice = br.choose_strength(nn.Linear(30, 2).double(), br.Gaussian(0.03), CLASSES, data)
    assert "collapse at start" not in choice.warnings
    assert 0.1 < choice.scale * 0.03 < 10.0


def test_scale_multiplies_the_shape():
    data, _ = standardised(load_wine, 40, 3)
    model = network(13, 8, 3)
    prior = br.ModelPrior(model, {br.biases: br.Flat(), "0.*": br.Gaussian(0.5), "*": br.FanInGaussian(1.0)})
    choice = br.choose_strength(model, prior, CLASSES, data)
    assert float(choice.prior["0.weight"].scale) == pytest.approx(0.5 * choice.scale)
    assert float(choice.prior["2.weight"].scale) == pytest.approx(choice.scale / math.sqrt(8))
    assert set(choice.weight_decay()) == {"0.weight", "2.weight"}
    same = br.choose_strength(
        model, {br.biases: br.Flat(), "0.*": br.Gaussian(0.5), "*": br.FanInGaussian(1.0)}, CLASSES, data
    )
    assert same.scale == choice.scale


@pytest.mark.parametrize("method", ["split", pytest.param("folds", marks=pytest.mark.slow)])
def test_held_out_fifths(method):
    data, (X, y) = standardised(load_breast_cancer, 60, 0)
    choice = br.choose_strength(network(30, 4, 2), br.Gaussian(1.0), CLASSES, data, method=method)
    assert choice.method == method
    with torch.no_grad():
        assert float(F.cross_entropy(choice.model(X), y)) < 0.25
    other = br.choose_strength(network(30, 4, 2), br.Gaussian(1.0), CLASSES, data, method=method, seed=1)
    assert other.scale != choice.scale


def setting(model, prior, data, training=None):
    prior = br.ModelPrior(model, prior)
    return Setting.of(model.eval(), prior, CLASSES, *data, br.hyperpriors.HalfCauchy(1.0), 0, training)


def test_the_route_goes_by_what_there_is():
    X, y = load_digits(return_X_y=True)
    X, y = torch.tensor(X / 16.0), torch.tensor(y)
    model = nn.Linear(64, 10).double()
    ways = {n: route(setting(model, br.Gaussian(1.0), (X[:n], y[:n])), "auto") for n in (199, 201, 199 * 5)}
    assert [ways[n].method for n in ways] == ["loo", "split", "split"]
    assert "40 examples" in ways[201].because
    kinked = route(setting(model, br.Laplace(1.0), (X[:199], y[:199])), "auto")
    assert (kinked.method, "kinks" in kinked.because) == ("folds", True)
    folded = route(setting(model, br.StudentT(4.0, 1.0), (X[:199], y[:199])), "auto")
    assert (folded.method, "not convex" in folded.because) == ("folds", True)
    trained = route(setting(model, br.Gaussian(1.0), (X[:199], y[:199]), {}), "auto")
    assert (trained.method, "batches" in trained.because) == ("folds", True)


def test_learned_noise_of_a_network():
    X, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(10).permutation(len(y))
    a, b = order[:100], order[100:]
    X, y = (X - X[a].mean(0)) / X[a].std(0), (y - y[a].mean()) / y[a].std()
    data = torch.tensor(X[a]), torch.tensor(y[a])
    choice = br.choose_strength(network(10, 50, 1), br.Gaussian(1.0), br.likelihoods.Gaussian("learned"), data)
    assert choice.method == "loo"
    with torch.no_grad():
        nll = float(choice.likelihood.nll(choice.model(torch.tensor(X[b])), torch.tensor(y[b])).mean())
    # Ridge with its strength and noise by leave-one-out has 1.07 on average over such splits; noise alone 1.42.
    assert nll < 1.2
    assert 0.5 < choice.likelihood.noise_std < 0.95
    found = br.strength.loo(choice.model, choice.prior, choice.likelihood, data)
    assert found.noise_std == pytest.approx(choice.likelihood.noise_std, rel=1e-6)


@pytest.mark.slow
def test_targets_in_other_units_have_noise_and_steps_in_those():
    X, y = load_diabetes(return_X_y=True)
    X, y = torch.tensor((X - X.mean(0)) / X.std(0))[:80], torch.tensor((y - y.mean()) / y.std())[:80]
    found = [
        br.choose_strength(
            network(10, 6, 1), br.Gaussian(1.0), br.likelihoods.Gaussian("learned"), (X, unit * y), hyperprior=None
        )
        for unit in (1.0, 1000.0)
    ]
    assert 300.0 < found[1].likelihood.noise_std / found[0].likelihood.noise_std < 3000.0
    for choice in found:
        scales = [step.scale for step in choice.steps]
        assert min(scales) <= choice.scale <= max(scales)


@pytest.mark.slow
def test_a_centre_with_few_examples_decides():
    data, _ = standardised(load_wine, 12, 0)
    model = network(13, 8, 3)
    reference = {name: value + 0.1 for name, value in model.state_dict().items()}
    prior = br.Gaussian.centered_at(reference, scale=0.3)
    choice = br.choose_strength(model, prior, CLASSES, data)
    assert choice.method == "centre"
    assert choice.scale == 1.0
    assert "centre" in choice.warnings
    enough = br.choose_strength(model, prior, CLASSES, standardised(load_wine, 60, 0)[0])
    assert enough.method == "loo"


def test_signals_are_in_the_summary():
    data, _ = standardised(load_wine, 15, 0)
    choice = br.choose_strength(nn.Linear(13, 3).double(), br.Gaussian(1.0), CLASSES, data)
    assert "few" in choice.warnings
    assert "few:" in str(choice.summary())
    assert choice.to_dict()["warnings"] == choice.warnings


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"method": "lo"}, br.InvalidArgumentError, r"expected one of auto.*did you mean 'loo'"),
        ({"method": "evidence"}, br.UnsupportedError, "not linear in its weights"),
        ({"prior": br.Flat()}, br.InvalidArgumentError, "flat ones only"),
        ({"prior": br.Laplace(1.0), "method": "loo"}, br.UnsupportedError, "kinks"),
        ({"prior": br.NormalGamma(2.0, 0.1)}, br.UnsupportedError, "width that can be multiplied, got NormalGamma"),
        ({"data": (torch.zeros(3, 13),)}, br.DataError, "pair"),
        ({"model": nn.Linear(2, 3).double()}, br.DataError, r"cannot take inputs of shape \(30, 13\)"),
    ],
)
def test_what_it_refuses(given, error, match):
    data, _ = standardised(load_wine, 30, 0)
    arguments = {"model": network(13, 4, 3), "prior": br.Gaussian(1.0), "likelihood": CLASSES, "data": data, **given}
    with pytest.raises(error, match=match):
        br.choose_strength(**arguments)


def test_a_family_is_a_prior_of_scale_one():
    data, _ = standardised(load_wine, 30, 0)
    one = br.choose_strength(network(13, 4, 3), br.Gaussian, CLASSES, data)
    other = br.choose_strength(network(13, 4, 3), br.Gaussian(1.0), CLASSES, data)
    assert one.scale == other.scale
    with pytest.raises(br.InvalidArgumentError, match="a prior such as"):
        br.choose_strength(network(13, 4, 3), br.ElasticNet, CLASSES, data)


def test_without_a_hyperprior_and_with_another():
    data, _ = standardised(load_breast_cancer, 50, 3)
    model = nn.Linear(30, 2).double()
    scales = [
        br.choose_strength(model, br.Gaussian(1.0), CLASSES, data, hyperprior=h).scale
        for h in (None, br.hyperpriors.HalfCauchy(1.0), br.hyperpriors.HalfNormal(0.3))
    ]
    # Nearly separable: the data alone want hardly any prior.
    assert scales[0] > scales[1] > scales[2]
