"""Mixtures: the spike-and-slab lasso through the contract, Gaussians as ScaleMixture, and whole parameters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from torch import nn

import bayesreg as br
from bayesreg.testing import PriorContract
from tests.sampling import slow

VALUE = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class TestSpikeAndSlabLasso(PriorContract):
    centre = -0.3
    per_element = ()

    def make(self, scale):
        return br.Mixture([br.Laplace(0.1 * scale, loc=-0.3), br.Laplace(2.0 * scale, loc=-0.3)], [0.7, 0.3])

    def logpdf(self, scale):
        parts = [(math.log(w), scipy.stats.laplace(-0.3, b * scale)) for w, b in ((0.7, 0.1), (0.3, 2.0))]
        return lambda x: scipy.special.logsumexp([height + part.logpdf(x) for height, part in parts], axis=0)


class TestKinkedAndSmooth(PriorContract):
    """A kink under a wide slab with tails: only one component has the kink."""

    per_element = ()

    def make(self, scale):
        return br.Mixture([br.Laplace(0.3 * scale), br.StudentT(3.0, 2.0 * scale)], torch.tensor([0.5, 0.5]))

    def logpdf(self, scale):
        def reference(x):
            parts = [scipy.stats.laplace(0, 0.3 * scale).logpdf(x), scipy.stats.t(3.0, 0, 2.0 * scale).logpdf(x)]
            return scipy.special.logsumexp(parts, axis=0) - math.log(2.0)

        return reference


def test_gaussians_of_one_centre_are_scale_mixture():
    mine = br.Mixture([br.Gaussian(0.1, loc=0.2), br.Gaussian(1.5, loc=0.2)], [0.6, 0.4])
    other = br.ScaleMixture([0.6, 0.4], [0.1, 1.5], loc=0.2)
    assert mine.log_prob(VALUE).item() == pytest.approx(other.log_prob(VALUE).item(), rel=1e-13)
    assert mine.log_constant((3, 4)).item() == pytest.approx(other.log_constant((3, 4)).item(), rel=1e-13)
    grads = [torch.zeros_like(VALUE) for _ in range(2)]
    for prior, grad in zip((mine, other), grads, strict=True):
        prior.add_grad_([grad], [VALUE], 0.3)
    assert torch.allclose(*grads, rtol=1e-12)
    assert torch.allclose(mine.curvature(VALUE), other.curvature(VALUE), rtol=1e-11)
    assert torch.allclose(mine.psd_curvature(VALUE), other.psd_curvature(VALUE), rtol=1e-11)
    assert torch.allclose(mine.responsibilities(VALUE)[1], other.slab_probability(VALUE), rtol=1e-12)
    assert mine.variance() == pytest.approx(other.variance())


@pytest.mark.parametrize("per", ["element", "tensor"])
def test_components_of_different_centres(per):
    """Against SciPy, and its derivatives against autograd."""
    centres = [torch.zeros(3, 4, dtype=torch.float64), VALUE + 0.1]
    prior = br.Mixture([br.Gaussian(0.5, loc=centres[0]), br.StudentT(4.0, 0.3, loc=centres[1])], [0.3, 0.7], per=per)
    logs = np.stack([
        math.log(0.3) + scipy.stats.norm(centres[0], 0.5).logpdf(VALUE) * 1.0,
        scipy.stats.t(4.0, centres[1], 0.3).logpdf(VALUE) + math.log(0.7),
    ])  # fmt: skip
    if per == "element":
        expected = scipy.special.logsumexp(logs, axis=0).sum()
    else:
        single = [(log - w).sum() + w for log, w in zip(logs, (math.log(0.3), math.log(0.7)), strict=True)]
        expected = scipy.special.logsumexp(single)
    assert prior.log_prob(VALUE).item() == pytest.approx(expected, rel=1e-12)
    leaf, own = VALUE.clone().requires_grad_(), torch.zeros_like(VALUE)
    (slope,) = torch.autograd.grad(prior.penalty(leaf), leaf)
    prior.add_grad_([own], [VALUE], 1.0)
    assert torch.allclose(own, slope, rtol=1e-10, atol=1e-12)
    hessian = torch.autograd.functional.hessian(prior.penalty, VALUE).reshape(12, 12)
    vector = torch.linspace(-1, 3, 12, dtype=torch.float64)
    assert torch.allclose(prior.curvature(VALUE).reshape(-1), hessian.diagonal(), rtol=1e-9, atol=1e-9)
    product = prior.curvature_times(VALUE, vector.reshape(3, 4)).reshape(-1)
    assert torch.allclose(product, hessian @ vector, rtol=1e-9, atol=1e-9)
    assert torch.allclose(prior.responsibilities(VALUE).sum(0), torch.ones((), dtype=torch.float64))


def test_at_the_kink_the_certificate_reaches_to_the_slope_beside_it():
    prior = br.Mixture([br.Laplace(0.1, loc=0.5), br.Laplace(2.0, loc=0.5)], [0.7, 0.3])
    # Shares of the two at the centre: 0.7/0.2 and 0.3/4 of the density.
    beside = (3.5 * 10.0 + 0.075 * 0.5) / 3.575
    at, grads = torch.full((4,), 0.5, dtype=torch.float64), beside * torch.tensor([0.9, -0.99, 1.1, -1.5]).double()
    expected = 0.3 * beside * torch.tensor([0.0, 0.0, 0.1, 0.5]).double()
    assert torch.allclose(prior.subdiff_distance(at, 0.3 * grads, 0.3), expected, atol=1e-7)


@pytest.mark.parametrize(
    "prior",
    [br.Mixture([br.Laplace(0.02), br.Laplace(1.0)], [0.9, 0.1]), br.ScaleMixture([0.9, 0.1], [0.02, 1.0])],
    ids=["Mixture", "ScaleMixture"],
)
def test_the_prox_is_the_same_in_blocks(prior, monkeypatch):
    from bayesreg.priors.numerics import minima

    value = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64)
    whole = prior.prox(value, 0.05)
    for size in (130, 600, 1800):
        monkeypatch.setattr(minima, "_AT_ONCE", size)
        assert torch.allclose(prior.prox(value, 0.05), whole, rtol=1e-12, atol=1e-15)
    assert 0 < (whole.abs() < 0.05).sum() < 60


def test_draws_come_from_one_component_per_unit():
    generator = torch.Generator().manual_seed(0)
    parts = [br.Gaussian(0.1, loc=-5.0), br.Gaussian(0.1, loc=5.0)]
    mixed = br.Mixture(parts, [0.25, 0.75]).sample((4000,), generator=generator)
    assert (mixed > 0).double().mean().item() == pytest.approx(0.75, abs=0.03)
    whole = torch.stack([
        br.Mixture(parts, [0.25, 0.75], per="tensor").sample((5,), generator=generator) for _ in range(250)
    ])
    sides = (whole > 0).double().mean(1)
    assert set(sides.tolist()) == {0.0, 1.0}
    assert sides.mean().item() == pytest.approx(0.75, abs=0.06)
    assert br.Mixture(parts, [0.25, 0.75]).variance() == pytest.approx(0.01 + 25 - 2.5**2)


def test_either_of_two_pretrained_networks():
    """Per tensor the nearer reference takes over whole; the MAP is the ridge about it."""
    torch.manual_seed(0)
    first, second = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    model = nn.Linear(4, 3).double()
    with torch.no_grad():
        model.weight.copy_(second.weight + 0.05)
    either = br.Mixture(
        [br.Gaussian.centered_at(first, scale=0.1), br.Gaussian.centered_at(second, scale=0.1)],
        [0.5, 0.5],
        per="tensor",
    )
    prior = br.ModelPrior(model, either)
    assert prior["weight"].responsibilities(model.weight)[1].item() > 0.99
    alone = br.ModelPrior(model, br.Gaussian.centered_at(second, scale=0.1))
    assert prior.log_prob().item() == pytest.approx(alone.log_prob().item() + math.log(0.5), abs=1e-2)
    assert "Linear" in str(prior.describe())
    with pytest.raises(br.ReferenceMismatchError, match=r"expected a tensor 'head\.weight'"):
        br.ModelPrior(nn.ModuleDict({"head": nn.Linear(4, 3)}), either)


def test_its_map_is_scipys():
    """The spike-and-slab lasso on a regression, from where SciPy looks on every support."""
    torch.manual_seed(0)
    X = torch.randn(40, 3, dtype=torch.float64)
    y = X @ torch.tensor([[1.2], [0.05], [0.0]], dtype=torch.float64) + 0.3 * torch.randn(40, 1, dtype=torch.float64)
    mixture = br.Mixture([br.Laplace(0.01), br.Laplace(1.0)], [0.8, 0.2])
    model = nn.Linear(3, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    result = br.MAPTrainer(model, mixture, br.likelihoods.Gaussian(0.3), optimizer="proximal", progress=False).fit((
        X,
        y,
    ))
    assert result.converged
    w = model.weight.detach()[0].numpy()

    def objective(v):
        logs = [
            math.log(0.8) + scipy.stats.laplace(0, 0.01).logpdf(v),
            math.log(0.2) + scipy.stats.laplace(0, 1.0).logpdf(v),
        ]
        fit = 0.5 * np.sum((y.numpy()[:, 0] - X.numpy() @ v) ** 2) / 0.09
        return fit - scipy.special.logsumexp(logs, axis=0).sum()

    best = scipy.optimize.minimize(lambda a: objective(np.array([a[0], 0.0, 0.0])), [1.0], tol=1e-14)
    assert np.allclose(w, [best.x[0], 0.0, 0.0], atol=1e-6)
    assert objective(w) <= min(objective(w + d) for d in 1e-3 * np.random.default_rng(0).standard_normal((200, 3)))


@pytest.mark.parametrize("optimizer", ["SGD", slow("Adam")])
@pytest.mark.slow
def test_optimizers_reach_its_zeros(optimizer):
    torch.manual_seed(0)
    X = torch.randn(60, 5, dtype=torch.float64)
    y = X[:, :1] * 1.5 + 0.1 * torch.randn(60, 1, dtype=torch.float64)
    model = nn.Linear(5, 1, bias=False).double()
    prior = br.ModelPrior(model, br.Mixture([br.Laplace(0.002), br.Laplace(1.0)], [0.9, 0.1]))
    made = getattr(torch.optim, optimizer)(prior.param_groups(), lr=0.05)
    handle = br.attach(made, prior, loss_scale=br.LossScale.mse(60, 1, noise_std=0.1))
    for step in range(250):
        made.param_groups[0]["lr"] = 0.05 * (1 - step / 250)
        made.zero_grad()
        nn.functional.mse_loss(model(X), y).backward()
        made.step()
    assert "proximal" in str(handle.describe())
    assert prior["weight"].at_kink(model.weight)[0].tolist() == [False, True, True, True, True]


def test_files_and_words_keep_it(tmp_path):
    model = nn.Linear(4, 3).double()
    prior = br.ModelPrior(model, {
        "weight": br.Mixture(
            [br.Gaussian.centered_at(nn.Linear(4, 3), scale=0.1), br.Gaussian(2.0)], [0.5, 0.5], "tensor"
        ),
        "bias": br.Mixture([br.Laplace(0.1), br.Laplace(1.0)], [0.3, 0.7]),
    })  # fmt: skip
    prior.save(tmp_path / "p.safetensors")
    again = br.ModelPrior.load(tmp_path / "p.safetensors", model)
    assert torch.equal(prior.log_prob(), again.log_prob())
    assert again["weight"].describe() == prior["weight"].describe()
    assert "30% Laplace" in again["bias"].describe()
    assert "Mixture([Laplace" in repr(again["bias"])
    assert "per tensor" in str(prior.describe())


def test_what_cannot_be_mixed_is_refused():
    gaussian = br.Gaussian(1.0)
    for components, weights, words in (
        ([gaussian], [1.0], "two or more"),
        ([gaussian, 0.5], [0.5, 0.5], "two or more"),
        ([gaussian, gaussian], [0.5], "one per component"),
        ([gaussian, gaussian], [0.5, 0.6], "sum to 1"),
        ([gaussian, br.L0(1.0)], [0.5, 0.5], "not"),
        ([gaussian, br.Horseshoe(1.0)], [0.5, 0.5], "no bound"),
        ([gaussian, br.GroupLaplace(1.0)], [0.5, 0.5], "per='tensor'"),
        ([gaussian, br.Uniform(-1.0, 1.0)], [0.5, 0.5], "kink or a bound"),
        ([gaussian, br.LogUniform(0.1, 1.0)], [0.5, 0.5], "kink or a bound"),
        ([br.Laplace(1.0), br.Laplace(1.0, loc=1.0)], [0.5, 0.5], "same centre"),
        ([br.Laplace(1.0), br.Gaussian(1.0, loc=1.0)], [0.5, 0.5], "same centre"),
    ):
        with pytest.raises(br.InvalidArgumentError, match=words):
            br.Mixture(components, weights)
    with pytest.raises(br.InvalidArgumentError, match="per: expected one of element, tensor"):
        br.Mixture([gaussian, gaussian], [0.5, 0.5], per="weight")
    with pytest.raises(br.InvalidArgumentError, match="mix per element"):
        br.Mixture([gaussian, br.Laplace(1.0)], [0.5, 0.5], per="tensor")


def test_one_scale_per_weight():
    scales = torch.tensor([[0.02, 0.1, 0.5]], dtype=torch.float64)
    value = torch.tensor([[0.05, -0.3, 1.0]], dtype=torch.float64)
    prior = br.Mixture([br.Laplace(scales), br.Laplace(2.0)], [0.8, 0.2])
    apart = [br.Mixture([br.Laplace(s), br.Laplace(2.0)], [0.8, 0.2]) for s in scales[0].tolist()]
    assert prior.log_prob(value).item() == pytest.approx(
        sum(p.log_prob(v).item() for p, v in zip(apart, value[0], strict=True))
    )
    singles = torch.stack([p.prox(v, 0.1) for p, v in zip(apart, value[0], strict=True)])
    assert torch.allclose(prior.prox(value, 0.1)[0], singles, atol=1e-12)
