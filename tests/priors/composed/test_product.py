"""Products: the elastic net from its factors, pretrained and sparse at once, the sparse group lasso, bounds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from sklearn.datasets import load_diabetes
from torch import nn

import bayesreg as br
from bayesreg.testing import PriorContract

VALUE = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class TestLaplaceTimesGaussian(PriorContract):
    """An elastic net of l1 = 1/0.5 and l2 = 1/2², in units of the scale."""

    centre = 0.4
    per_element = ()

    def make(self, scale):
        return br.Product([br.Laplace(0.5 * scale, loc=0.4), br.Gaussian(2.0 * scale, loc=0.4)])

    def logpdf(self, scale):
        l1, l2 = 2.0 / scale, 0.25 / scale**2
        normaliser = 0.5 * math.log(2 * math.pi / l2) + math.log(scipy.special.erfcx(l1 / math.sqrt(2 * l2)))
        return lambda x: -l1 * np.abs(x - 0.4) - 0.5 * l2 * (x - 0.4) ** 2 - normaliser


def grid_prox(objective, low, high):
    """Return the minimiser of a convex function of one number."""
    return scipy.optimize.minimize_scalar(objective, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x


def test_pretrained_and_sparse_at_once():
    """A kink at 0 and Gaussians about two other centres: the prox against a search, and the density by quadrature."""
    prior = br.Product([br.Gaussian(0.8, loc=1.0), br.Laplace(0.3), br.Gaussian(2.0, loc=-0.5)])
    for v in (-2.0, -0.1, 0.0, 0.05, 0.4, 1.0, 3.0):
        for step in (0.05, 0.5, 4.0):
            at = torch.tensor([v], dtype=torch.float64)
            found = prior.prox(at, step).item()

            def objective(x, v=v, step=step):
                pull = (x - 1.0) ** 2 / (2 * 0.64) + abs(x) / 0.3 + (x + 0.5) ** 2 / 8.0
                return (x - v) ** 2 / (2 * step) + pull

            assert objective(found) <= objective(grid_prox(objective, -5, 5)) + 1e-12
            x = torch.tensor([found], dtype=torch.float64)
            assert prior.subdiff_distance(x, (x - v) / step).item() < 1e-12
            per_element = prior.prox(at, torch.tensor([step], dtype=torch.float64))
            assert per_element.item() == pytest.approx(found, abs=1e-14)

    def log_density(x):
        parts = scipy.stats.norm(1.0, 0.8), scipy.stats.laplace(0, 0.3), scipy.stats.norm(-0.5, 2.0)
        return sum(part.logpdf(x) for part in parts)

    mass = sum(scipy.integrate.quad(lambda x: math.exp(log_density(x)), a, b)[0] for a, b in ((-9, 0), (0, 1), (1, 9)))
    for x in (-1.0, 0.0, 0.7):
        found = prior.log_prob(torch.tensor([x], dtype=torch.float64)).item()
        assert found == pytest.approx(log_density(x) - math.log(mass), abs=1e-9)
    draws = prior.sample((4000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = np.linspace(-9, 9, 20_001)
    cdf = scipy.integrate.cumulative_trapezoid(np.exp(log_density(grid)) / mass, grid, initial=0)
    assert scipy.stats.kstest(draws.numpy(), lambda x: np.interp(x, grid, cdf)).pvalue > 1e-3
    assert draws.var().item() == pytest.approx(prior.variance(), rel=0.1)


def test_the_sparse_group_lasso_prox():
    prior = br.Product([br.GroupLaplace(0.8, "row"), br.Laplace(2.0), br.Gaussian(3.0)])
    for step in (0.3, torch.rand(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1):
        found = prior.prox(VALUE, step)
        assert prior.subdiff_distance(found, (found - VALUE) / step).max() < 1e-12
        h = torch.as_tensor(step).expand(3, 4).numpy()

        def objective(x, row, h=h):
            w = x.reshape(4)
            return (
                np.sum((w - VALUE.numpy()[row]) ** 2 / (2 * h[row]))
                + 0.8 * np.linalg.norm(w) + np.abs(w).sum() / 2.0 + (w @ w) / 18.0
            )  # fmt: skip

        for row in range(3):
            mine = objective(found.numpy()[row], row)
            rng = np.random.default_rng(row)
            assert all(mine <= objective(found.numpy()[row] + 1e-3 * rng.standard_normal(4), row) for _ in range(100))
            assert (
                mine <= scipy.optimize.minimize(objective, VALUE.numpy()[row], (row,), method="Nelder-Mead").fun + 1e-9
            )
    assert not prior.traits.proper
    with pytest.raises(br.UnsupportedError, match="up to its constant"):
        prior.sample((2, 3))


def diabetes():
    X, y = load_diabetes(return_X_y=True)
    X, y = torch.as_tensor(X), torch.as_tensor(y)
    return (X - X.mean(0)) / X.std(0, correction=0), ((y - y.mean()) / y.std(correction=0))[:, None]


def fitted(prior):
    X, y = diabetes()
    torch.manual_seed(0)
    model = nn.Linear(10, 1, bias=False).double()
    noise = br.likelihoods.Gaussian(0.7)
    smooth = prior.traits.smooth
    how = "lbfgs" if smooth else "proximal"
    result = br.MAPTrainer(model, prior, noise, optimizer=how, progress=False).fit((X, y))
    assert result.converged
    return model.weight.detach()[0]


def test_normalisers_of_heavy_tails():
    for parts, densities in (
        ([br.Cauchy(1.0), br.Cauchy(0.3, loc=2.0)], [scipy.stats.cauchy(0, 1), scipy.stats.cauchy(2, 0.3)]),
        ([br.StudentT(1.5, 0.5), br.Logistic(4.0)], [scipy.stats.t(1.5, 0, 0.5), scipy.stats.logistic(0, 4)]),
    ):

        def density(x, densities=densities):
            return math.exp(sum(one.logpdf(x) for one in densities))

        ends = [-np.inf, -5, 0, 1, 2, 3, 7, np.inf]
        mass = sum(scipy.integrate.quad(density, a, b, epsabs=1e-13)[0] for a, b in itertools.pairwise(ends))
        found = br.Product(parts).log_prob(torch.tensor([0.7], dtype=torch.float64)).item()
        assert found == pytest.approx(math.log(density(0.7) / mass), abs=1e-7)


def test_its_map_is_the_elastic_nets():
    mine = fitted(br.Product([br.Laplace(0.02), br.Gaussian(0.1)]))
    assert torch.allclose(mine, fitted(br.ElasticNet(50.0, 100.0)), atol=1e-8)
    assert (mine == 0).any()


def test_nonnegative_lasso_is_scikit_learns():
    from sklearn.linear_model import Lasso

    X, y = diabetes()
    w = fitted(br.Product([br.Laplace(0.02), br.Uniform(0.0, 10.0)]))
    other = Lasso(alpha=0.49 / (442 * 0.02), positive=True, fit_intercept=False, tol=1e-12, max_iter=100_000)
    other.fit(X.numpy(), y.numpy()[:, 0])
    assert np.allclose(w.numpy(), other.coef_, atol=1e-7)
    assert ((w == 0).numpy() == (other.coef_ == 0)).all()


def test_smooth_products_take_the_gradient_route_and_files_keep_them(tmp_path):
    torch.manual_seed(0)
    model, pretrained = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    prior = br.ModelPrior(model, {
        "weight": br.Product([br.Gaussian.centered_at(pretrained, scale=0.1), br.StudentT(3.0, 1.0)]),
        "bias": br.Product([br.Laplace(0.1), br.Gaussian(1.0, loc=0.2)]),
    })  # fmt: skip
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    words = str(br.attach(optimizer, prior, num_data=10).describe())
    assert "gradient" in words
    assert "proximal" in words
    expected = 0.5 * ((model.weight - pretrained.weight) / 0.1).square().sum() + br.StudentT(3.0, 1.0).penalty(
        model.weight
    )
    assert prior["weight"].penalty(model.weight).item() == pytest.approx(expected.item())
    prior.save(tmp_path / "p.safetensors")
    again = br.ModelPrior.load(tmp_path / "p.safetensors", model)
    assert torch.equal(prior.penalty(), again.penalty())
    assert again["weight"].describe() == prior["weight"].describe()
    assert "product: " in str(prior.describe())


def test_derivatives_add():
    prior = br.Product([
        br.StudentT(3.0, 0.7),
        br.Logistic(0.4, loc=0.3),
        br.HierarchicalGaussian(br.hyperpriors.InverseGamma(2.0, 0.3), group="row"),
    ])
    leaf, own = VALUE.clone().requires_grad_(), torch.zeros_like(VALUE)
    (slope,) = torch.autograd.grad(prior.penalty(leaf), leaf)
    prior.parts[0].add_grad_([own], [VALUE], 1.0)
    assert not torch.allclose(own, slope)
    own.zero_()
    prior.add_grad_([own], [VALUE], 1.0)
    assert torch.allclose(own, slope, rtol=1e-10)
    hessian = torch.autograd.functional.hessian(prior.penalty, VALUE).reshape(12, 12)
    assert torch.allclose(prior.curvature(VALUE).reshape(-1), hessian.diagonal(), rtol=1e-9, atol=1e-10)
    product = prior.curvature_times(VALUE, VALUE).reshape(-1)
    assert torch.allclose(product, hessian @ VALUE.reshape(-1), rtol=1e-9, atol=1e-10)


def test_products_without_an_exact_step_are_refused():
    laplace = br.Laplace(1.0)
    for factors in (
        [laplace, br.Laplace(0.5, loc=1.0)],
        [laplace, br.MCP(1.0, 3.0)],
        [laplace, br.GroupLaplace(1.0, loc=0.5)],
        [br.GroupLaplace(1.0), br.Uniform(-1.0, 1.0)],
        [br.MCP(1.0, 3.0), br.Uniform(-1.0, 1.0)],
        [laplace, br.StudentT(3.0, 1.0)],
    ):
        with pytest.raises(br.InvalidArgumentError, match=r"no proximal step of \w+ · \w+ is exact"):
            br.Product(factors)
    with pytest.raises(br.InvalidArgumentError, match="no bound"):
        br.Product([br.Horseshoe(1.0), br.Gaussian(1.0)])
    with pytest.raises(br.InvalidArgumentError, match="two or more"):
        br.Product([laplace])
    assert br.Product([br.StudentT(3.0, 1.0), br.Gaussian(1.0)]).traits.smooth


def test_the_normaliser_of_a_learned_scale_is_differentiated():
    scale = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    prior, x = br.Product([br.Gaussian(scale), br.Gaussian(1.0, loc=2.0)]), torch.zeros(1, dtype=torch.float64)
    (slope,) = torch.autograd.grad(prior.log_prob(x), scale)
    with torch.no_grad():
        scale += 1e-5
        up = prior.log_prob(x).item()
        scale -= 2e-5
        down = prior.log_prob(x).item()
    assert slope.item() == pytest.approx((up - down) / 2e-5, rel=1e-5)


def test_draws_where_penalties_are_negative():
    """A torch distribution's penalty is −log p, which is negative where it is narrow."""
    narrow = br.FromDistribution(torch.distributions.Normal(0.3, 0.05))
    prior = br.Product([br.Gaussian(0.1), narrow])
    draws = prior.sample((4000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    precision = 1 / 0.01 + 1 / 0.0025
    exact = scipy.stats.norm(0.3 / 0.0025 / precision, precision**-0.5)
    assert scipy.stats.kstest(draws, exact.cdf).pvalue > 1e-3
    bounded = br.Product([br.LogUniform(0.01, 10.0), br.Gaussian(1.0)])
    assert not bounded.traits.proper


def test_scales_that_are_not_known_take_part():
    unknown = br.HierarchicalGaussian(br.hyperpriors.Gamma(2.0, 0.05), None, "element")
    student = br.StudentT(4.0, math.sqrt(0.05 / 2.0))
    for other in (br.Product, lambda parts: br.Mixture(parts, [0.4, 0.6])):
        mine, reference = other([unknown, br.Gaussian(1.0)]), other([student, br.Gaussian(1.0)])
        assert mine.log_prob(VALUE).item() == pytest.approx(reference.log_prob(VALUE).item(), rel=1e-9)
