"""R2D2: its marginal by Tricomi's function, two weights by their shares, R² by draws, autograd, MAP, refusals."""

from __future__ import annotations

import copy

import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
import torch
from sklearn.datasets import load_diabetes
from torch import nn

import bayesreg as br
from bayesreg.priors.grouped import shared_rate
from bayesreg.priors.grouped.shared_rate import SharedRate
from tests.sampling import thinned

# (concentration, tail): Bessel functions of orders below 0, 0, below 1, ½, 1, over 1, and far over it.
CASES = [
    (0.2, 0.5), (0.5, 0.5), (0.5, 2.0), (0.75, 1.0), (1.0, 0.5), (1.2, 3.0), (1.5, 0.5), (2.0, 1.0), (10.0, 4.0),
    (50.0, 0.3), (1.0, 50.0), (0.05, 0.1),
]  # fmt: skip
MAPS = [case for case in CASES if case[0] > 1.0]


def marginal(a, b, scale, r):
    """The density of one weight: λ ~ BetaPrime(a, b) integrated out."""
    with mpmath.workdps(30):
        a, b, scale, r = (mpmath.mpf(x) for x in (a, b, scale, r))
        found = mpmath.hyperu(b + 0.5, mpmath.mpf(3) / 2 - a, r**2 / (2 * scale**2))
        return mpmath.log(
            mpmath.gamma(a + b) * mpmath.gamma(b + 0.5) * found
            / (mpmath.gamma(a) * mpmath.gamma(b) * mpmath.sqrt(2 * mpmath.pi) * scale)
        )  # fmt: skip


@pytest.mark.parametrize("scale", thinned([0.03, 1.0, 40.0], 3))
@pytest.mark.parametrize(("a", "b"), CASES)
def test_one_weight_has_tricomis_density(a, b, scale):
    prior = br.R2D2(a, b, scale, loc=0.0)
    for r in (1e-12, 1e-6, 1e-3, 0.1, 1.0, 5.0, 1e2, 1e4):
        found = prior.log_prob(torch.tensor([r * scale], dtype=torch.float64)).item()
        assert found == pytest.approx(float(marginal(a, b, scale, r * scale)), abs=1e-12, rel=1e-12)


@pytest.mark.parametrize("a", [0.05, 0.2, 0.5, 0.75, 1.2, 2.0, 20.0, 50.0])
def test_the_kernel_is_right_where_its_series_takes_over(a):
    rate = SharedRate(a, 0.5, 1.0)
    z = np.array([1e-300, 1e-120, 0.9 * rate._small, 1.1 * rate._small, 1e-9, 1.0])
    with mpmath.workdps(40):
        expected = [
            float(mpmath.log((mpmath.mpf(x) / 2) ** (a - 0.5) * mpmath.besselk(a - 0.5, mpmath.mpf(x)))) for x in z
        ]
        ratios = [float(mpmath.besselk(a - 1.5, mpmath.mpf(x)) / mpmath.besselk(a - 0.5, mpmath.mpf(x))) for x in z]
    assert np.allclose(rate._log_kernel(z), expected, rtol=2e-15, atol=3e-13)
    usable = z >= rate._small if a <= 1.5 else z > 0.0
    assert np.allclose(rate._ratio(z)[usable], np.array(ratios)[usable], rtol=1e-9)


# The last would need a grid of 1e8 points.
@pytest.mark.parametrize(("a", "b"), CASES[:-1])
def test_two_weights_have_the_density_of_their_shares(a, b):
    """Σ λ ~ BetaPrime(2a, b), split as Beta(a, a): trapezoidal rules over the logits of both."""
    w = np.array([0.6, -1.7])
    span = 45.0 / min(a, b, 0.5)
    u = np.linspace(-span, span, 2401)
    share, other, total = scipy.special.log_expit(u)[:, None], scipy.special.log_expit(-u)[:, None], u[None, :]
    logs = a * (share + other) - scipy.special.betaln(a, a)
    logs = logs + 2 * a * total + (2 * a + b) * scipy.special.log_expit(-total) - scipy.special.betaln(2 * a, b)
    for r, part in zip(w, (share, other), strict=True):
        inverse = np.exp(np.minimum(-part - total, 600.0))
        logs = logs - 0.5 * (np.log(2 * np.pi) + part + total) - 0.5 * r**2 * inverse
    expected = scipy.special.logsumexp(logs) + 2 * np.log(u[1] - u[0])
    found = br.R2D2(a, b).log_prob(torch.as_tensor(w)[None]).item()
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("a", "b"), CASES)
def test_the_density_over_two_has_that_of_one_as_marginal(a, b):
    prior, first = br.R2D2(a, b), 0.8
    far = 160.0 if min(a, b) >= 0.2 else 500.0
    t = np.linspace(-far, far, int(5 * far) + 1)
    second = np.exp(t)
    logs = SharedRate(a, b, 1.0).log_density(np.stack([np.full_like(second, first), second], 1)) + t
    total = scipy.special.logsumexp(logs) + np.log(2 * (t[1] - t[0]))
    assert total == pytest.approx(prior.log_prob(torch.tensor([first], dtype=torch.float64)).item(), abs=1e-8)


@pytest.mark.parametrize(("a", "b"), CASES)
def test_derivatives_are_autograds_and_finite_differences(a, b):
    prior, w = br.R2D2(a, b, 0.7, loc=0.1), torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(prior.log_prob, w.clone().requires_grad_())
    assert torch.autograd.gradgradcheck(prior.log_prob, w.clone().requires_grad_())
    leaf, v = w.clone().requires_grad_(), torch.randn_like(w)
    (expected,) = torch.autograd.grad(prior.penalty(leaf), leaf)
    grad = torch.ones_like(w)
    prior.add_grad_([grad], [w], 0.7)
    assert torch.allclose(grad, 1.0 + 0.7 * expected, rtol=1e-13)
    assert torch.equal(torch.func.grad(prior.penalty)(w), expected)
    hessian = torch.autograd.functional.hessian(prior.penalty, w).reshape(12, 12)
    assert torch.allclose(prior.curvature(w).reshape(-1), hessian.diagonal(), rtol=1e-10, atol=1e-12)
    assert torch.allclose(prior.curvature_times(w, v).reshape(-1), hessian @ v.reshape(-1), atol=1e-10)
    assert torch.equal(hessian[:4, 4:], torch.zeros(4, 8, dtype=torch.float64))
    assert (prior.psd_curvature(w) >= 0).all()


@pytest.mark.parametrize(("a", "b"), MAPS)
def test_the_peak_is_at_the_centre_and_flat(a, b):
    prior, w = br.R2D2(a, b, 0.7, loc=0.5), torch.full((2, 3), 0.5, dtype=torch.float64, requires_grad=True)
    assert prior.penalty(w).item() == pytest.approx(0.0, abs=1e-12)
    (grad,) = torch.autograd.grad(prior.penalty(w), w)
    assert torch.equal(grad, torch.zeros_like(grad))
    beside = prior.penalty(w.detach() + 1e-3 * torch.randn(2, 3, dtype=torch.float64))
    assert beside > 0
    if a > 1.5:
        # E[ξ | all at the centre] / (s²·(ν − 1)), and ξ is Gamma(b + 3/2, 1) there.
        expected = (b + 1.5) / (0.7**2 * (a - 1.5))
        assert torch.allclose(prior.curvature(w.detach()), torch.full_like(grad, expected), rtol=1e-10)


@pytest.mark.parametrize("a", [0.2, 0.5])
def test_small_concentrations_have_a_pole_and_no_nan(a):
    prior, w = br.R2D2(a, 0.5), torch.tensor([[0.0, 1.0], [0.3, 1.0]], dtype=torch.float64)
    assert prior.log_prob(w).item() == np.inf
    grad = torch.zeros_like(w)
    prior.add_grad_([grad], [w], 1.0)
    assert torch.equal(grad[0], torch.zeros(2, dtype=torch.float64))
    assert (grad[1] > 0).all()
    assert prior.curvature(w).isfinite().all()
    assert prior.log_prob(torch.tensor([1e-9])) > prior.log_prob(torch.tensor([1e-3]))


def test_rows_are_those_of_the_first_index(monkeypatch):
    prior, w = br.R2D2(1.5, 0.5, 0.7), torch.randn(3, 4, dtype=torch.float64)
    each = [prior.log_prob(row).item() for row in w]
    assert prior.log_prob(w).item() == pytest.approx(sum(each), rel=1e-13)
    assert prior.log_prob(w.reshape(3, 2, 2, 1)).item() == pytest.approx(sum(each), rel=1e-13)
    assert prior.log_prob(w.reshape(-1)).item() != pytest.approx(sum(each), rel=1e-3)
    shuffled = w[:, [2, 0, 3, 1]] * torch.tensor([1.0, -1.0, -1.0, 1.0])
    assert prior.log_prob(shuffled).item() == pytest.approx(sum(each), rel=1e-13)
    wider = br.R2D2(1.5, 0.5, 7.0)
    assert wider.log_prob(10 * w).item() == pytest.approx(sum(each) - 12 * np.log(10.0), rel=1e-12)
    assert wider.same_as(prior.stretched(10.0))
    for a in (0.3, 1.5):
        one, ten = br.R2D2(a, 0.5, 0.7), br.R2D2(a, 0.5, 7.0)
        assert ten.penalty(10 * w).item() == pytest.approx(one.penalty(w).item(), rel=1e-12)
    # Many rows are looked at some at a time.
    many = torch.randn(30, 20, dtype=torch.float64)
    monkeypatch.setattr(shared_rate, "_PIECE", 2**16)
    assert len(list(prior._rate()._pieces(many.numpy()))) == 3
    parts = sum(prior.log_prob(part).item() for part in many.split(7))
    assert prior.log_prob(many).item() == pytest.approx(parts, rel=1e-12)
    v = torch.randn_like(many)
    expected = torch.cat([prior.curvature_times(x, y) for x, y in zip(many.split(7), v.split(7), strict=True)])
    assert torch.allclose(prior.curvature_times(many, v), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.5), (1.5, 3.0)])
def test_draws_explain_a_beta_share(a, b):
    """The variances by their shares, with NumPy; and the variance of weights where it is finite."""
    draws = br.R2D2(a, b, 0.7, loc=2.0).sample((20_000, 3), generator=torch.Generator().manual_seed(0)) - 2.0
    rng = np.random.default_rng(1)
    explained = rng.beta(3 * a, b, 20_000)
    shares = rng.dirichlet([a] * 3, 20_000)
    others = 0.7 * np.sqrt((explained / (1 - explained))[:, None] * shares) * rng.standard_normal((20_000, 3))
    for statistic in (lambda x: np.abs(x).max(1), lambda x: np.abs(x[:, 0]), lambda x: np.abs(x).min(1)):
        assert scipy.stats.ks_2samp(statistic(draws.double().numpy()), statistic(others)).pvalue > 1e-3
    if b > 2.0:
        assert draws.square().mean().item() == pytest.approx(br.R2D2(a, b, 0.7).variance(), rel=0.1)
    else:
        assert br.R2D2(a, b).variance() is None


def test_alike_shares_are_a_scale_that_a_row_has_in_common():
    gaps = []
    for a in (12.5, 25.0, 50.0):
        w = a**0.5 * torch.tensor([[1.0, -0.4, 2.0]], dtype=torch.float64)
        shared = br.HierarchicalGaussian(br.hyperpriors.InverseGamma(0.8, a), None, "row")
        gaps.append(abs(br.R2D2(a, 0.8).log_prob(w).item() - shared.log_prob(w).item()))
    assert gaps[0] / gaps[1] == pytest.approx(2.0, rel=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(2.0, rel=0.1)


def test_the_map_of_a_regression_is_scipys():
    X, y = load_diabetes(return_X_y=True)
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    prior = br.R2D2(1.5, 0.5, 0.7)
    found = br.MAPRegressor(prior, br.likelihoods.Gaussian(0.7), fit_intercept=False).fit(X, y)

    def objective(w):
        weights = torch.as_tensor(w)[None]
        grad = torch.zeros_like(weights)
        prior.add_grad_([grad], [weights], 1.0)
        rest = y - X @ w
        return rest @ rest / (2 * 0.49) + prior.penalty(weights).item(), -X.T @ rest / 0.49 + grad[0].numpy()

    truth = scipy.optimize.minimize(objective, np.zeros(10), jac=True, method="BFGS", options={"gtol": 1e-8})
    assert np.abs(found.coef_ - truth.x).max() < 1e-6
    assert found.result_.converged
    flat = np.linalg.lstsq(X, y, rcond=None)[0]
    assert np.abs(found.coef_ - flat).max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_weights(dtype):
    prior, w = br.R2D2(1.5, 0.5), (0.02 * torch.randn(20, 30)).to(dtype)
    assert prior.log_prob(w).dtype == torch.float64
    assert prior.log_prob(w).item() == pytest.approx(prior.log_prob(w.double()).item(), rel=1e-6)
    grad = torch.zeros_like(w)
    prior.add_grad_([grad], [w], 1.0)
    assert grad.dtype == dtype
    assert grad.abs().sum() > 0


@pytest.mark.parametrize("size", [1e-300, 1e-150, 1e-38, 1e38, 1e150])
@pytest.mark.parametrize("a", [0.3, 0.5, 1.0, 1.2, 2.0, 50.0])
def test_extreme_weights(a, size):
    prior, w = br.R2D2(a, 0.5), size * torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    assert prior.log_prob(w).isfinite()
    grad = torch.zeros_like(w)
    prior.add_grad_([grad], [w], 1.0)
    assert grad.isfinite().all()
    assert (grad * w >= 0).all()
    # From where on p is a power of the weights: −Σ w·d log p/dw.
    if size >= 1e38:
        assert (grad * w).sum().item() == pytest.approx(3 + 2 * 0.5, rel=1e-9)


def test_what_is_not_finite_or_empty():
    prior = br.R2D2(1.5, 0.5)
    assert prior.log_prob(torch.ones(0, 3)).item() == 0.0
    assert prior.log_prob(torch.ones(3, 0)).item() == 0.0
    assert prior.log_prob(torch.tensor(0.3)).isfinite()
    assert prior.log_prob(torch.tensor([[np.nan, 1.0]])).isnan()
    grad = torch.zeros(2, 2)
    prior.add_grad_([grad], [torch.tensor([[np.inf, 1.0], [1.0, 1.0]])], 1.0)
    assert grad[0].isnan().all()
    assert grad[1].isfinite().all()


def test_compiles_around_it_copies_and_saves(tmp_path):
    prior, w = br.R2D2(1.5, 0.5, 0.3, loc=0.1), torch.randn(4, 3)
    compiled = torch.compile(lambda x: prior.penalty(x) + x.square().sum(), backend="eager")
    assert compiled(w).item() == pytest.approx((prior.penalty(w) + w.square().sum()).item(), rel=1e-6)
    assert torch.equal(copy.deepcopy(prior).bfloat16().log_prob(w), prior.log_prob(w))
    model = nn.Linear(3, 4).double()
    held = br.ModelPrior(model, prior)
    held.save(tmp_path / "p.safetensors")
    again = br.ModelPrior.load(tmp_path / "p.safetensors", model)
    assert torch.equal(held.log_prob(), again.log_prob())
    assert again["weight"].same_as(prior)
    assert br.prior_from_words("r2d2(1.5, 0.5, 0.3)").same_as(br.R2D2(1.5, 0.5, 0.3))


def test_says_what_it_is_and_what_it_is_not():
    prior = br.R2D2(1.5, 2.0, 0.3)
    assert prior.describe() == "R2D2 by row, R² of p weights ~ Beta(1.5·p, 2) at noise std 0.3, centred on 0"
    assert repr(prior) == "R2D2(concentration=1.5, tail=2, scale=0.3, loc=0)"
    with pytest.raises(br.NotEquivalentError, match=r"No weight_decay is equivalent to R2D2.*br\.attach"):
        prior.weight_decay(100)
    assert prior.traits.smooth
    assert not br.R2D2(1.0).traits.smooth
    for a, what in ((0.5, "has no bound"), (1.0, "has a kink at the centre")):
        with pytest.raises(br.UnsupportedError, match=f"weight: with a concentration of {a:g} the density {what}"):
            br.MAPRegressor(br.R2D2(a)).fit(np.eye(3), np.ones(3))


@pytest.mark.parametrize(("build", "message"), [
    (lambda: br.R2D2(0.0), "concentration: expected a value > 0"),
    (lambda: br.R2D2(51.0), r"concentration: expected a number in \(0, 50\], got 51.*HierarchicalGaussian"),
    (lambda: br.R2D2(1.5, -1.0), "tail: expected a value > 0"),
    (lambda: br.R2D2(1.5, 1.0, torch.ones(3)), r"scale: expected one number, got a tensor of shape \(3,\)"),
    (lambda: br.R2D2(1.5, 1.0, nn.Parameter(torch.tensor(1.0))), "scale: expected a fixed number"),
])  # fmt: skip
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        build()
