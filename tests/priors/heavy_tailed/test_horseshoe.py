"""The horseshoe: its exact density over thirty decades, its draws, and its MAP in each coordinate against SciPy."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import torch
from torch import nn

import bayesreg as br
from bayesreg.priors.numerics.exponential_integral import scaled_exponential_integrals, scaled_gap
from bayesreg.testing import PriorContract
from tests.sampling import slow


def log_scaled_e1(u):
    """Return log e^u·E₁(u) by SciPy, and far out by the asymptotic series."""
    u = np.asarray(u, dtype=float)
    near = np.log(scipy.special.exp1(np.minimum(u, 600.0))) + np.minimum(u, 600.0)
    far = np.maximum(u, 600.0)
    series = sum((-1) ** k * math.factorial(k) / far**k for k in range(12))
    return np.where(u < 600.0, near, np.log(series / far))


class TestHorseshoe(PriorContract):
    trainable = False

    def make(self, scale):
        return br.Horseshoe(scale)

    def logpdf(self, scale):
        def reference(x):
            u = np.maximum((np.asarray(x, dtype=float) / scale) ** 2 / 2, 1e-300)
            return log_scaled_e1(u) - math.log(scale) - 0.5 * math.log(2 * math.pi**3)

        return reference


class TestCentered(PriorContract):
    proper = False

    def make(self, scale):
        return br.Horseshoe(scale, coordinate="centered")


class TestNoncentered(PriorContract):
    proper = False
    centre = -0.5

    def make(self, scale):
        return br.Horseshoe(scale, coordinate="noncentered", loc=-0.5)


@pytest.mark.parametrize("powers", [range(-4, 5, 2), slow(range(-300, 11, 3))], ids=["near 1", "everywhere"])
def test_the_exponential_integral_is_exact_over_all_numbers(powers):
    with mpmath.workdps(50):
        for power in powers:
            for digits in (1.0, 2.3, 7.1):
                u = digits * 10.0**power
                first, second = scaled_exponential_integrals(torch.tensor(u, dtype=torch.float64))
                exact = mpmath.exp(u) * mpmath.e1(u)
                other = mpmath.exp(u) * mpmath.expint(2, u)
                assert abs(first.item() / exact - 1) < 1e-14
                assert abs(second.item() / other - 1) < 1e-14
                gap = scaled_gap(torch.tensor(u, dtype=torch.float64), first, second).item()
                assert abs(gap / (1 / mpmath.mpf(u) - other / (u * exact)) - 1) < 1e-11


def test_the_density_is_exact_and_not_between_bounds():
    with mpmath.workdps(40):
        for x in (1e-140, 1e-20, 1e-3, 0.7, 3.0, 40.0, 1e5):
            u = mpmath.mpf(x) ** 2 / 2 / mpmath.mpf(0.3) ** 2
            exact = mpmath.log(mpmath.exp(u) * mpmath.e1(u) / (0.3 * mpmath.sqrt(2 * mpmath.pi**3)))
            found = br.Horseshoe(0.3).log_prob(torch.tensor([x], dtype=torch.float64)).item()
            assert abs(found - exact) < 1e-13 * max(1, abs(exact))
    assert br.Horseshoe(1.0).log_prob(torch.zeros(1)).item() == math.inf


def test_slope_and_curvature_against_forty_digits():
    with mpmath.workdps(60):

        def penalty(x):
            u = x**2 / 2 / mpmath.mpf(0.3) ** 2
            return -mpmath.log(mpmath.exp(u) * mpmath.e1(u))

        for x in (1e-6, 1e-2, 0.3, 2.0, 10.0, 30.0):
            value = torch.tensor([x], dtype=torch.float64)
            slope, bend = mpmath.diff(penalty, x), mpmath.diff(penalty, x, 2)
            prior = br.Horseshoe(0.3)
            assert prior.offset_slope(value).item() == pytest.approx(float(slope), rel=1e-11)
            assert prior.offset_curvature(value).item() == pytest.approx(float(bend), rel=1e-9)


def test_local_scales_are_independent():
    draws = br.Horseshoe(0.2).sample((400, 50), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # A scale shared by a row would make its large draws come together: their logs would be correlated.
    logs = draws.abs().log()
    centred = logs - logs.mean()
    pairs = (centred[:, ::2] * centred[:, 1::2]).mean() / centred.square().mean()
    assert abs(pairs.item()) < 0.05
    assert draws.abs().median().item() == pytest.approx(0.2 * 0.64, rel=0.1)


# -- the MAP, by name of the coordinate ----------------------------------------------------------------------------


def joint(coordinate, y, tau, noise):
    """Return SciPy's minimum of the joint objective over a weight and its local scale, from many starts."""

    def objective(p):
        inner, log_lambda = p
        lam = math.exp(log_lambda)
        w = inner if coordinate == "centered" else tau * lam * inner
        # log λ as the coordinate: the density of half-Cauchy(0, 1) times λ.
        local = math.log1p(lam**2) - log_lambda
        given = inner**2 / (2 * tau**2 * lam**2) + log_lambda if coordinate == "centered" else inner**2 / 2
        return (w - y) ** 2 / (2 * noise**2) + given + local

    found = []
    for start in (0.05, 0.5, 1.0):
        for log_lambda in (-3.0, -1.0, 0.0, 1.0, 3.0):
            inner = start * y if coordinate == "centered" else start * y / (tau * math.exp(log_lambda))
            result = scipy.optimize.minimize(
                objective, [inner, log_lambda], method="Nelder-Mead",
                options={"xatol": 1e-12, "fatol": 1e-14, "maxiter": 20_000, "maxfev": 20_000},
            )  # fmt: skip
            w = result.x[0] if coordinate == "centered" else tau * math.exp(result.x[1]) * result.x[0]
            found.append((result.fun, w))
    return min(found)[1]


@pytest.mark.parametrize("y", [0.05, 0.3, 0.6, 1.2, 3.0, -2.0])
@pytest.mark.parametrize("coordinate", ["centered", "noncentered"])
def test_the_map_is_that_of_weights_and_local_scales_together(coordinate, y):
    tau, noise = 0.2, 0.4
    prior = br.Horseshoe(tau, coordinate=coordinate)
    # A weight that was observed once is the prox; without one (smooth) the root of its slope.
    if coordinate == "centered":
        mine = prior.prox(torch.tensor([y], dtype=torch.float64), noise**2).item()
    else:
        mine = scipy.optimize.brentq(
            lambda w: (w - y) / noise**2 + prior.offset_slope(torch.tensor([w], dtype=torch.float64)).item(), -5, 5,
            xtol=1e-14,
        )  # fmt: skip
    assert mine == pytest.approx(joint(coordinate, y, tau, noise), abs=2e-6)


@pytest.mark.parametrize("h", [0.5, 2.0, 2.5, 4.0, 9.0, 40.0])
def test_the_prox_finds_the_better_of_two_minima(h):
    prior = br.Horseshoe(1.0, coordinate="centered")
    grid = torch.linspace(0.0, 80.0, 800_001, dtype=torch.float64)
    heights = prior.offset_penalty(grid)
    # From where there is one minimum to far beyond where the slope at 0 alone would leave it.
    for v in np.linspace(0.2, 1.6 * math.sqrt(2) * h + 1.0, 25):
        best = ((grid - v).square() / (2 * h) + heights).min().item()
        found = prior.prox(torch.tensor([v], dtype=torch.float64), h)
        value = ((found - v).square() / (2 * h) + prior.penalty(found)).item()
        assert value <= best + 1e-12


def test_one_coordinate_is_sparse_and_the_other_is_not():
    y = torch.tensor([0.1, 0.3, 2.0], dtype=torch.float64)
    centred = br.Horseshoe(0.2, coordinate="centered").prox(y, 0.16)
    assert centred[:2].tolist() == [0.0, 0.0]
    assert centred[2].item() > 1.8
    # √2/τ at the kink, curvature 1/τ² without one, log tails in both.
    tiny = torch.tensor([1e-9], dtype=torch.float64)
    assert br.Horseshoe(0.2, "centered").offset_slope(tiny).item() == pytest.approx(math.sqrt(2) / 0.2)
    assert br.Horseshoe(0.2, "noncentered").offset_curvature(torch.zeros(1)).item() == pytest.approx(25.0)
    for coordinate, count in (("centered", 2.0), ("noncentered", 1.0)):
        far = torch.tensor([1e6], dtype=torch.float64)
        assert br.Horseshoe(0.2, coordinate).offset_slope(far).item() == pytest.approx(count * 1e-6, rel=1e-6)


def test_the_density_is_not_trained_and_says_why():
    model = nn.Linear(3, 1)
    prior = br.ModelPrior(model, br.Horseshoe(0.1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for route in ("auto", "gradient"):
        with pytest.raises(br.UnsupportedError, match=r"weight: the horseshoe's density has no bound .*'centered'"):
            br.attach(optimizer, prior, num_data=10, route=route)
    with pytest.raises(br.UnsupportedError, match="no bound at its centre"):
        br.MAPObjective(prior, num_data=10)
    with pytest.raises(br.UnsupportedError, match="L0 has no slope anywhere"):
        br.MAPObjective(br.ModelPrior(model, br.L0(1.0)), num_data=10)
    data = (torch.randn(8, 3), torch.randn(8, 1))
    for solver in ("lbfgs", "proximal"):
        trainer = br.MAPTrainer(model, prior, br.likelihoods.Gaussian(1.0), optimizer=solver, progress=False)
        with pytest.raises(br.UnsupportedError, match="no bound at its centre"):
            trainer.fit(data)
    with pytest.raises(br.UnsupportedError, match="draw from Horseshoe"):
        br.Horseshoe(0.1, "centered").sample((2,))
    with pytest.raises(br.InvalidArgumentError, match="did you mean 'centered'"):
        br.Horseshoe(0.1, coordinate="centred")


@pytest.mark.parametrize("coordinate", ["centered", "noncentered"])
def test_a_regression_reaches_a_stationary_point(coordinate):
    torch.manual_seed(0)
    X = torch.randn(60, 20, dtype=torch.float64)
    truth = torch.zeros(20, dtype=torch.float64)
    truth[:2] = torch.tensor([2.0, -1.0])
    y = X @ truth + 0.5 * torch.randn(60, dtype=torch.float64)
    model = nn.Linear(20, 1, bias=False).double()
    prior = br.ModelPrior(model, {"*": br.Horseshoe(0.05, coordinate=coordinate)})
    solver = "proximal" if coordinate == "centered" else "lbfgs"
    trainer = br.MAPTrainer(model, prior, br.likelihoods.Gaussian(0.5), optimizer=solver, progress=False,
                            tolerance=1e-9, max_iterations=3000)  # fmt: skip
    assert trainer.fit((X, y[:, None])).converged
    weight = model.weight.detach()[0]
    gradient = X.T @ (X @ weight - y) / 0.25
    assert prior["weight"].subdiff_distance(weight, gradient).max() < 1e-5
    zeros = int((weight == 0).sum())
    assert zeros >= 14 if coordinate == "centered" else zeros == 0
