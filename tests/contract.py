"""The contract of every prior: a family's test class inherits it and gets all of these tests.

A subclass gives `make(scale)`, and `logpdf(scale)` or `rvs` references where it has them.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor, nn

import bayesreg as br

SCALES = (0.1, 1.0, 10.0)
# Both sides of the centre, near it and far in the tails, never on a kink.
POINTS = (-50.0, -3.0, -0.7, -1e-3, 1e-6, 0.2, 1.0, 4.0, 50.0)


class PriorContract(ABC):
    """Tests that every family passes; improper ones set `proper = False`."""

    proper = True
    #: Where −log p is not smooth, in units of the scale around the centre.
    centre = 0.0

    @abstractmethod
    def make(self, scale: float) -> br.Prior:
        """Return the prior of this width."""

    def logpdf(self, scale: float) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return an independent log density, from SciPy or mpmath."""
        return None

    def points(self, scale: float) -> Tensor:
        return self.centre + scale * torch.tensor(POINTS, dtype=torch.float64)

    # -- density ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("scale", SCALES)
    def test_integrates_to_one(self, scale):
        prior = self.make(scale)
        if not self.proper:
            assert not prior.traits.proper
            return

        def density(x):
            return math.exp(prior.log_prob(torch.tensor(x, dtype=torch.float64)).item())

        parts = [self.centre + scale * k for k in (-40, -5, -1, 0, 1, 5, 40)]
        total = sum(
            scipy.integrate.quad(density, low, high, epsabs=1e-13, epsrel=1e-12)[0]
            for low, high in zip([-math.inf, *parts], [*parts, math.inf], strict=True)
        )
        assert total == pytest.approx(1.0, abs=1e-8)

    @pytest.mark.parametrize("scale", [1e-3, *SCALES, 1e3])
    def test_agrees_with_an_independent_density(self, scale):
        logpdf = self.logpdf(scale)
        if logpdf is None:
            pytest.skip("this family has no independent reference")
        prior = self.make(scale)
        for x in self.points(scale):
            assert prior.log_prob(x).item() == pytest.approx(float(logpdf(x.numpy())), rel=1e-12, abs=1e-12)

    def test_log_prob_sums_over_elements_of_any_shape(self):
        prior, value = self.make(1.0), torch.randn(3, 4, 2, dtype=torch.float64)
        singles = sum(prior.log_prob(element).item() for element in value.reshape(-1))
        assert prior.log_prob(value).shape == ()
        assert prior.log_prob(value).item() == pytest.approx(singles, rel=1e-12)

    def test_constant_and_penalty_make_the_log_prob(self):
        prior, value = self.make(0.3), torch.randn(5, dtype=torch.float64)
        whole = prior.log_constant(value.shape) - prior.penalty(value)
        assert prior.log_prob(value).item() == pytest.approx(whole.item(), rel=1e-13, abs=1e-13)

    # -- derivatives -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("coefficient", [1.0, 0.02, -3.0])
    def test_gradient_is_autograds(self, scale, coefficient):
        prior = self.make(scale)
        value = self.points(scale).requires_grad_()
        (expected,) = torch.autograd.grad(prior.penalty(value), value)
        grad = torch.full_like(value, 0.25).detach()
        prior.add_grad_([grad], [value.detach()], coefficient)
        assert torch.allclose(grad - 0.25, coefficient * expected, rtol=1e-12, atol=1e-12 * abs(coefficient) / scale)

    def test_gradient_works_on_many_tensors_at_once(self):
        prior = self.make(0.5)
        values = [torch.randn(3, 2, dtype=torch.float64), torch.randn(4, dtype=torch.float64)]
        together, apart = [torch.zeros_like(v) for v in values], [torch.zeros_like(v) for v in values]
        prior.add_grad_(together, values, 0.1)
        for grad, value in zip(apart, values, strict=True):
            prior.add_grad_([grad], [value], 0.1)
        assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))

    @pytest.mark.parametrize("scale", SCALES)
    def test_gradient_lives_in_the_tails(self, scale):
        if not self.proper:
            return
        prior, far = self.make(scale), torch.tensor([self.centre + 50 * scale], dtype=torch.float64)
        grad = torch.zeros_like(far)
        prior.add_grad_([grad], [far], 1.0)
        assert math.isfinite(grad.item())
        assert abs(grad.item()) > 1e-3 / scale

    @pytest.mark.parametrize("scale", SCALES)
    def test_curvature_is_the_second_derivative(self, scale):
        prior = self.make(scale)
        value = self.points(scale)
        step = 1e-4 * scale
        up, down = torch.zeros_like(value), torch.zeros_like(value)
        # Away from the kink, where the difference quotient would straddle it.
        away = (value - self.centre).abs() > 3 * step
        prior.add_grad_([up], [value + step], 1.0)
        prior.add_grad_([down], [value - step], 1.0)
        numeric = (up - down) / (2 * step)
        assert torch.allclose(prior.curvature(value)[away], numeric[away], rtol=1e-5, atol=1e-5 / scale**2)

    # -- prox and certificate --------------------------------------------------------------------------

    @pytest.mark.parametrize("scale", [1e-3, 1e-1, 1.0, 1e3])
    @pytest.mark.parametrize("step", [1e-3, 0.1, 1.0, 30.0])
    def test_prox_beats_every_point_of_a_grid(self, scale, step):
        prior = self.make(scale)
        if not prior.traits.has_prox:
            with pytest.raises(br.UnsupportedError, match="no proximal operator"):
                prior.prox(torch.zeros(1), 1.0)
            return
        # Steps in units of scale², so that the prior and the quadratic both matter.
        step = step * scale**2
        for v in self.points(scale):
            found = prior.prox(v, step)

            def objective(x, v=v):
                return (x - v) ** 2 / (2 * step) + torch.stack([prior.penalty(point) for point in x])

            grid = torch.linspace(float(v) - 60 * scale, float(v) + 60 * scale, 801, dtype=torch.float64)
            grid = torch.cat([grid, torch.tensor([self.centre], dtype=torch.float64)])
            best = objective(grid).min()
            assert objective(found[None]).item() <= best.item() + 1e-9 * (1 + abs(best.item()))

    @pytest.mark.parametrize("scale", SCALES)
    def test_prox_satisfies_its_optimality_condition(self, scale):
        prior = self.make(scale)
        if not prior.traits.has_prox:
            return
        v = self.points(scale)
        step = scale**2 * torch.linspace(0.1, 2.0, len(v), dtype=torch.float64)
        x = prior.prox(v, step)
        # (x − v)/step plays the gradient of the rest: the certificate must be 0 in every coordinate.
        assert prior.subdiff_distance(x, (x - v) / step).max() < 1e-9 / scale

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_prox_in_place_is_the_prox(self, dtype):
        prior, value = self.make(0.5), self.points(0.5).to(dtype)
        if not prior.traits.has_prox:
            return
        for step in (0.3, torch.linspace(0.1, 1.0, len(value))):
            expected, changed = prior.prox(value, step), value.clone()
            prior.prox_(changed, step)
            assert torch.equal(changed, expected.to(dtype))

    def test_certificate_is_the_distance_to_the_subdifferential(self):
        prior, value = self.make(0.7), self.points(0.7)
        grad = torch.linspace(-2, 2, len(value), dtype=torch.float64)
        slope = torch.zeros_like(value)
        prior.add_grad_([slope], [value], 0.3)
        assert torch.allclose(prior.subdiff_distance(value, grad, 0.3), (grad + slope).abs(), atol=1e-13)

    # -- samples ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("scale", SCALES)
    def test_samples_follow_the_density(self, scale):
        prior = self.make(scale)
        if not self.proper:
            with pytest.raises(br.UnsupportedError, match="is improper"):
                prior.sample((2,))
            return
        generator = torch.Generator().manual_seed(3)
        draws = prior.sample((4000,), generator=generator, dtype=torch.float64).numpy()
        grid = np.sort(draws)
        logpdf = self.logpdf(scale)
        if logpdf is None:
            pytest.skip("this family has no independent reference")
        # Its distribution function by quadrature on a fine grid of the density.
        reach = self.centre + scale * np.sinh(np.linspace(-12, 12, 200_001))
        density = np.exp(logpdf(reach))
        mass = np.concatenate([[0], np.cumsum(np.diff(reach) * (density[1:] + density[:-1]) / 2)])
        assert scipy.stats.kstest(grid, lambda x: np.interp(x, reach, mass)).pvalue > 1e-3

    def test_sampling_uses_the_generator_and_leaves_torchs_own_alone(self):
        if not self.proper:
            return
        prior, state = self.make(1.0), torch.get_rng_state()
        draws = [prior.sample((3, 2), generator=torch.Generator().manual_seed(7)) for _ in range(2)]
        assert torch.equal(*draws)
        assert torch.equal(torch.get_rng_state(), state)
        assert draws[0].dtype == torch.get_default_dtype()

    def test_variance_is_that_of_the_samples(self):
        prior = self.make(2.0)
        variance = prior.variance()
        if variance is None:
            return
        draws = prior.sample((200_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert draws.var().item() == pytest.approx(float(variance), rel=0.1)

    # -- precision, devices, copies --------------------------------------------------------------------

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
    def test_half_precision_weights_are_summed_in_float32(self, dtype):
        prior = self.make(0.02)
        value = (0.02 * torch.randn(10_000)).to(dtype)
        log_prob = prior.log_prob(value)
        assert log_prob.dtype == torch.float32
        assert log_prob.item() == pytest.approx(prior.log_prob(value.double()).item(), rel=1e-5, abs=1e-3)
        grad = torch.zeros_like(value)
        prior.add_grad_([grad], [value], 1e-3)
        assert grad.dtype == dtype

    def test_casting_the_module_does_not_round_its_hyperparameters(self):
        prior = self.make(0.1234567890123)
        value = torch.randn(4, dtype=torch.float64)
        before = prior.log_prob(value).item()
        assert prior.bfloat16().log_prob(value).item() == before
        assert prior.float().half().log_prob(value).item() == before

    def test_copies_and_state_dicts_are_bit_equal(self):
        prior, value = self.make(0.37), torch.randn(6, dtype=torch.float64)
        other = copy.deepcopy(prior)
        other.load_state_dict(prior.state_dict())
        assert torch.equal(prior.log_prob(value), other.log_prob(value))

    def test_a_file_gives_the_same_prior_back(self, tmp_path):
        model = nn.Linear(3, 2).double()
        prior = br.ModelPrior(model, {"*": self.make(0.37)})
        prior.save(tmp_path / "prior.safetensors")
        again = br.ModelPrior.load(tmp_path / "prior.safetensors", model)
        assert torch.equal(prior.log_prob(), again.log_prob())
        assert again["weight"].family == prior["weight"].family
        assert again["weight"].traits == prior["weight"].traits

    def test_compiles_without_graph_breaks(self):
        prior = self.make(0.5)
        report = torch._dynamo.explain(prior.log_prob)(torch.randn(4))
        assert report.graph_break_count == 0

    # -- words -----------------------------------------------------------------------------------------

    def test_describes_itself(self):
        prior = self.make(0.5)
        assert len(prior.describe()) > 3
        assert prior.family in repr(prior) or type(prior).__name__ in repr(prior)

    def test_weight_decay_answers_or_says_why_not(self):
        prior = self.make(0.5)
        value = torch.tensor([0.3, -0.2], dtype=torch.float64)
        grad = torch.zeros_like(value)
        prior.add_grad_([grad], [value], 1e-3)
        # A weight decay is a pull in proportion to the weight; a prior has one exactly if its gradient is that.
        if torch.allclose(grad / value, (grad / value)[0].expand(2), rtol=1e-9):
            assert torch.allclose(grad, float(prior.weight_decay(1000)) * value, rtol=1e-12)
        else:
            with pytest.raises(br.NotEquivalentError, match=r"br\."):
                prior.weight_decay(1000)

    def test_is_abstract_or_final(self):
        assert getattr(type(self.make(1.0)), "__final__", False)
