"""Choosing while training in batches, and with priors that have kinks."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from bayesreg.data import Batch, Reading
from bayesreg.strength.signals import of_norms
from bayesreg.strength.walk.full_batch import _Counted, _Whole
from bayesreg.strength.walk.held_out import Task
from bayesreg.strength.walk.parts import parts_of
from bayesreg.strength.walk.stochastic import Stochastic

CLASSES = br.likelihoods.Categorical()
ADAM = partial(torch.optim.Adam, lr=3e-3)


def digits(n=250, seed=0):
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    X, y = torch.tensor(X / 16.0, dtype=torch.float32), torch.tensor(y)
    return (X[order[:n]], y[order[:n]]), (X[order[n : n + 500]], y[order[n : n + 500]])


def network(*extra, width=32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, width), *extra, nn.ReLU(), nn.Linear(width, 10))


def nll(choice, data):
    with torch.no_grad():
        choice.model.eval()
        return float(F.cross_entropy(choice.model(data[0]), data[1]))


@pytest.mark.slow
@pytest.mark.parametrize("extra", [[], [nn.BatchNorm1d(32)], [nn.Dropout(0.2)]], ids=["plain", "batch norm", "dropout"])
def test_any_optimizer(extra):
    train, test = digits()
    model = network(*extra)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    choice = br.choose_strength(
        model, br.Gaussian(1.0), CLASSES, train, optimizer=ADAM, batch_size=50, max_epochs=30, seed=3
    )
    assert choice.method == "split"
    assert "training in batches" in choice.why
    assert nll(choice, test) < 0.45
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # A first fit of four fifths, steps of ten epochs (some at its own strength, until it rests), half a fit of all.
    steps = (choice.evaluations - 0.8 * 30 - 15) / (0.8 * 10)
    assert steps == pytest.approx(round(steps))
    assert len(choice.steps) <= round(steps) <= len(choice.steps) + 9
    again = br.choose_strength(
        model, br.Gaussian(1.0), CLASSES, train, optimizer=ADAM, batch_size=50, max_epochs=30, seed=3
    )
    assert again.scale == choice.scale


@pytest.mark.slow
def test_time_is_not_taken_for_strength(monkeypatch):
    """From a fit that is stopped early any walk finds better points, and the further it goes the better."""
    train, _ = digits()
    settings = {"optimizer": partial(torch.optim.Adam, lr=1e-2), "batch_size": 50, "max_epochs": 3}
    rested = br.choose_strength(network(), br.Gaussian(1.0), CLASSES, train, **settings)
    assert "training" not in rested.warnings
    first = next(step for step in rested.steps if step.scale == 1.0)
    assert first.evaluations > 0.8 * 3 + 0.8 * 10
    monkeypatch.setattr("bayesreg.strength.walk.stochastic._MORE", 1)
    hurried = br.choose_strength(network(), br.Gaussian(1.0), CLASSES, train, **settings)
    assert "training" in hurried.warnings
    spread = [
        max(s.held_out_nll for s in choice.steps if s.scale >= 1.0)
        - min(s.held_out_nll for s in choice.steps if s.scale >= 1.0)
        for choice in (rested, hurried)
    ]
    assert spread[0] < spread[1]


@pytest.mark.slow
def test_random_models_are_trained_in_batches_unasked():
    train, _ = digits(100)
    choice = br.choose_strength(
        network(nn.Dropout(0.1)), br.Gaussian(1.0), CLASSES, train, max_epochs=40, batch_size=10
    )
    assert choice.method == "folds"


@pytest.mark.parametrize("on_head", [True, False])
def test_a_norm_behind_weights_with_a_prior_is_said(on_head):
    rules = (
        {br.biases | br.norms: br.Flat(), "0.weight": br.Flat(), "*": br.Gaussian(1.0)} if on_head else br.Gaussian(1.0)
    )
    model = network(nn.BatchNorm1d(32))
    found = dict(of_norms(model, br.ModelPrior(model, rules)))
    assert ("batch norm" in found) != on_head
    assert on_head or "0.weight" in found["batch norm"]


@pytest.mark.slow
def test_training_that_learns_nothing_says_so():
    train, _ = digits(100)
    with pytest.warns(br.StrengthWarning, match="train longer"):
        choice = br.choose_strength(
            network(width=4),
            br.Gaussian(1.0),
            CLASSES,
            train,
            optimizer=partial(torch.optim.SGD, lr=1e-6),
            max_epochs=1,
        )
    assert "collapsed" in choice.warnings


def ground(model, seed=0, **settings):
    train, _ = digits(100)
    prior = br.ModelPrior(model, br.Gaussian(1.0))
    task = Task(
        model, lambda at, unit: prior, CLASSES, *train, parts_of(train[1], "split", 0), lambda scale: 0.0, None, False
    )
    return Stochastic(task, {"optimizer": ADAM, "batch_size": 20, "max_epochs": 4, **settings}, seed)


def test_a_step_is_scored_by_its_mean_and_goes_on_from_its_end():
    model = network(width=8)
    here = ground(model)
    (first,) = here.begin(0.0)
    (second,) = here.go_on(0.0, [first])
    assert any(not torch.equal(second.last[name], second.mean[name]) for name in second.last)
    # Four batches an epoch; the last five of ten epochs.
    met = []
    prior = br.ModelPrior(model, br.Gaussian(1.0))
    model.load_state_dict(first.last)

    def counted(groups):
        optimizer = ADAM(groups)
        optimizer.register_step_post_hook(lambda *_: met.append({k: v.clone() for k, v in model.state_dict().items()}))
        return optimizer

    inside = here.task.parts[0][0]
    trainer = br.MAPTrainer(model, prior, CLASSES, optimizer=counted, batch_size=20, max_epochs=10, progress=False)
    trainer.fit((here.task.inputs[inside], here.task.targets[inside]))
    assert len(met) == 40
    for name, value in second.mean.items():
        torch.testing.assert_close(value, torch.stack([m[name].double() for m in met[20:]]).mean(0).to(value))
        torch.testing.assert_close(second.last[name], met[-1][name])


def test_norms_see_the_mean_of_the_weights():
    model = network(nn.BatchNorm1d(8), width=8)
    here = ground(model)
    (second,) = here.go_on(0.0, here.begin(0.0))
    here.use(second)
    inside = here.task.parts[0][0]
    features = model[0](here.task.inputs[inside])
    batches = features.detach().split(20)
    torch.testing.assert_close(model[1].running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"optimizer": torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)}, br.InvalidArgumentError, "a factory"),
        ({"optimizer": "adam"}, br.InvalidArgumentError, "'lbfgs', 'proximal' or a factory"),
        ({"optimizer": "lbfgs", "batch_size": 10}, br.InvalidArgumentError, "batch_size.*full-batch solver"),
        ({"patience": 3}, br.InvalidArgumentError, "patience: choose_strength sees to it itself"),
        ({"optimiser": ADAM}, br.InvalidArgumentError, "did you mean 'optimizer'"),
        ({"optimizer": ADAM, "method": "loo"}, br.UnsupportedError, "ends at no minimum"),
    ],
)
def test_what_it_refuses(given, error, match):
    train, _ = digits(50)
    with pytest.raises(error, match=match):
        br.choose_strength(network(width=4), br.Gaussian(1.0), CLASSES, train, **given)


def test_a_solver_refuses_a_model_that_is_random():
    train, _ = digits(50)
    with pytest.raises(br.UnsupportedError, match="Dropout"):
        br.choose_strength(network(nn.Dropout(0.5)), br.Gaussian(1.0), CLASSES, train, optimizer="lbfgs")


# -- kinks -------------------------------------------------------------------------------------------------------------


def cancer(n, seed):
    X, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    a, b = order[:n], order[n : n + 400]
    X = (X - X[a].mean(0)) / X[a].std(0)
    return (torch.tensor(X[a]), torch.tensor(y[a])), (torch.tensor(X[b]), torch.tensor(y[b]))


@pytest.mark.slow
def test_a_lasso_is_walked_from_its_empty_model():
    train, test = cancer(100, 10)
    model = nn.Linear(30, 2).double()
    choice = br.choose_strength(model, br.Laplace(1.0), CLASSES, train)
    prior = br.ModelPrior(model, br.Laplace(1.0))
    null = br.sparsity.null_strength(model, prior, CLASSES, train)
    # On all the data; each fold has its own, near by.
    assert choice.steps[0].scale == pytest.approx(1.0 / null)
    assert choice.steps[0].held_out_nll == pytest.approx(0.66, abs=0.05)  # nearly the frequencies of the classes
    assert nll(choice, test) < 0.13
    zeros = (choice.model.weight == 0).double().mean()
    assert 0.2 < zeros < 0.95


@pytest.mark.slow
def test_a_network_with_kinks_is_walked_from_a_weak_prior():
    train, test = cancer(250, 0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    choice = br.choose_strength(model, br.Laplace(1.0), CLASSES, train)
    scales = [step.scale for step in choice.steps]
    assert min(scales) < 2.0 < max(scales)
    assert choice.steps[-1].evaluations > 2 * choice.steps[0].evaluations  # the fit from scratch
    assert nll(choice, test) < 0.15
    assert 0.1 < (choice.model[0].weight == 0).double().mean() < 1.0


@pytest.mark.slow
def test_a_network_with_kinks_does_not_stay_empty():
    """Walked from where it is nearly empty to weaker priors, it stayed so: an accuracy of .41, and not a word."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X, y = torch.tensor(X[order]) / 16.0, torch.tensor(y[order])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).double()
    choice = br.choose_strength(model, br.Laplace(1.0), CLASSES, (X[:100], y[:100]))
    with torch.no_grad():
        right = (choice.model(X[100:]).argmax(1) == y[100:]).double().mean()
    assert right > 0.8
    assert 0.3 < (choice.model[0].weight == 0).double().mean() < 1.0


def test_one_example_of_a_class_does_not_choose():
    """Leaving it out leaves none: it is never predicted, and the score asks for a network that says nothing."""
    X, y = load_digits(return_X_y=True)
    first = np.concatenate([np.flatnonzero(y == k)[:1] for k in range(10)])
    data = torch.tensor(X[first]) / 16.0, torch.tensor(y[first])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).double()
    choice = br.choose_strength(model, br.Gaussian(3.0), CLASSES, data)
    assert (choice.method, choice.scale) == ("centre", 1.0)
    assert "leaves nothing of its class" in choice.why
    twice = np.concatenate([np.flatnonzero(y == k)[:2] for k in range(10)])
    data = torch.tensor(X[twice]) / 16.0, torch.tensor(y[twice])
    assert br.choose_strength(model, br.Gaussian(3.0), CLASSES, data).method == "loo"
    with pytest.warns(br.StrengthWarning, match="no more than the frequencies"):
        dead = br.choose_strength(model, br.Gaussian(0.01), CLASSES, (data[0][::2], data[1][::2]))
    assert {"centre", "collapsed"} <= dead.warnings.keys()


def test_the_objective_off_its_kinks_is_the_whole_one():
    train, _ = cancer(40, 0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    prior = br.ModelPrior(model, {br.biases: br.Gaussian(0.5), "*": br.Laplace(0.3)})
    problem = _Counted(model, prior, Reading(CLASSES), [Batch(*train)], 40)
    value, grad = _Whole(problem).value_and_grad(problem.get())
    whole = (CLASSES.nll(model(train[0]), train[1]).sum() - prior.log_prob()) / 40
    wanted = torch.cat([g.reshape(-1) for g in torch.autograd.grad(whole, list(model.parameters()))])
    torch.testing.assert_close(grad, wanted)
    # −log p without what does not depend on the weights.
    moved = problem.get() * 1.1
    change = _Whole(problem).value_and_grad(moved)[0] - value
    after = (CLASSES.nll(model(train[0]), train[1]).sum() - prior.log_prob()) / 40
    assert change == pytest.approx(float((after - whole).detach()), rel=1e-9)
    assert problem.count == 2
