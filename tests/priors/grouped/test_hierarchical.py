"""Gaussians of unknown scale: marginals in closed form, maxima in each coordinate by SciPy, and the collapse."""

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
from bayesreg.hyperpriors import from_dict
from bayesreg.priors.grouped.unknown_scale import UnknownScale
from bayesreg.testing import PriorContract
from tests.sampling import thinned

H = br.hyperpriors
HYPERS = [
    H.HalfCauchy(0.3),
    H.HalfNormal(0.3),
    H.HalfNormal(3.0, of="precision"),
    H.Gamma(2.0, 0.05),
    H.Gamma(1.5, 2.0, of="scale"),
    H.InverseGamma(2.0, 0.3),
    H.InverseGamma(1.2, 0.3, of="scale"),
    H.BetaPrime(0.7, 2.5, 0.2),
]
KEPT = [hyper for hyper in HYPERS if hyper.scale_decay()[0] == math.inf]


def name(hyper):
    return f"{type(hyper).__name__}-{hyper.of}"


class TestConjugateMarginal(PriorContract):
    """Each weight its own scale: the Student-t that NormalGamma is."""

    centre = 0.25

    def make(self, scale):
        return br.HierarchicalGaussian(H.Gamma(1.5, 0.8 * scale**2), None, "element", loc=0.25)

    def logpdf(self, scale):
        width = scale * math.sqrt(0.8 / 1.5)
        return lambda x: scipy.stats.t(3.0, 0.25, width).logpdf(x)


def jacobian(hyper, sigma):
    """Return the density of q and |dq/dσ| by SciPy's own distributions."""
    q = sigma**hyper.power
    frozen = {
        H.HalfCauchy: lambda h: scipy.stats.halfcauchy(scale=h.scale),
        H.HalfNormal: lambda h: scipy.stats.halfnorm(scale=h.scale),
        H.Gamma: lambda h: scipy.stats.gamma(h.concentration, scale=1 / h.rate),
        H.InverseGamma: lambda h: scipy.stats.invgamma(h.concentration, scale=h.rate),
        H.BetaPrime: lambda h: scipy.stats.betaprime(h.concentration, h.tail, scale=h.scale),
    }[type(hyper)](hyper)
    return frozen.logpdf(q), math.log(abs(hyper.power)) + (hyper.power - 1) * np.log(sigma)


@pytest.mark.parametrize("hyper", HYPERS, ids=name)
def test_hyper_priors_are_scipys_in_every_quantity(hyper):
    eta = torch.linspace(-4, 3, 15, dtype=torch.float64)
    density, change = jacobian(hyper, np.exp(eta.numpy()))
    value, first, second = hyper.log_scale_density(eta)
    assert np.allclose(value.numpy(), density + change + eta.numpy(), rtol=1e-12, atol=1e-12)
    # Derivatives by autograd.
    x = eta.clone().requires_grad_()
    (slope,) = torch.autograd.grad(hyper.log_scale_density(x)[0].sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    assert torch.allclose(first, slope.detach(), rtol=1e-10, atol=1e-12)
    assert torch.allclose(second, bend, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("hyper", HYPERS, ids=name)
def test_draws_moments_and_decay_of_hyper_priors(hyper):
    draws = hyper.draw_scale(torch.empty(20_000, dtype=torch.float64), torch.Generator().manual_seed(0)).numpy()

    def density(eta):
        return math.exp(hyper.log_scale_density(torch.tensor(eta, dtype=torch.float64))[0].item())

    grid = np.linspace(np.log(draws.min()) - 3, np.log(draws.max()) + 3, 4001)
    mass = scipy.integrate.cumulative_trapezoid([density(eta) for eta in grid], grid, initial=0.0)
    assert mass[-1] == pytest.approx(1.0, abs=2e-3)
    assert scipy.stats.kstest(np.log(draws), lambda x: np.interp(x, grid, mass)).pvalue > 1e-3
    mean = hyper.mean_square()
    if mean < math.inf:
        found = scipy.integrate.quad(lambda eta: density(eta) * math.exp(2 * eta), -40, 40, limit=500)[0]
        assert found == pytest.approx(mean, rel=1e-6)
    left, right = hyper.scale_decay()
    for rate, at, sign in ((left, -30.0, 1.0), (right, 30.0, -1.0)):
        slope = hyper.log_scale_density(torch.tensor(at, dtype=torch.float64))[1].item() * sign
        assert slope == pytest.approx(rate, rel=1e-9) if rate < math.inf else slope > 1e6


@pytest.mark.parametrize("hyper", HYPERS, ids=name)
@pytest.mark.parametrize(("size", "squares"), thinned([(1, 1e-8), (1, 0.3), (1, 50.0), (6, 0.8), (2000, 150.0)], 2))
def test_marginals_equal_quadrature(hyper, size, squares):
    unknown = UnknownScale(hyper, size, None)
    S = torch.tensor([squares], dtype=torch.float64)
    prior = br.HierarchicalGaussian(hyper, None)
    value = torch.full((size,), math.sqrt(squares / size), dtype=torch.float64)

    def logs(eta):
        e = torch.tensor(eta, dtype=torch.float64)
        return (
            hyper.log_scale_density(e)[0].item() - 0.5 * squares * math.exp(-2 * eta) - size * eta
            - 0.5 * size * math.log(2 * math.pi)
        )  # fmt: skip

    top = scipy.optimize.minimize_scalar(lambda e: -logs(e), bounds=(-15, 15), method="bounded").x
    # A plateau may reach from √S to the hyper-prior's middle; points at both.
    ends = sorted({
        top - 25,
        0.5 * math.log(squares / size),
        top - 0.5,
        top,
        top + 0.5,
        hyper.middle() / hyper.power,
        25,
    })
    pairs = list(itertools.pairwise(ends))
    shift = logs(top)
    mass = [sum(scipy.integrate.quad(lambda e, k=k: math.exp(logs(e) - shift - 2 * k * (e - top)), a, b, epsabs=1e-15,
                                     epsrel=1e-12, limit=300)[0] for a, b in pairs) for k in (0, 1)]  # fmt: skip
    expected = math.log(mass[0]) + shift
    assert prior.log_prob(value).item() == pytest.approx(expected, rel=1e-10, abs=1e-9)
    assert unknown.precision(S).item() == pytest.approx(mass[1] / mass[0] * math.exp(-2 * top), rel=1e-8)


def test_known_marginals():
    x = torch.tensor([1e-6, 0.01, 0.4, 3.0, 20.0], dtype=torch.float64)
    # A normal times a half-normal: the Bessel function K₀.
    product = br.HierarchicalGaussian(H.HalfNormal(0.5), None, "element")
    bessel = [math.log(scipy.special.k0e(v / 0.5) / (math.pi * 0.5)) - v / 0.5 for v in x.tolist()]
    assert [product.log_prob(v).item() for v in x] == pytest.approx(bessel, abs=1e-12)
    # A half-Cauchy scale, or a beta prime variance of ½, ½: the horseshoe.
    horseshoe = br.Horseshoe(0.3)
    for hyper in (H.HalfCauchy(0.3), H.BetaPrime(0.5, 0.5, 0.09)):
        prior = br.HierarchicalGaussian(hyper, None, "element")
        assert prior.log_prob(x).item() == pytest.approx(horseshoe.log_prob(x).item(), abs=1e-11)
        grads = [torch.zeros_like(x), torch.zeros_like(x)]
        for one, grad in zip((prior, horseshoe), grads, strict=True):
            one.add_grad_([grad], [x], 1.0)
        assert torch.allclose(*grads, rtol=1e-10)
    # Rows that share a scale: the multivariate Student-t of each.
    w = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = br.HierarchicalGaussian(H.Gamma(1.5, 0.2), None, "row")
    exact = scipy.stats.multivariate_t(shape=0.2 / 1.5 * np.eye(4), df=3.0).logpdf(w.numpy()).sum()
    assert rows.log_prob(w).item() == pytest.approx(exact, rel=1e-12)


COORDINATES = {
    "log": lambda e: e,
    "scale": np.exp,
    "variance": lambda e: np.exp(2 * e),
    "precision": lambda e: np.exp(-2 * e),
}


@pytest.mark.parametrize("hyper", KEPT, ids=name)
@pytest.mark.parametrize("coordinate", COORDINATES)
def test_maxima_in_each_coordinate_are_scipys(hyper, coordinate):
    """The joint density of weights and scale, written in the coordinate itself, maximised by SciPy."""
    prior = br.HierarchicalGaussian(hyper, coordinate)
    change = {
        "log": lambda s: s,
        "scale": lambda s: 1.0,
        "variance": lambda s: 0.5 / s,
        "precision": lambda s: 0.5 * s**3,
    }

    def joint(eta, w):
        sigma = math.exp(eta)
        density, inner = jacobian(hyper, sigma)
        # log p(w | σ) + log p_q(q) + log |dq/dσ| + log |dσ/dc|.
        gaussian = scipy.stats.norm(0, sigma).logpdf(w).sum()
        return -(gaussian + density + inner + math.log(change[coordinate](sigma)))

    penalties, scales = [], []
    for w in (np.array([0.3, -0.8, 0.1, 0.6, 0.2]), np.array([1.5, 0.4, -2.2, 0.7, -1.0])):
        best = scipy.optimize.minimize_scalar(
            joint, args=(w,), bounds=(-8, 8), method="bounded", options={"xatol": 1e-12}
        )
        value = torch.as_tensor(w)
        scales.append(prior.expected_scale(value).item() / math.exp(best.x))
        penalties.append((prior.penalty(value).item(), best.fun))
    assert scales == pytest.approx([1.0, 1.0], rel=1e-6)
    # The constant is free, differences are not.
    assert penalties[1][0] - penalties[0][0] == pytest.approx(penalties[1][1] - penalties[0][1], abs=1e-10)
    assert prior.penalty(torch.zeros(5)).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("hyper", HYPERS, ids=name)
def test_noncentered_maxima_are_scipys(hyper):
    prior = br.HierarchicalGaussian(hyper, "noncentered")
    w = np.array([0.3, -0.8, 0.1, 0.6, 0.2])

    def joint(eta, w):
        density, inner = jacobian(hyper, math.exp(eta))
        return 0.5 * (w @ w) * math.exp(-2 * eta) - density - inner - eta

    found = []
    for value in (w, 5 * w, 0 * w):
        best = scipy.optimize.minimize_scalar(
            joint, args=(value,), bounds=(-8, 8), method="bounded", options={"xatol": 1e-12}
        )
        found.append((prior.penalty(torch.as_tensor(value)).item(), best.fun))
    assert found[1][0] - found[0][0] == pytest.approx(found[1][1] - found[0][1], abs=1e-10)
    assert found[0][0] == pytest.approx(found[0][1] - found[2][1], abs=1e-10)


@pytest.mark.parametrize("hyper", HYPERS, ids=name)
@pytest.mark.parametrize("coordinate", ["log", "precision", "noncentered", None])
@pytest.mark.parametrize("group", ["element", "row", "column", "tensor"])
def test_gradient_and_curvature_are_autograds(hyper, coordinate, group):
    prior = br.HierarchicalGaussian(hyper, coordinate, group, loc=0.1)
    generator = torch.Generator().manual_seed(0)
    w, v = (torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    if coordinate != "noncentered" and coordinate is not None and not prior.traits.smooth:
        assert prior.remarks().no_map is not None
        return
    leaf, own = w.clone().requires_grad_(), torch.zeros_like(w)
    (slope,) = torch.autograd.grad(prior.penalty(leaf), leaf)
    prior.add_grad_([own], [w], 1.0)
    assert torch.allclose(own, slope, rtol=1e-9, atol=1e-10)
    hessian = torch.autograd.functional.hessian(prior.penalty, w).reshape(12, 12)
    assert torch.allclose(prior.curvature(w).reshape(-1), hessian.diagonal(), rtol=1e-8, atol=1e-9)
    assert torch.allclose(prior.curvature_times(w, v).reshape(-1), hessian @ v.reshape(-1), rtol=1e-8, atol=1e-9)
    if coordinate is not None:
        # A weight decay of 1/σ² with the scale that the weights imply pulls as hard.
        assert torch.allclose(own, (w - 0.1) / prior.expected_scale(w) ** 2, rtol=1e-10)


@pytest.mark.parametrize(("hyper", "group"), [(H.HalfNormal(0.4), "row"), (H.Gamma(3.0, 0.5), "tensor")])
def test_draws_share_their_scale(hyper, group):
    prior = br.HierarchicalGaussian(hyper, None, group)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([prior.sample((4, 300), generator=generator, dtype=torch.float64) for _ in range(400)])
    spread = draws.square().mean(-1).sqrt() if group == "row" else draws.square().mean((-1, -2)).sqrt()[:, None]
    again = hyper.draw_scale(torch.empty(4000, dtype=torch.float64), generator)
    assert scipy.stats.ks_2samp(spread.reshape(-1).numpy(), again.numpy()).pvalue > 1e-3
    assert draws.var().item() == pytest.approx(prior.variance(), rel=0.1)
    with pytest.raises(br.UnsupportedError, match="coordinate=None"):
        br.HierarchicalGaussian(hyper, "log", group).sample((2, 3))


# -- in a model ------------------------------------------------------------------------------------------


def diabetes():
    X, y = load_diabetes(return_X_y=True)
    X, y = torch.as_tensor(X), torch.as_tensor(y)
    return (X - X.mean(0)) / X.std(0, correction=0), ((y - y.mean()) / y.std(correction=0))[:, None]


def fitted(prior):
    X, y = diabetes()
    torch.manual_seed(0)
    model = nn.Linear(10, 1, bias=False).double()
    noise = br.likelihoods.Gaussian(math.sqrt(0.5))
    result = br.MAPTrainer(model, prior, noise, optimizer="lbfgs", tolerance=1e-13, progress=False).fit((X, y))
    return model.weight.detach()[0], result


@pytest.mark.filterwarnings("ignore:optimizer='lbfgs' stopped")
def test_the_coordinate_decides_and_log_is_the_marginal():
    """λ = (d/2 + k)/(b + S/2) with k = a − 1, a, a + ½, a + 1: four MAPs from one belief."""
    X, y = diabetes()
    found = {}
    for coordinate, k in (("precision", 1.0), ("log", 2.0), ("scale", 2.5), ("variance", 3.0), (None, 2.0)):
        prior = br.HierarchicalGaussian(H.Gamma(2.0, 0.05), coordinate)
        w, _ = fitted(prior)
        precision = prior.expected_scale(w[None]).item() ** -2
        assert precision == pytest.approx((5.0 + k) / (0.05 + 0.5 * (w @ w).item()), rel=1e-12)
        ridge = np.linalg.solve((2 * X.T @ X).numpy() + precision * np.eye(10), (2 * X.T @ y).numpy()[:, 0])
        assert np.allclose(w.numpy(), ridge, atol=1e-10)
        found[coordinate] = w, precision
    printed = [round(found[c][1], 2) for c in ("precision", "log", "scale", "variance")]
    assert printed == [31.31, 37.20, 40.18, 43.16]
    # The marginal is a multivariate Student-t of 2a degrees of freedom and scale² b/a.
    assert torch.allclose(found["log"][0], found[None][0], atol=1e-10)
    assert (found["log"][0] - found["precision"][0]).abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore:optimizer='lbfgs' stopped")
def test_normal_gamma_in_log_is_the_marginal_student_t():
    """Each weight its own precision: the joint maximum in log coordinates is the MAP of the Student-t, to 1e-10."""
    marginal, _ = fitted(br.StudentT(df=6.0, scale=math.sqrt(0.02 / 3.0)))
    for prior in (
        br.HierarchicalGaussian(H.Gamma(3.0, 0.02), "log", "element"),
        br.HierarchicalGaussian(H.Gamma(3.0, 0.02), None, "element"),
        br.NormalGamma(3.0, 0.02),
    ):
        assert torch.allclose(fitted(prior)[0], marginal, atol=1e-10)
    # And by SciPy over weights and log precisions together.
    X, y = (part.numpy() for part in diabetes())

    def joint(v):
        w, t = v[:10], v[10:]
        value = np.sum((y[:, 0] - X @ w) ** 2) + np.sum(0.5 * np.exp(t) * w**2 - 0.5 * t - 3.0 * t + 0.02 * np.exp(t))
        slope = -2 * X.T @ (y[:, 0] - X @ w) + np.exp(t) * w
        return value, np.concatenate([slope, 0.5 * np.exp(t) * w**2 - 3.5 + 0.02 * np.exp(t)])

    start = np.concatenate([marginal.numpy() + 0.01, np.full(10, 4.0)])
    best = scipy.optimize.minimize(joint, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    assert np.allclose(best.x[:10], marginal.numpy(), atol=1e-7)


@pytest.mark.parametrize("hyper", [hyper for hyper in HYPERS if hyper not in KEPT], ids=name)
def test_the_collapse_is_real_and_refused(hyper):
    # Weights at 0 and a scale that goes there: the joint density has no bound.
    def joint(eta, size=50):
        return hyper.log_scale_density(torch.tensor(eta, dtype=torch.float64))[0].item() - size * eta

    assert joint(-40.0) > joint(-20.0) + 100 > joint(-5.0) + 200
    model = nn.Linear(10, 1).double()
    for coordinate in ("log", None):
        prior = br.ModelPrior(model, br.HierarchicalGaussian(hyper, coordinate))
        for use in (
            lambda prior=prior: br.attach(torch.optim.SGD(prior.param_groups(), lr=0.1), prior, num_data=10),
            lambda prior=prior: br.MAPTrainer(
                model, prior, br.likelihoods.Gaussian(1.0), optimizer="lbfgs", progress=False
            ).fit(diabetes()),
        ):
            with pytest.raises(br.UnsupportedError, match="collapse and no MAP"):
                use()
    result = fitted(br.HierarchicalGaussian(hyper, "noncentered"))[1]
    assert result.converged


def test_any_optimizer_takes_it_and_files_keep_it(tmp_path):
    rules = {
        br.biases: br.Flat(),
        "0.*": br.HierarchicalGaussian(H.InverseGamma(2.0, 0.1), "log", "column"),
        "*": br.HierarchicalGaussian(H.HalfNormal(0.5), "noncentered", loc=0.1),
    }
    X, y = diabetes()
    ends = []
    for attached in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(10, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        prior = br.ModelPrior(model, rules)
        optimizer = torch.optim.Adam(prior.param_groups(), lr=3e-2)
        if attached:
            br.attach(optimizer, prior, num_data=len(y))
        for _ in range(50):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(X), y)
            (loss if attached else loss + prior.penalty() / len(y)).backward()
            optimizer.step()
        ends.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert torch.allclose(*ends, rtol=0, atol=1e-12)
    assert prior["0.weight"].expected_scale(model[0].weight).shape == (1, 10)
    prior.save(tmp_path / "p.safetensors")
    again = br.ModelPrior.load(tmp_path / "p.safetensors", model)
    assert torch.equal(again.penalty(), prior.penalty())
    assert repr(again["0.weight"]) == repr(prior["0.weight"])
    assert "InverseGamma" in str(again.describe(len(y)))


def test_penalties_without_a_bound_are_whole():
    """Also in coordinates that are refused as a MAP, values are those of the joint density, up to a constant."""
    prior = br.HierarchicalGaussian(H.HalfCauchy(0.3))
    w = torch.tensor([0.3, -0.1, 0.05], dtype=torch.float64)

    def joint(eta, value):
        density, inner = jacobian(prior.hyper, math.exp(eta))
        return -(scipy.stats.norm(0, math.exp(eta)).logpdf(value).sum() + density + inner + eta)

    lowest = [
        scipy.optimize.minimize_scalar(joint, args=(k * w.numpy(),), bounds=(-9, 9), method="bounded").fun
        for k in (1, 2)
    ]
    assert (prior.penalty(2 * w) - prior.penalty(w)).item() == pytest.approx(lowest[1] - lowest[0], abs=1e-8)
    assert prior.penalty(torch.zeros(3)).item() == -math.inf


def test_describe_says_what_an_empty_group_gains():
    model = nn.Linear(100, 50)
    words = str(br.ModelPrior(model, br.HierarchicalGaussian(H.InverseGamma(2.0, 0.05))).describe())
    # (m/2 + a)·log(1 + S/2b) with S = m·b/a.
    gain = 2502 * math.log1p(5000 * 0.025 / 0.1)
    assert f"has {gain:,.0f} nats more density" in words
    for quiet in (
        br.HierarchicalGaussian(H.InverseGamma(2.0, 0.05), "noncentered"),
        br.HierarchicalGaussian(H.InverseGamma(2.0, 0.05), group="element"),
    ):
        assert "nats more" not in str(br.ModelPrior(model, quiet).describe())


def test_about_a_reference():
    torch.manual_seed(0)
    model, pretrained = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    hyper = H.InverseGamma(2.0, 0.01)
    prior = br.ModelPrior(model, br.HierarchicalGaussian.centered_at(pretrained, hyper, "scale", "row"))["weight"]
    moved = br.HierarchicalGaussian(hyper, "scale", "row").with_loc(pretrained.weight.detach())
    assert prior.expected_scale(model.weight).shape == (3, 1)
    for other in (moved, br.HierarchicalGaussian(hyper, "scale", "row", loc=pretrained.weight.detach())):
        assert prior.penalty(model.weight).item() == pytest.approx(other.penalty(model.weight).item(), rel=1e-14)
    assert "Linear" in prior.describe()


def test_what_is_wrong_is_said():
    with pytest.raises(br.InvalidArgumentError, match=r"br\.hyperpriors"):
        br.HierarchicalGaussian(0.1)
    with pytest.raises(br.InvalidArgumentError, match="did you mean group="):
        br.HierarchicalGaussian(H.HalfNormal(1.0), "column")
    with pytest.raises(br.InvalidArgumentError, match=r"torch\.distributions"):
        br.HierarchicalGaussian(torch.distributions.HalfCauchy(0.1))
    with pytest.raises(br.InvalidArgumentError, match="expected one of log"):
        br.HierarchicalGaussian(H.HalfNormal(1.0), "logs")
    with pytest.raises(br.InvalidArgumentError, match="expected one of element"):
        br.HierarchicalGaussian(H.HalfNormal(1.0), group="rows")
    with pytest.raises(br.InvalidArgumentError, match="of: expected one of scale"):
        H.HalfNormal(1.0, of="std")
    with pytest.raises(br.InvalidArgumentError, match="rate: expected"):
        H.Gamma(1.0, -1.0)
    with pytest.raises(br.InvalidArgumentError, match="HalfNormal"):
        from_dict({"family": "Halfnormal", "scale": 1.0})
    with pytest.raises(br.InvalidArgumentError, match="HalfNormal: unexpected argument 'width'; it takes scale, of"):
        from_dict({"family": "HalfNormal", "width": 1.0})
    with pytest.raises(br.InvalidArgumentError, match="no maximum"):
        br.ModelPrior(nn.Linear(1, 1), {"*": br.HierarchicalGaussian(H.Gamma(0.2, 1.0), "precision", "element")})
    with pytest.raises(br.InvalidArgumentError, match="2 or more dimensions"):
        br.ModelPrior(nn.Linear(3, 1), {"*": br.HierarchicalGaussian(H.InverseGamma(2.0, 1.0), group="column")})
