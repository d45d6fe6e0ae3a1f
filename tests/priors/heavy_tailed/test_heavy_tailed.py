"""StudentT, Cauchy, NormalGamma: the contract, stress values, limits, the prox with two minima."""

from __future__ import annotations

import math

import mpmath
import pytest
import scipy.stats
import torch

import bayesreg as br
from bayesreg.testing import PriorContract


class TestStudentT(PriorContract):
    per_element = ("df", "scale")

    def make(self, scale):
        return br.StudentT(df=4.0, scale=scale)

    def logpdf(self, scale):
        return scipy.stats.t(4.0, 0, scale).logpdf


class TestCentredStudentT(PriorContract):
    centre = -0.6
    per_element = ("df", "scale")

    def make(self, scale):
        return br.StudentT(df=7.5, scale=scale, loc=-0.6)

    def logpdf(self, scale):
        return scipy.stats.t(7.5, -0.6, scale).logpdf


class TestStudentTOfFewDegrees(PriorContract):
    per_element = ("df", "scale")

    def make(self, scale):
        return br.StudentT(df=0.7, scale=scale)

    def logpdf(self, scale):
        return scipy.stats.t(0.7, 0, scale).logpdf

    # Tails of this weight reach beyond any quadrature: their mass is known.
    @pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
    def test_integrates_to_one(self, scale):
        prior = self.make(scale)
        with mpmath.workdps(30):

            def density(x):
                return mpmath.e ** prior.log_prob(torch.tensor(float(x), dtype=torch.float64)).item()

            inside = mpmath.quad(density, [k * scale for k in (-1e3, -30, -3, 0, 3, 30, 1e3)])
            assert float(inside) == pytest.approx(1 - 2 * scipy.stats.t(0.7).sf(1e3), abs=1e-8)

    # Nor does the table of the distribution function: only draws within it are compared.
    @pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
    def test_samples_follow_the_density(self, scale):
        draws = self.make(scale).sample((4000,), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        assert scipy.stats.kstest(draws.numpy(), scipy.stats.t(0.7, 0, scale).cdf).pvalue > 1e-3


class TestCauchy(PriorContract):
    def make(self, scale):
        return br.Cauchy(scale)

    def logpdf(self, scale):
        return scipy.stats.cauchy(0, scale).logpdf


class TestNormalGamma(PriorContract):
    per_element = ("rate",)

    def make(self, scale):
        return br.NormalGamma(concentration=2.5, rate=1.5 * scale**2)

    def logpdf(self, scale):
        return scipy.stats.t(5.0, 0, scale * math.sqrt(1.5 / 2.5)).logpdf


@pytest.mark.parametrize("df", [1e-2, 0.5, 3.0, 30.0, 399.0, 401.0, 1e4, 1e8])
@pytest.mark.parametrize("x", [0.0, 1e-8, 0.3, 40.0, 1e6])
def test_agrees_with_mpmath_at_any_degrees_of_freedom(df, x):
    scale = 0.37
    with mpmath.workdps(60):
        nu, s, w = mpmath.mpf(df), mpmath.mpf(scale), mpmath.mpf(x)
        expected = (
            mpmath.loggamma((nu + 1) / 2)
            - mpmath.loggamma(nu / 2)
            - mpmath.log(nu * mpmath.pi) / 2
            - mpmath.log(s)
            - (nu + 1) / 2 * mpmath.log1p(w**2 / (nu * s**2))
        )
    found = br.StudentT(df, scale).log_prob(torch.tensor(x, dtype=torch.float64)).item()
    assert found == pytest.approx(float(expected), rel=1e-12)


def test_many_degrees_of_freedom_are_a_gaussian():
    value = torch.linspace(-1, 1, 9, dtype=torch.float64)
    near, limit = br.StudentT(1e10, 0.3), br.Gaussian(0.3)
    assert near.log_prob(value).item() == pytest.approx(limit.log_prob(value).item(), rel=1e-8)
    assert torch.allclose(near.prox(value, 0.2), limit.prox(value, 0.2), rtol=1e-8)
    assert torch.allclose(near.curvature(value), limit.curvature(value), rtol=1e-8)
    assert near.variance() == pytest.approx(0.09, rel=1e-8)


def test_the_three_are_one_family():
    value = torch.linspace(-3, 3, 7, dtype=torch.float64)
    assert br.Cauchy(0.4).log_prob(value).item() == pytest.approx(
        br.StudentT(1.0, 0.4).log_prob(value).item(), rel=1e-13
    )
    marginal, student = br.NormalGamma(2.0, 0.3), br.StudentT(4.0, math.sqrt(0.15))
    assert marginal.log_prob(value).item() == pytest.approx(student.log_prob(value).item(), rel=1e-13)
    assert marginal.variance() == pytest.approx(student.variance())


def test_normal_gamma_is_the_gaussian_with_its_precision_integrated_out():
    a, b, w = 1.7, 0.4, 0.6
    with mpmath.workdps(30):
        mass = mpmath.quad(
            lambda lam: (
                mpmath.npdf(w, 0, 1 / mpmath.sqrt(lam))
                * b**a
                * lam ** (a - 1)
                * mpmath.e ** (-b * lam)
                / mpmath.gamma(a)
            ),
            [0, 1, 5, 20, mpmath.inf],
        )
    assert br.NormalGamma(a, b).log_prob(torch.tensor(w, dtype=torch.float64)).item() == pytest.approx(
        float(mpmath.log(mass)), rel=1e-12
    )


def test_variance_exists_from_two_degrees_on():
    assert br.StudentT(2.0, 1.0).variance() is None
    assert br.Cauchy(1.0).variance() is None
    assert br.NormalGamma(1.0, 1.0).variance() is None
    assert br.StudentT(3.0, 2.0).variance() == pytest.approx(12.0)
    assert br.Cauchy(1.0).weight_decay_readings(10).variance_matched is None


@pytest.mark.parametrize("h", [7.9, 8.1, 20.0, 1e3, 1e6])
def test_prox_with_two_minima_takes_the_lower(h):
    prior, step = br.Cauchy(1.0), h / 2.0
    v = torch.cat([torch.logspace(-3, 6, 300, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    found = prior.prox(v, step)

    def objective(x):
        return (x - v).square() / (2 * step) + x.square().log1p()

    # All real roots of the cubic, by their companion matrices.
    for at, x in zip(v, found, strict=True):
        roots = torch.linalg.eigvals(
            torch.tensor([[at, -(1 + h), at], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
        ).real.clamp(0, at.item())
        best = min(float((r - at) ** 2 / (2 * step) + torch.log1p(r * r)) for r in roots)
        mine = float((x - at) ** 2 / (2 * step) + torch.log1p(x * x))
        assert mine <= best + 1e-10 * (1 + abs(best))
    assert (prior.subdiff_distance(found, (found - v) / step) <= 1e-9).all()
    assert torch.equal(prior.prox(-v, step), -found)


def test_curvature_turns_negative_in_the_tails_and_its_psd_form_does_not():
    prior, value = br.StudentT(4.0, 0.1), torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert prior.curvature(value)[1] < 0
    assert prior.psd_curvature(value).tolist() == pytest.approx([5 / (4 * 0.01), 5 / (4 * 0.01 + 1.0)])
    assert prior.weight_decay_readings(100, at=torch.ones(3)).curvature_matched < 0


@pytest.mark.parametrize("build", [
    lambda: br.StudentT(0.0, 1.0), lambda: br.StudentT(3.0, -1.0), lambda: br.Cauchy(0.0),
    lambda: br.NormalGamma(0.0, 1.0), lambda: br.NormalGamma(1.0, math.inf),
])  # fmt: skip
def test_bad_hyperparameters_are_refused(build):
    with pytest.raises(br.InvalidArgumentError, match=r"expected a (value > 0|finite number), got"):
        build()


def test_wrong_arguments_are_answered_with_the_right_ones():
    with pytest.raises(br.InvalidArgumentError, match=r"StudentT: unexpected argument 'nu'; it takes df, scale, loc"):
        br.StudentT(nu=4, scale=0.1)
    with pytest.raises(br.InvalidArgumentError, match="did you mean 'scale'"):
        br.Gaussian(scal=0.1)
    with pytest.raises(br.InvalidArgumentError, match="missing a required argument: 'scale'"):
        br.Cauchy()
