"""Smaller networks with the same outputs, and the fit on the support."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.nn.utils import prune

import bayesreg as br


def silence(layer, units, bias=None):
    with torch.no_grad():
        layer.weight[units] = 0.0
        if bias is not None:
            layer.bias[units] = bias


class Residual(nn.Module):
    """Two branches that are summed, normalisation, convolutions without and with padding, flattening."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.inner = nn.Conv2d(6, 5, 3)
        self.back = nn.Conv2d(5, 6, 3)
        self.skip = nn.Conv2d(6, 6, 5)
        self.head = nn.Linear(6 * 4, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        y = self.back(torch.relu(self.inner(x))) + self.skip(x)
        return self.head(nn.functional.max_pool2d(y, 4).flatten(1))


@pytest.fixture
def residual():
    torch.manual_seed(0)
    model = Residual()
    with torch.no_grad():
        model.norm.bias.uniform_(-1, 1)
        model.norm.running_mean.uniform_(-0.1, 0.1)
    return model.eval()


IMAGES = torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def test_constant_units_move_into_the_next_biases(residual):
    silence(residual.stem, [0, 2])  # batch norm makes constants of them, both consumers are unpadded
    silence(residual.inner, [4], bias=0.7)
    silence(residual.back, [1], bias=0.3)  # its sum with skip is not constant: it stays
    before = residual(IMAGES)
    small = br.sparsity.compact(residual, IMAGES)
    model = small.model
    assert (model.stem.out_channels, model.norm.num_features, model.inner.in_channels) == (4, 4, 4)
    assert (model.inner.out_channels, model.back.in_channels, model.skip.in_channels) == (4, 4, 4)
    assert (model.back.out_channels, model.skip.out_channels, model.head.in_features) == (6, 6, 24)
    assert torch.allclose(model(IMAGES), before, atol=1e-6)
    # The constants are folded for all inputs, not only for those that it was shown.
    other = 10.0 * torch.randn(4, 1, 12, 12)
    assert torch.allclose(model(other), residual(other), atol=1e-5)
    assert residual.stem.out_channels == 6
    assert small.parameters[1] == sum(p.numel() for p in model.parameters()) < small.parameters[0]


def test_both_branches_of_a_sum_must_be_silent(residual):
    silence(residual.back, [1], bias=0.3)
    silence(residual.skip, [1], bias=-0.1)
    before = residual(IMAGES)
    model = br.sparsity.compact(residual, IMAGES).model
    assert (model.back.out_channels, model.skip.out_channels, model.head.in_features) == (5, 5, 20)
    assert torch.allclose(model(IMAGES), before, atol=1e-6)


def test_units_that_no_one_reads_go_and_so_do_those_that_only_they_read():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))
    with torch.no_grad():
        model[4].weight[:, :3] = 0.0  # three units of the second layer are not read
        model[2].weight[3:, :4] = 0.0  # four of the first are read by those only
    inputs = torch.randn(32, 5)
    before = model(inputs)
    small = br.sparsity.compact(model, inputs)
    assert [layer.out_features for layer in small.model if isinstance(layer, nn.Linear)] == [4, 3, 2]
    assert torch.allclose(small.model(inputs), before, atol=1e-6)
    assert small.difference <= 1e-6
    assert "Linear" not in str(small)
    assert "kept" not in str(small)


def test_a_constant_behind_zero_padding_stays_and_is_said():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    silence(model[0], [0], bias=1.0)  # its value is 1, but 0 in the padding
    silence(model[0], [1], bias=-1.0)  # ReLU makes it 0
    before = model(IMAGES)
    small = br.sparsity.compact(model, IMAGES)
    assert small.model[0].out_channels == 3
    assert "zero padding" in str(small)
    assert torch.allclose(small.model(IMAGES), before, atol=1e-6)
    # Replicated padding keeps a constant constant.
    model[2].padding_mode = "replicate"
    model[2]._reversed_padding_repeated_twice = [1, 1, 1, 1]
    before = model(IMAGES)
    small = br.sparsity.compact(model, IMAGES)
    assert small.model[0].out_channels == 2
    assert torch.allclose(small.model(IMAGES), before, atol=1e-6)


def test_a_missing_bias_is_made_where_a_constant_needs_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2, bias=False))
    silence(model[0], [2], bias=0.0)
    inputs = torch.randn(8, 3)
    before = model(inputs)
    small = br.sparsity.compact(model, inputs).model
    assert small[2].bias is not None
    assert torch.allclose(small(inputs), before, atol=1e-6)


def test_one_unit_stays_where_all_are_idle():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    silence(model[0], range(4), bias=0.5)
    inputs = torch.randn(8, 3)
    small = br.sparsity.compact(model, inputs).model
    assert small[0].out_features == 1
    assert torch.allclose(small(inputs), model(inputs), atol=1e-6)


def test_layers_that_mix_units_keep_them():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2))
    silence(model[0], [1], bias=0.0)
    with torch.no_grad():
        model[3].weight[:, 1] = 0.0
    small = br.sparsity.compact(model, torch.randn(8, 3))
    assert small.model[0].out_features == 4
    assert "LayerNorm" in str(small)


def test_the_last_layer_and_a_dense_network_stay():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    silence(model[2], [0], bias=0.0)
    small = br.sparsity.compact(model, torch.randn(8, 3))
    assert small.parameters[0] == small.parameters[1]
    assert small.model[2].out_features == 2


def test_modes_flags_and_training_go_on():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)).train()
    model[0].bias.requires_grad_(False)
    silence(model[0], [0], bias=0.0)
    small = br.sparsity.compact(model, torch.randn(8, 3)).model
    assert not small.training
    assert model.training
    assert [p.requires_grad for p in small.parameters()] == [True, False, True, True]
    prior = br.ModelPrior(small, br.Gaussian(1.0))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, num_data=8)
    small(torch.randn(8, 3)).square().mean().backward()
    optimizer.step()


class WritesItsSizes(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Linear(400, 2)

    def forward(self, x):
        return self.b(self.a(x).view(-1, 400))


class GivesItsUnits(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        hidden = self.a(x)
        return self.b(hidden), hidden


class AddsItsInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.b(x + self.a(x))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 1)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.c(self.b(self.a(x).relu()).relu())


class AddsASum(nn.Module):
    """Silent units that are not constant: something else is added to them."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 1)

    def forward(self, x):
        return self.b(self.a(x) + x.sum(1, keepdim=True))


class Normalises(nn.Module):
    """Small outputs of units that depend on each other."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 1)

    def forward(self, x):
        return 1e-6 * self.b(nn.functional.normalize(self.a(x), dim=1))


@pytest.mark.parametrize(
    ("make", "inputs", "words"),
    [
        (WritesItsSizes, IMAGES, "written into it"),
        (GivesItsUnits, torch.randn(8, 3), "an output as well"),
        (AddsItsInput, torch.randn(8, 3), "not constant"),
        (Tied, torch.randn(8, 6), "those of another layer"),
        (AddsASum, torch.randn(1, 3), "not constant"),
        (lambda: nn.Sequential(nn.Linear(3, 8), nn.GLU(), nn.Linear(4, 1)), torch.randn(8, 3), "another number"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_go_stays_and_is_said(make, inputs, words):
    torch.manual_seed(0)
    model = make()
    silence(next(model.children()), [0], bias=0.3)
    small = br.sparsity.compact(model, inputs)
    assert small.parameters[0] == small.parameters[1]
    assert words in str(small)
    assert not isinstance(model, Tied) or small.model.b.weight is small.model.a.weight


def test_small_outputs_are_compared_as_they_are():
    torch.manual_seed(0)
    model = Normalises()
    with torch.no_grad():
        model.b.weight[:, :3] = 0.0  # not read, but part of the norm
    small = br.sparsity.compact(model, torch.randn(8, 3))
    assert "outputs differ by" in str(small)
    assert small.model.a.out_features == 6


class TakesLogarithms(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 1)

    def forward(self, x):
        return self.b(self.a(x.log()).relu())


def test_inputs_that_cannot_be_moved():
    torch.manual_seed(0)
    model = TakesLogarithms()
    silence(model.a, [0, 1], bias=0.5)
    assert br.sparsity.compact(model, torch.rand(8, 3) * 1e-3).model.a.out_features == 4
    with pytest.raises(br.InvalidArgumentError, match="two or more examples"):
        br.sparsity.compact(model, torch.rand(1, 3) * 1e-3)


def test_half_precision_and_no_grad():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).bfloat16()
    silence(model[0], [0, 1], bias=0.5)
    with torch.no_grad():
        small = br.sparsity.compact(model, torch.randn(8, 3).bfloat16())
    assert small.model[0].out_features == 6


def test_wrong_arguments_raise():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    for inputs in ([], torch.empty(0, 3)):
        with pytest.raises(br.InvalidArgumentError, match="inputs: expected"):
            br.sparsity.compact(model, inputs)
    with pytest.raises(br.InvalidArgumentError, match="does not take them"):
        br.sparsity.compact(model, torch.randn(8, 5))
    with pytest.raises(br.InvalidArgumentError, match="tolerance"):
        br.sparsity.compact(model, torch.randn(8, 3), tolerance=-1.0)
    with pytest.raises(br.InvalidArgumentError, match="module"):
        br.sparsity.compact("model", IMAGES)
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), nn.Linear(2, 1))
    with pytest.raises(br.UnsupportedError, match="remove_parametrizations"):
        br.sparsity.compact(normed, torch.randn(2, 3))
    masked = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    prune.ln_structured(masked[0], "weight", 0.5, 2, 0)
    with pytest.raises(br.UnsupportedError, match="remove functions"):
        br.sparsity.compact(masked, torch.randn(2, 3))


def test_a_group_prior_gives_zeros_that_go():
    """The whole way: train under a group prior, count the rows that are gone, make the network smaller."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    X, y = torch.as_tensor(X / 16.0)[:600], torch.as_tensor(y)[:600]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10)).double()
    prior = br.ModelPrior(model, {"0.weight": br.GroupLaplace(4.0, "row"), br.biases: br.Flat(), "*": br.Gaussian(1.0)})
    likelihood = br.likelihoods.Categorical()
    br.MAPTrainer(
        model, prior, likelihood, optimizer=lambda groups: torch.optim.Adam(groups, lr=1e-2), max_epochs=40,
        batch_size=100, progress=False,
    ).fit((X, y))  # fmt: skip
    gone = int((model[0].weight == 0).all(1).sum())
    assert 5 < gone < 40
    small = br.sparsity.compact(model, X)
    assert small.model[0].out_features == 40 - gone
    assert torch.allclose(small.model(X), model(X), atol=1e-9)


# -- the fit on the support ----------------------------------------------------------------------------


def diabetes():
    X, y = load_diabetes(return_X_y=True)
    X, y = torch.as_tensor(X), torch.as_tensor(y)
    X, y = (X - X.mean(0)) / X.std(0, correction=0), (y - y.mean()) / y.std(correction=0)
    return X, y[:, None]


def lasso(slope):
    torch.manual_seed(0)
    X, y = diabetes()
    model, noise = nn.Linear(10, 1).double(), br.likelihoods.Gaussian(0.7)
    prior = br.ModelPrior(model, br.Laplace(1.0 / slope))
    br.MAPTrainer(model, prior, noise, optimizer="proximal", progress=False).fit((X, y))
    return model, prior, noise, X, y


def test_refit_is_least_squares_on_the_support():
    model, prior, noise, X, y = lasso(100.0)
    support = (model.weight[0] != 0).numpy()
    shrunk = model.weight.detach().clone()
    assert 2 < support.sum() < 9
    result = br.sparsity.refit(model, prior, noise, (X, y))
    assert result.converged
    design = np.column_stack([X.numpy()[:, support], np.ones(len(X))])
    expected = np.linalg.lstsq(design, y.numpy()[:, 0], rcond=None)[0]
    assert np.allclose(model.weight.detach().numpy()[0, support], expected[:-1], atol=1e-7)
    assert model.bias.item() == pytest.approx(expected[-1], abs=1e-7)
    assert (model.weight.detach().numpy()[0, ~support] == 0).all()
    assert model.weight.norm() > shrunk.norm()


def test_refit_under_a_weak_gaussian_is_ridge_on_the_support():
    model, prior, noise, X, y = lasso(100.0)
    support = (model.weight[0] != 0).numpy()
    model.train()
    br.sparsity.refit(model, prior, noise, (X, y), on_support=br.Gaussian(0.1))
    assert model.training
    chosen = X.numpy()[:, support]
    expected = np.linalg.solve(chosen.T @ chosen + 0.7**2 / 0.1**2 * np.eye(support.sum()), chosen.T @ y.numpy()[:, 0])
    assert np.allclose(model.weight.detach().numpy()[0, support], expected, atol=1e-7)


def test_refit_keeps_smooth_priors_and_centres():
    """Around a centre the kink is there; parameters under smooth priors are trained under those."""
    X, y = diabetes()
    torch.manual_seed(0)
    model, noise = nn.Sequential(nn.Linear(10, 1)).double(), br.likelihoods.Gaussian(0.7)
    centre = torch.full((1, 10), 0.2, dtype=torch.float64)
    prior = br.ModelPrior(model, {"0.weight": br.Laplace(0.01, loc=centre), "*": br.Gaussian(0.01, loc=1.0)})
    br.MAPTrainer(model, prior, noise, optimizer="proximal", progress=False).fit((X, y))
    held = model[0].weight.detach() == 0.2
    before = copy.deepcopy(model.state_dict())
    br.sparsity.refit(model, prior, noise, (X, y))
    assert torch.equal(model[0].weight.detach() == 0.2, held)
    assert 0 < held.sum() < 10
    assert not torch.allclose(model[0].weight, before["0.weight"])
    # The bias is at its MAP: 442 examples of precision 1/0.49 against a prior of 1e4.
    assert model[0].bias.item() == pytest.approx(1e4 / (1e4 + 442 / 0.49), abs=1e-6)


def test_refit_refuses_what_it_cannot_do():
    X, y = diabetes()
    model, noise = nn.Linear(10, 1).double(), br.likelihoods.Gaussian(0.7)
    with pytest.raises(br.InvalidArgumentError, match="with a kink"):
        br.sparsity.refit(model, br.ModelPrior(model, br.Gaussian(1.0)), noise, (X, y))
    bounded = br.ModelPrior(model, br.Product([br.Laplace(1.0), br.Uniform(-1.0, 1.0)]))
    with pytest.raises(br.UnsupportedError, match="Uniform has bounds"):
        br.sparsity.refit(model, bounded, noise, (X, y))
    with pytest.raises(br.InvalidArgumentError, match=r"br\.ModelPrior\(model, prior\)"):
        br.sparsity.refit(model, br.Laplace(1.0), noise, (X, y))
    with pytest.raises(br.CoverageError, match="another model"):
        br.sparsity.refit(nn.Linear(10, 1), bounded, noise, (X, y))
    kinked = br.ModelPrior(model, br.Laplace(1.0))
    with pytest.raises(br.InvalidArgumentError, match="on_support"):
        br.sparsity.refit(model, kinked, noise, (X, y), on_support=br.Laplace(1.0))
