"""Likelihoods: NLL against torch.distributions, predictive distributions, refusals."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import distributions, nn

import bayesreg as br

L = br.likelihoods


def outputs(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


CASES = [
    (L.Categorical(), outputs(6, 4), torch.arange(6) % 4, lambda o: distributions.Categorical(logits=o)),
    (L.Bernoulli(), outputs(6), (torch.arange(6) % 2).double(), lambda o: distributions.Bernoulli(logits=o)),
    (L.Gaussian(0.7), outputs(6), outputs(6) + 1, lambda o: distributions.Normal(o, 0.7)),
    (L.Poisson(), outputs(6), torch.arange(6).double(), lambda o: distributions.Poisson(o.exp())),
    (L.FromLoss(nn.CrossEntropyLoss()), outputs(6, 4), torch.arange(6) % 4,
     lambda o: distributions.Categorical(logits=o)),
    (L.FromLoss(nn.MSELoss(), noise_std=0.7), outputs(6), outputs(6) + 1, lambda o: distributions.Normal(o, 0.7)),
    (L.FromLoss(nn.BCEWithLogitsLoss()), outputs(6), (torch.arange(6) % 2).double(),
     lambda o: distributions.Bernoulli(logits=o)),
]  # fmt: skip


@pytest.mark.parametrize(("likelihood", "output", "target", "truth"), CASES)
def test_nll_is_minus_the_log_probability(likelihood, output, target, truth):
    expected = -truth(output).log_prob(target)
    assert torch.allclose(likelihood.nll(output, target), expected, rtol=1e-12)
    predictive = likelihood.predictive(output)
    assert torch.allclose(predictive.log_prob(target), -expected, rtol=1e-12)
    assert likelihood.metric(output, target).shape == (6,)


def test_output_dimensions_are_summed_per_example():
    output, target = outputs(5, 3), outputs(5, 3)
    one = L.Gaussian(1.0)
    assert torch.allclose(one.nll(output, target), sum(one.nll(output[:, k], target[:, k]) for k in range(3)))
    sequence, labels = outputs(5, 4, 7), torch.randint(0, 4, (5, 7))
    labels[0, :3] = -100
    expected = nn.functional.cross_entropy(sequence, labels, reduction="none").sum(1)
    assert torch.allclose(L.Categorical().nll(sequence, labels), expected)
    assert torch.allclose(L.FromLoss(nn.CrossEntropyLoss()).nll(sequence, labels), expected)


@pytest.mark.parametrize("likelihood", [L.Gaussian(1.0), L.Bernoulli(), L.Poisson()])
def test_a_column_against_a_vector_does_not_broadcast(likelihood):
    column, vector = outputs(5, 1), torch.ones(5, dtype=torch.float64)
    assert likelihood.nll(column, vector).shape == (5,)
    assert torch.allclose(likelihood.nll(column, vector), likelihood.nll(column[:, 0], vector))
    with pytest.raises(br.DataError, match=r"one target per output, got output of shape \(5, 3\) and target of shape"):
        likelihood.nll(outputs(5, 3), vector)


def test_learned_noise_is_a_parameter_and_finds_the_noise():
    likelihood = L.Gaussian(noise_std="learned")
    assert [n for n, _ in likelihood.named_parameters()] == ["log_noise_std"]
    assert likelihood.noise_std == 1.0
    target = 0.3 * torch.randn(500, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(likelihood.parameters(), line_search_fn="strong_wolfe", max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = likelihood.nll(torch.zeros(500, dtype=torch.float64), target).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert likelihood.noise_std == pytest.approx(target.square().mean().sqrt().item(), rel=1e-5)


def test_metrics():
    assert L.Categorical().metric(torch.eye(3), torch.tensor([0, 1, 0])).tolist() == [1.0, 1.0, 0.0]
    assert L.Bernoulli().metric(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0])).tolist() == [1.0, 0.0]
    assert L.Gaussian(1.0).metric(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0])).tolist() == [0.0, 4.0]


def test_a_loss_keeps_its_weights_and_smoothing_and_is_not_changed():
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0], dtype=torch.float64), label_smoothing=0.1)
    output, target = outputs(4, 2), torch.tensor([0, 1, 1, 0])
    expected = nn.functional.cross_entropy(output, target, weight=loss.weight, label_smoothing=0.1, reduction="none")
    assert torch.allclose(L.FromLoss(loss).nll(output, target), expected)
    assert loss.reduction == "mean"


def test_a_function_can_be_a_loss():
    likelihood = L.FromLoss(lambda output, target: (output - target).abs().sum(1))
    assert likelihood.nll(torch.zeros(2, 3), torch.ones(2, 3)).tolist() == [3.0, 3.0]
    with pytest.raises(br.UnsupportedError, match="the distribution this loss stands for is not known"):
        likelihood.predictive(torch.zeros(2, 3))
    with pytest.raises(br.DataError, match=r"expected one value per example or element, \(2, \.\.\.\)"):
        L.FromLoss(lambda output, target: (output - target).mean()).nll(torch.zeros(2, 3), torch.ones(2, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: L.Gaussian(0.0), br.InvalidArgumentError, "noise_std: expected a value > 0, got 0"),
        (lambda: L.Gaussian("auto"), br.InvalidArgumentError, "a number > 0 or 'learned', got 'auto'"),
        (lambda: L.FromLoss(nn.MSELoss()), br.InvalidArgumentError, "MSELoss is a likelihood only together with"),
        (lambda: L.FromLoss(nn.BCELoss(), noise_std=1.0), br.InvalidArgumentError, "only MSELoss takes one"),
        (lambda: L.Bernoulli().nll(outputs(2), torch.tensor([0.0, 2.0])), br.DataError, r"targets in \[0, 1\]"),
        (lambda: L.Poisson().nll(outputs(2), torch.tensor([0.0, -2.0])), br.DataError, "expected counts >= 0"),
        (lambda: L.Categorical().nll(outputs(2, 3), torch.zeros(2)), br.DataError, "expected integer class indices"),
        (lambda: L.Categorical().nll(outputs(2), torch.zeros(2).long()), br.DataError, r"\(batch, classes, \.\.\.\)"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_broadcasts_inside_a_loss_are_refused():
    """(batch, 1) against (batch,) gives (batch, batch), whose length hides the mistake."""
    with pytest.raises(br.DataError, match=r"got \(4, 4\) for output \(4, 1\) and target \(4,\)"):
        L.FromLoss(lambda o, t: (o - t) ** 2).nll(torch.zeros(4, 1), torch.arange(4.0))
    with pytest.raises(br.DataError, match="MSELoss: expected one target per output"):
        L.FromLoss(nn.MSELoss(), noise_std=1.0).nll(torch.zeros(4, 2), torch.zeros(4, 1))
    with pytest.raises(br.DataError, match="Gaussian: expected one target per output"):
        L.Gaussian(1.0).nll(torch.zeros(1, 2, 3), torch.zeros(1, 3, 2))


def test_labels_outside_the_classes_are_named():
    with pytest.raises(br.DataError, match=r"class indices from 0 to 2 \(the model has 3 outputs\), got 0 to 3"):
        L.Categorical().nll(torch.zeros(2, 3), torch.tensor([0, 3]))


def test_constants_are_counted():
    assert L.Gaussian(1.0).nll(torch.zeros(1), torch.zeros(1)).item() == pytest.approx(0.5 * math.log(2 * math.pi))
    assert L.Poisson().nll(torch.zeros(1), torch.tensor([3.0])).item() == pytest.approx(1 + math.log(6))


NOISE = {
    "half-normal": br.hyperpriors.HalfNormal(0.2),
    "inverse gamma": br.hyperpriors.InverseGamma(3.0, 0.5),
    "gamma": br.hyperpriors.Gamma(2.0, 3.0),
}


@pytest.mark.parametrize(
    ("prior", "how"),
    [*((name, "lbfgs") for name in NOISE), ("gamma", "accumulated"), ("half-normal", "torch LBFGS")],
)
def test_a_prior_on_the_noise_counts_once_in_log_tau(prior, how):
    prior = NOISE[prior]
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(40, 2, generator=generator).double()
    y = X @ torch.tensor([[1.0], [-1.0]]).double() + 0.5 * torch.randn(40, 1, generator=generator).double()
    model, likelihood = nn.Linear(2, 1).double(), L.Gaussian("learned", prior=prior)
    settings = {"optimizer": "lbfgs", "tolerance": 1e-10}
    if how == "accumulated":
        # Four micro-batches a step, and the prior once.
        sgd = partial(torch.optim.SGD, lr=0.3)
        settings = {"optimizer": sgd, "max_epochs": 300, "batch_size": 10, "accumulate": 4}
    if how == "torch LBFGS":
        solver = partial(torch.optim.LBFGS, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=1e-16)
        settings = {"optimizer": solver, "max_epochs": 20, "batch_size": 40}
    result = br.MAPTrainer(model, br.Gaussian(1.0), likelihood, progress=False, **settings).fit((X, y))
    eta = likelihood.log_noise_std.detach().clone().requires_grad_()
    error = (y - model(X)).detach()
    joint = (0.5 * (error * torch.exp(-eta)).square() + eta).sum() - prior.log_scale_density(eta)[0]
    assert float(torch.autograd.grad(joint, eta)[0]) == pytest.approx(0.0, abs=1e-6)
    # The density of log τ is normalised: with it log_prior is that of weights and noise together.
    own = br.ModelPrior(model, br.Gaussian(1.0)).log_prob() + prior.log_scale_density(eta)[0]
    assert result.log_prior == pytest.approx(float(own.detach()))
    assert result.objective == pytest.approx(result.mean_nll - (result.log_prior - result.log_prior_constant) / 40)


def test_a_prior_on_a_noise_that_is_known_is_refused():
    with pytest.raises(br.InvalidArgumentError, match="on a noise that is learned"):
        L.Gaussian(0.5, prior=br.hyperpriors.HalfNormal(1.0))
    assert "HalfNormal" in L.Gaussian("learned", prior=br.hyperpriors.HalfNormal(1.0)).describe()
