"""The Fisher information against brute force and closed forms, and the Bayesian update that it makes exact."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bayesreg as br
from tests.sampling import slow

LIKELIHOODS = {
    "categorical": (br.likelihoods.Categorical(), lambda g: torch.randint(0, 3, (7,), generator=g)),
    "gaussian": (br.likelihoods.Gaussian(noise_std=0.5), lambda g: torch.randn(7, 3, generator=g).double()),
    "bernoulli": (br.likelihoods.Bernoulli(), lambda g: torch.randint(0, 2, (7, 3), generator=g).double()),
    "poisson": (br.likelihoods.Poisson(), lambda g: torch.randint(0, 5, (7, 3), generator=g).double()),
}


class Temperature(nn.Module):
    """A parameter without dimensions."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(1.3))

    def forward(self, x):
        return self.rate * x


def task(name, *more):
    torch.manual_seed(0)
    layers = [nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3), *more]
    model = nn.Sequential(*layers).double()
    likelihood, targets = LIKELIHOODS[name]
    generator = torch.Generator().manual_seed(1)
    return model, torch.randn(7, 4, generator=generator).double(), targets(generator), likelihood


def brute(model, x, y, likelihood, labels, draws):
    """Sum the outer products of per-example scores, over all labels where these are few, else over draws."""
    model.eval()
    parameters = list(model.parameters())
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    for i in range(len(x)):
        output = model(x[i : i + 1])
        if labels == "empirical":
            cases = [(1.0, y[i : i + 1])]
        elif isinstance(likelihood, br.likelihoods.Categorical):
            p = output.softmax(1)[0].detach()
            cases = [(p[c].item(), torch.tensor([c])) for c in range(3)]
        else:
            sampled = likelihood.predictive(output.detach()).sample((draws,))
            cases = [(1.0 / draws, value.to(torch.float64)) for value in sampled]
        for weight, target in cases:
            nll = likelihood.nll(output, target).sum()
            grads = torch.autograd.grad(nll, parameters, retain_graph=True)
            total += weight * torch.cat([g.flatten() for g in grads]).square()
    return total / len(x)


def flat(found, model):
    return torch.cat([found.values[name].flatten() for name, _ in model.named_parameters()])


@pytest.mark.parametrize("labels", ["expected", "empirical"])
def test_categorical_and_empirical_against_brute_force(labels):
    model, x, y, likelihood = task("categorical", Temperature())
    found = br.transfer.fisher_information(model, (x, y), likelihood, labels=labels)
    exact = brute(model, x, y, likelihood, labels, 0)
    assert (flat(found, model) - exact).abs().max() < 1e-12 * exact.max()


@pytest.mark.parametrize("name", ["gaussian", "bernoulli", "poisson"])
def test_empirical_against_brute_force(name):
    model, x, y, likelihood = task(name)
    found = br.transfer.fisher_information(model, (x, y), likelihood, labels="empirical")
    exact = brute(model, x, y, likelihood, "empirical", 0)
    assert (flat(found, model) - exact).abs().max() < 1e-12 * exact.max()


@pytest.mark.parametrize("name", [slow("gaussian"), "bernoulli", slow("poisson")])
@pytest.mark.slow
def test_expected_is_the_mean_over_the_models_own_labels(name):
    model, x, y, likelihood = task(name)
    torch.manual_seed(3)
    found = flat(br.transfer.fisher_information(model, (x, y), likelihood), model)
    draws = 500
    sampled = brute(model, x, y, likelihood, "expected", draws)
    # Squares of scores vary about as much as their mean: a tenth is several standard errors of the total.
    assert sampled.sum().item() == pytest.approx(found.sum().item(), rel=0.1)
    assert torch.corrcoef(torch.stack([found, sampled]))[0, 1] > 0.99


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_same_for_every_batch_size(size, monkeypatch):
    model, x, y, likelihood = task("categorical")
    whole = br.transfer.fisher_information(model, (x, y), likelihood)
    batches = [(x[i : i + size], y[i : i + size]) for i in range(0, 7, size)]
    parts = br.transfer.fisher_information(model, batches, likelihood)
    assert parts.num_data == whole.num_data == 7
    for name, value in whole.values.items():
        assert torch.allclose(parts.values[name], value, rtol=1e-12, atol=0.0)
    monkeypatch.setattr("bayesreg.transfer.fisher._BUDGET", 1)
    one_by_one = br.transfer.fisher_information(model, (x, y), likelihood)
    assert torch.allclose(one_by_one.values["0.weight"], whole.values["0.weight"], rtol=1e-12, atol=0.0)


def test_the_model_is_left_as_it_was():
    model, x, y, likelihood = task("categorical")
    model.train()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    br.transfer.fisher_information(model, (x, y), likelihood)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_frozen_and_tied_parameters():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 3)).double()
    model[1].weight = model[0].weight
    model[2].weight.requires_grad_(False)
    x, y = torch.randn(6, 3).double(), torch.randint(0, 3, (6,))
    found = br.transfer.fisher_information(model, (x, y), br.likelihoods.Categorical())
    assert set(found.values) == {"0.weight", "2.bias"}
    total = torch.zeros(3, 3, dtype=torch.float64)
    for i in range(6):
        p = model(x[i : i + 1]).softmax(1)[0].detach()
        for c in range(3):
            nll = nn.functional.cross_entropy(model(x[i : i + 1]), torch.tensor([c]))
            total += p[c] * torch.autograd.grad(nll, model[0].weight)[0].square()
    assert torch.allclose(found.values["0.weight"], total / 6, rtol=1e-10)


# -- the Bayesian update ----------------------------------------------------------------------------------


def solve(model, prior, likelihood, data):
    trainer = br.MAPTrainer(model, prior, likelihood, optimizer="lbfgs", tolerance=1e-12, progress=False)
    assert trainer.fit(data).converged


def test_posterior_of_one_task_as_prior_of_the_next_is_fitting_both_at_once():
    """Linear in its parameters, Gaussian noise: the Laplace approximation is the posterior."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 5, generator=generator).double()
    y = (X @ torch.arange(1.0, 6.0).double())[:, None] + torch.randn(60, 1, generator=generator).double()
    likelihood, first, second = br.likelihoods.Gaussian(noise_std=0.8), slice(0, 25), slice(25, 60)
    both = nn.Linear(5, 1, bias=False).double()
    solve(both, {"*": br.Gaussian(2.0)}, likelihood, (X, y))
    model = nn.Linear(5, 1, bias=False).double()
    solve(model, {"*": br.Gaussian(2.0)}, likelihood, (X[first], y[first]))
    learned = br.transfer.fisher_information(model, (X[first], y[first]), likelihood, structure="block")
    prior = br.transfer.ewc_prior(model, learned, prior_precision=0.25)
    solve(model, prior, likelihood, (X[second], y[second]))
    assert (model.weight - both.weight).abs().max() < 1e-8
    # The diagonal alone is not enough here ...
    diagonal = br.transfer.fisher_information(model, (X[first], y[first]), likelihood)
    apart = nn.Linear(5, 1, bias=False).double()
    solve(apart, {"*": br.Gaussian(2.0)}, likelihood, (X[first], y[first]))
    solve(
        apart,
        br.transfer.ewc_prior(apart, _at(diagonal, apart), prior_precision=0.25),
        likelihood,
        (X[second], y[second]),
    )
    assert (apart.weight - both.weight).abs().max() > 1e-3


def _at(found, model):
    centre = {name: p.detach().clone() for name, p in model.named_parameters()}
    return br.transfer.Fisher(found.values, centre, found.num_data, found.structure, found.labels)


def test_orthogonal_tasks_need_only_the_diagonal_also_three_in_a_row():
    """Columns that are orthogonal within each task, several outputs and a bias: three tasks, one after the other."""
    generator = torch.Generator().manual_seed(0)
    tasks = []
    for n in (12, 20, 16):
        q = torch.linalg.qr(torch.cat([torch.ones(n, 1), torch.randn(n, 3, generator=generator)], 1).double())[0]
        tasks.append((q[:, 1:] * n**0.5, torch.randn(n, 2, generator=generator).double()))
    likelihood = br.likelihoods.Gaussian(noise_std=0.6)
    both = nn.Linear(3, 2).double()
    solve(both, {"*": br.Gaussian(1.5)}, likelihood, tuple(torch.cat(part) for part in zip(*tasks, strict=True)))
    model = nn.Linear(3, 2).double()
    prior, learned = br.ModelPrior(model, {"*": br.Gaussian(1.5)}), []
    for data in tasks:
        solve(model, prior, likelihood, data)
        learned.append(br.transfer.fisher_information(model, data, likelihood))
        prior = br.transfer.ewc_prior(model, learned, prior_precision=1.5**-2)
    assert (model.weight - both.weight).abs().max() < 1e-8
    assert (model.bias - both.bias).abs().max() < 1e-8


def test_strength_discount_and_the_published_penalty():
    model, x, y, likelihood = task("categorical")
    one = br.transfer.fisher_information(model, (x, y), likelihood)
    two = br.transfer.fisher_information(model, (x[:3], y[:3]), likelihood)
    prior = br.transfer.ewc_prior(model, [one, two], prior_precision=3.0, strength=2.0, discount=0.25)
    expected = 3.0 + 2.0 * (0.25 * 7 * one.values["4.weight"] + 3 * two.values["4.weight"])
    assert torch.allclose(prior["4.weight"].variance(), 1.0 / expected, rtol=1e-10)
    # (λ/2)·ΣF(w − w*)² beside a mean loss over the next task's n examples.
    n, strength = 50, 4.0
    lam = strength * 7 / n
    prior = br.transfer.ewc_prior(model, one, prior_precision=1e-12, strength=strength)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    theirs = sum(
        0.5 * lam * (one.values[name] * (p - one.centre[name]).square()).sum() for name, p in model.named_parameters()
    )
    assert (prior.penalty() / n).item() == pytest.approx(theirs.item(), rel=1e-6)


def test_new_layers_have_a_prior_of_their_own_and_mismatches_are_listed():
    model, x, y, likelihood = task("categorical")
    learned = br.transfer.fisher_information(model, (x, y), likelihood)
    grown = nn.Sequential(*model[:4], nn.Linear(5, 4).double(), nn.Linear(4, 2).double())
    with pytest.raises(br.ReferenceMismatchError) as caught:
        br.transfer.ewc_prior(grown, learned, prior_precision=1.0)
    for said in ("4.weight has shape (3, 5), expected (4, 5)", "missing 5.weight"):
        assert said in str(caught.value)
    prior = br.transfer.ewc_prior(grown, learned, prior_precision=1.0, new=["4.*", "5.*"], head=br.Gaussian(1.0))
    assert prior["5.weight"].describe() == "Gaussian, std 1, centred on 0"
    assert prior["0.weight"].describe().startswith("Gaussian, one std per element, centred on")


REFUSED = {
    "prior_precision": ({"prior_precision": 0.0}, br.InvalidArgumentError),
    "discount: expected a number in": ({"prior_precision": 1.0, "discount": 1.5}, br.InvalidArgumentError),
    "strength": ({"prior_precision": 1.0, "strength": -1.0}, br.InvalidArgumentError),
}


@pytest.mark.parametrize("message", REFUSED)
def test_numbers_out_of_range(message):
    model, x, y, likelihood = task("categorical")
    arguments, error = REFUSED[message]
    with pytest.raises(error, match=message):
        br.transfer.ewc_prior(model, br.transfer.fisher_information(model, (x, y), likelihood), **arguments)


def test_information_that_does_not_go_together():
    model, x, y, likelihood = task("categorical")
    learned = br.transfer.fisher_information(model, (x, y), likelihood)
    other = br.transfer.fisher_information(nn.Linear(4, 3).double(), (x, y), likelihood)
    with pytest.raises(br.ReferenceMismatchError, match=r"task 2 differs from the first in 0\.bias, 0\.weight"):
        br.transfer.ewc_prior(model, [learned, other], prior_precision=1.0)
    with pytest.raises(br.InvalidArgumentError, match="fisher: expected what"):
        br.transfer.ewc_prior(model, [], prior_precision=1.0)
    block = br.transfer.fisher_information(model, (x, y), likelihood, structure="block")
    with pytest.raises(br.InvalidArgumentError, match="expected one structure"):
        br.transfer.ewc_prior(model, [learned, block], prior_precision=1.0)
    with pytest.raises(br.UnsupportedError, match="blocks are of parameters with one row"):
        br.transfer.ewc_prior(model, block, prior_precision=1.0)


def test_data_and_models_that_have_no_information():
    model, x, y, likelihood = task("categorical")
    for data, error, message in [
        ([], br.DataError, "at least one example"),
        ((x, y[:3]), br.DataError, "as many targets as inputs"),
        ([x], br.DataError, r"expected batches \(inputs"),
        ((x * float("nan"), y), br.DataError, "inputs hold NaN"),
        ([(x * float("nan"), y)], br.DataError, "expected finite outputs"),
    ]:
        with pytest.raises(error, match=message):
            br.transfer.fisher_information(model, data, likelihood)
    with pytest.raises(br.InvalidArgumentError, match="labels: expected one of expected, empirical"):
        br.transfer.fisher_information(model, (x, y), likelihood, labels="true")
    with pytest.raises(br.InvalidArgumentError, match="no trainable parameters"):
        br.transfer.fisher_information(nn.Linear(2, 2).requires_grad_(False), (x, y), likelihood)


def test_information_of_a_model_with_other_names_and_another_head():
    model, x, y, likelihood = task("categorical")
    learned = br.transfer.fisher_information(model, (x, y), likelihood)
    target = nn.ModuleDict({"body": nn.Sequential(*model[:4]), "head": nn.Linear(5, 2).double()})
    prior = br.transfer.ewc_prior(
        target, learned, prior_precision=1.0, new="head.*", head=br.Gaussian(1.0), rename={"4.*": None, "*": "body.*"}
    )
    assert torch.allclose(prior["body.0.weight"].variance(), 1.0 / (1.0 + 7 * learned.values["0.weight"]), rtol=1e-10)
    assert "centred on the weights after 1 task, 7 examples" in prior["body.0.weight"].describe()


def test_what_a_fisher_information_prints():
    model = nn.Linear(3, 2)
    found = br.transfer.fisher_information(
        model, (torch.ones(4, 3), torch.zeros(4).long()), br.likelihoods.Categorical()
    )
    assert repr(found) == "Fisher(expected, diagonal, 8 elements in 2 tensors, 4 examples)"
