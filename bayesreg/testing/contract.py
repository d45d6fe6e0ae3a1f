"""The contract of every prior on single elements: a family's test class inherits it and gets all of these tests."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor, nn

import bayesreg as br
from bayesreg.priors.contract.prior import proximal_step_

__all__ = ["PriorContract"]

SCALES = (0.1, 1.0, 10.0)
# Both sides of the centre, near it and far in the tails, never on a kink.
POINTS = (-50.0, -3.0, -0.7, -1e-3, 1e-6, 0.2, 1.0, 4.0, 50.0)


class PriorContract(ABC):
    """Tests that every family passes.

    A subclass gives `make(scale)`; `logpdf(scale)`, an independent log density; and where they differ from the defaults
    the attributes below. Name it `Test...` and pytest finds it.

    Attributes:
        proper: Whether the family is a density. Default True.
        centre: The centre of the priors that `make` returns. Default 0.
        pulls_far_out: Whether −log p has a slope 50 scales out. Default True.
        trainable: Whether some route trains it: a kink needs a prox. Default True.
        per_element: Hyper-parameters that may be tensors, one number per element. Default `scale`.
    """

    proper: bool = True
    centre: float = 0.0
    pulls_far_out: bool = True
    trainable: bool = True
    per_element: tuple[str, ...] = ("scale",)

    @abstractmethod
    def make(self, scale: float) -> br.Prior:
        """Return the prior of this width.

        Args:
            scale: > 0.

        Returns:
            A prior whose density is `scale` times as wide as at 1.
        """

    def logpdf(self, scale: float) -> Callable[[Any], Any] | None:
        """Return an independent log density, from SciPy or mpmath.

        Args:
            scale: Width of the prior.

        Returns:
            A function of one point, None if there is no reference.
        """
        return None

    def points(self, scale: float) -> Tensor:
        """Return points at which the density is looked at.

        Args:
            scale: Width of the prior.

        Returns:
            A float64 vector; never on a kink or a boundary.
        """
        return self.centre + scale * torch.tensor(POINTS, dtype=torch.float64)

    # -- density ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("scale", SCALES)
    def test_integrates_to_one(self, scale: float) -> None:
        prior = self.make(scale)
        if not self.proper:
            assert not prior.traits.proper
            return

        def density(x: float) -> float:
            return math.exp(prior.log_prob(torch.tensor(x, dtype=torch.float64)).item())

        parts = [self.centre + scale * k for k in (-40, -5, -1, 0, 1, 5, 40)]
        total = sum(
            scipy.integrate.quad(density, low, high, epsabs=1e-13, epsrel=1e-12)[0]
            for low, high in zip([-math.inf, *parts], [*parts, math.inf], strict=True)
        )
        assert total == pytest.approx(1.0, abs=1e-8)

    @pytest.mark.parametrize("scale", [1e-3, *SCALES, 1e3])
    def test_agrees_with_an_independent_density(self, scale: float) -> None:
        logpdf = self.logpdf(scale)
        if logpdf is None:
            pytest.skip("this family has no independent reference")
        prior = self.make(scale)
        for x in self.points(scale):
            assert prior.log_prob(x).item() == pytest.approx(float(logpdf(x.numpy())), rel=1e-12, abs=1e-12)

    def test_log_prob_sums_over_elements_of_any_shape(self) -> None:
        prior, value = self.make(1.0), torch.randn(3, 4, 2, dtype=torch.float64)
        singles = sum(prior.log_prob(element).item() for element in value.reshape(-1))
        assert prior.log_prob(value).shape == ()
        assert prior.log_prob(value).item() == pytest.approx(singles, rel=1e-12)

    def test_hyperparameters_may_differ_by_element(self) -> None:
        prior = self.make(0.7)
        names = [name for name in self.per_element if name in prior.hyperparameters()]
        if not names:
            return
        factors = torch.tensor([1.0, 1.5, 3.0], dtype=torch.float64)
        value = self.centre + torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)

        def scaled(factor: float | Tensor) -> br.Prior:
            changed = {name: factor * prior.hyperparameters()[name] for name in names}
            return type(prior)(**{**prior.hyperparameters(), **changed}, **prior.saved_options())

        together, apart = scaled(factors), [scaled(factor.item()) for factor in factors]
        expected = sum(one.log_prob(v).item() for one, v in zip(apart, value, strict=True))
        assert together.log_prob(value).item() == pytest.approx(expected, rel=1e-12)
        grad = torch.zeros_like(value)
        together.add_grad_([grad], [value], 2.0)
        for index, one in enumerate(apart):
            single = torch.zeros(1, dtype=torch.float64)
            one.add_grad_([single], [value[index : index + 1]], 2.0)
            assert grad[index].item() == pytest.approx(single.item(), rel=1e-12)
            if one.traits.has_prox:
                assert together.prox(value, 0.2)[index].item() == pytest.approx(
                    one.prox(value[index : index + 1], 0.2).item(), rel=1e-9, abs=1e-12
                )
        if self.proper:
            assert together.sample((2, 3), generator=torch.Generator().manual_seed(0)).shape == (2, 3)
        with pytest.raises(br.InvalidArgumentError, match="broadcasts to value of shape"):
            together.log_prob(torch.zeros(4))
        assert len(together.describe()) > 3
        table = br.ModelPrior(nn.Linear(3, 2), {"*weight": together, "*": br.Flat()}).describe(100)
        assert "weight" in str(table)

    def test_constant_and_penalty_make_the_log_prob(self) -> None:
        prior, value = self.make(0.3), torch.randn(5, dtype=torch.float64)
        whole = prior.log_constant(value.shape) - prior.penalty(value)
        assert prior.log_prob(value).item() == pytest.approx(whole.item(), rel=1e-13, abs=1e-13)

    # -- derivatives -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("coefficient", [1.0, 0.02, -3.0])
    def test_gradient_is_autograds(self, scale: float, coefficient: float) -> None:
        prior = self.make(scale)
        value = self.points(scale).requires_grad_()
        (expected,) = torch.autograd.grad(prior.penalty(value), value)
        grad = torch.full_like(value, 0.25).detach()
        prior.add_grad_([grad], [value.detach()], coefficient)
        assert torch.allclose(grad - 0.25, coefficient * expected, rtol=1e-12, atol=1e-12 * abs(coefficient) / scale)

    def test_gradient_works_on_many_tensors_at_once(self) -> None:
        prior = self.make(0.5)
        values = [torch.randn(3, 2, dtype=torch.float64), torch.randn(4, dtype=torch.float64)]
        together, apart = [torch.zeros_like(v) for v in values], [torch.zeros_like(v) for v in values]
        prior.add_grad_(together, values, 0.1)
        for grad, value in zip(apart, values, strict=True):
            prior.add_grad_([grad], [value], 0.1)
        assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_gradient_lives_in_the_tails(self, scale: float, dtype: torch.dtype) -> None:
        if not self.proper or not self.pulls_far_out:
            return
        prior, far = self.make(scale), torch.tensor([self.centre + 50 * scale], dtype=dtype)
        grad = torch.zeros_like(far)
        prior.add_grad_([grad], [far], 1.0)
        assert math.isfinite(grad.item())
        assert abs(grad.item()) > 1e-3 / scale
        assert math.isfinite(prior.log_prob(far).item())

    @pytest.mark.parametrize("scale", SCALES)
    def test_curvature_is_the_second_derivative(self, scale: float) -> None:
        prior = self.make(scale)
        value = self.points(scale)
        value = value[(value - self.centre).abs() > 5e-4 * scale]
        # In proportion to the distance from the centre, so that no difference straddles a kink there.
        step = 1e-5 * (value - self.centre).abs()
        up, down = torch.zeros_like(value), torch.zeros_like(value)
        prior.add_grad_([up], [value + step], 1.0)
        prior.add_grad_([down], [value - step], 1.0)
        numeric = (up - down) / ((value + step) - (value - step))
        assert torch.allclose(prior.curvature(value), numeric, rtol=1e-5, atol=1e-5 / scale**2)
        assert torch.allclose(prior.curvature_times(value, 2.0 * value), 2.0 * value * numeric, rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize("scale", SCALES)
    def test_psd_curvature_is_the_curvature_or_a_majoriser(self, scale: float) -> None:
        prior, value = self.make(scale), self.points(scale)
        curved = prior.psd_curvature(value)
        assert (curved >= 0).all()
        if prior.traits.convex:
            assert torch.equal(curved, prior.curvature(value).clamp_min(0.0))
            return
        slope = torch.zeros_like(value)
        prior.add_grad_([slope], [value], 1.0)
        for x, g, c in zip(value, slope, curved, strict=True):
            for y in self.points(scale):
                touching = prior.penalty(x) + g * (y - x) + 0.5 * c * (y - x).square()
                assert prior.penalty(y).item() <= touching.item() + 1e-9 * (1 + abs(touching.item()))

    @pytest.mark.parametrize("scale", SCALES)
    def test_declared_traits_are_true(self, scale: float) -> None:
        prior = self.make(scale)
        steps = torch.logspace(-9, 1.7, 60, dtype=torch.float64)
        value = self.centre + scale * torch.cat([-steps.flip(0), steps])
        slope = torch.zeros_like(value)
        prior.add_grad_([slope], [value], 1.0)
        jumps = slope.diff()
        if prior.traits.convex:
            assert (jumps >= -1e-6 / scale).all(), "declared convex, but the slope of −log p falls somewhere"
        if prior.traits.smooth:
            assert jumps[59].abs() < 1e-3 / scale, "declared smooth, but the slope of −log p jumps at the centre"
        assert prior.traits.smooth or prior.traits.has_prox or not self.trainable, (
            "has a kink and no prox, so no optimizer reaches its MAP: write offset_prox and declare has_prox"
        )

    def test_passes_gradcheck(self) -> None:
        prior = self.make(0.5)
        value = self.points(0.5)
        offset = (value - self.centre).abs()
        value = value[(offset > 1e-3) & (offset < 10.0)].requires_grad_()
        assert torch.autograd.gradcheck(prior.log_prob, value, eps=1e-7, atol=1e-4, rtol=1e-4)

    # -- prox and certificate --------------------------------------------------------------------------

    @pytest.mark.parametrize("scale", [1e-3, 1e-1, 1.0, 1e3])
    @pytest.mark.parametrize("step", [1e-3, 0.1, 1.0, 30.0])
    def test_prox_beats_every_point_of_a_grid(self, scale: float, step: float) -> None:
        prior = self.make(scale)
        if not prior.traits.has_prox:
            with pytest.raises(br.UnsupportedError, match="no proximal operator"):
                prior.prox(torch.zeros(1), 1.0)
            return
        # Steps in units of scale², so that the prior and the quadratic both matter.
        step = step * scale**2
        for v in self.points(scale):
            found = prior.prox(v, step)

            def objective(x: Tensor, v: Tensor = v) -> Tensor:
                return (x - v) ** 2 / (2 * step) + torch.func.vmap(prior.penalty)(x)

            grid = torch.linspace(float(v) - 60 * scale, float(v) + 60 * scale, 801, dtype=torch.float64)
            grid = torch.cat([grid, torch.tensor([self.centre], dtype=torch.float64)])
            best = objective(grid).min()
            assert objective(found[None]).item() <= best.item() + 1e-9 * (1 + abs(best.item()))

    @pytest.mark.parametrize("scale", SCALES)
    def test_prox_satisfies_its_optimality_condition(self, scale: float) -> None:
        prior = self.make(scale)
        if not prior.traits.has_prox:
            return
        v = self.points(scale)
        step = scale**2 * torch.linspace(0.1, 2.0, len(v), dtype=torch.float64)
        x = prior.prox(v, step)
        # (x − v)/step plays the gradient of the rest: the certificate must be 0 in every coordinate.
        assert prior.subdiff_distance(x, (x - v) / step).max() < 1e-9 / scale

    @pytest.mark.parametrize("scale", SCALES)
    def test_prox_satisfies_moreau(self, scale: float) -> None:
        prior = self.make(scale)
        if not prior.traits.has_prox or not prior.traits.convex:
            return
        # Moreau: v = x + h·y with x = prox(v) and y = prox of the conjugate; that is f(x) + f*(y) = x·y.
        v, h = self.points(scale), scale**2 * 0.7
        x = prior.prox(v, h)
        y = (v - x) / h
        grid = self.centre + scale * torch.linspace(-60.0, 60.0, 4001, dtype=torch.float64)
        heights = torch.func.vmap(prior.penalty)(grid)
        for point, dual in zip(x, y, strict=True):
            conjugate = (grid * dual - heights).max()
            touch = point * dual - prior.penalty(point)
            assert touch.item() >= conjugate.item() - 1e-9 * (1.0 + abs(conjugate.item()))
        # And so it is firmly nonexpansive.
        moved, apart = x.diff(), v.diff()
        assert (moved * apart >= moved.square() * (1 - 1e-9)).all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_prox_in_place_is_the_prox(self, dtype: torch.dtype) -> None:
        prior, value = self.make(0.5), self.points(0.5).to(dtype)
        if not prior.traits.has_prox:
            return
        for step in (0.3, torch.linspace(0.1, 1.0, len(value))):
            expected, changed = prior.prox(value, step), value.clone()
            proximal_step_(prior, changed, step)
            assert torch.equal(changed, expected.to(dtype))

    def test_certificate_is_the_distance_to_the_subdifferential(self) -> None:
        prior, value = self.make(0.7), self.points(0.7)
        grad = torch.linspace(-2, 2, len(value), dtype=torch.float64)
        slope = torch.zeros_like(value)
        prior.add_grad_([slope], [value], 0.3)
        assert torch.allclose(prior.subdiff_distance(value, grad, 0.3), (grad + slope).abs(), atol=1e-13)

    # -- samples ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("scale", SCALES)
    def test_samples_follow_the_density(self, scale: float) -> None:
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
        # A reference that overflows far out says so by a warning; its density is 0 there either way.
        with np.errstate(over="ignore", under="ignore"):
            density = np.exp(logpdf(reach))
        mass = np.concatenate([[0], np.cumsum(np.diff(reach) * (density[1:] + density[:-1]) / 2)])
        assert scipy.stats.kstest(grid, lambda x: np.interp(x, reach, mass)).pvalue > 1e-3

    def test_sampling_uses_the_generator_and_leaves_torchs_own_alone(self) -> None:
        if not self.proper:
            return
        prior, state = self.make(1.0), torch.get_rng_state()
        draws = [prior.sample((3, 2), generator=torch.Generator().manual_seed(7)) for _ in range(2)]
        assert torch.equal(*draws)
        assert torch.equal(torch.get_rng_state(), state)
        assert draws[0].dtype == torch.get_default_dtype()

    def test_variance_is_that_of_the_samples(self) -> None:
        prior = self.make(2.0)
        variance = prior.variance()
        if variance is None:
            return
        draws = prior.sample((200_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert draws.var().item() == pytest.approx(float(variance), rel=0.1), "draws and variance() disagree"

    # -- precision, devices, copies --------------------------------------------------------------------

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
    def test_half_precision_weights_are_summed_in_float32_or_better(self, dtype: torch.dtype) -> None:
        prior = self.make(0.02)
        value = (0.02 * torch.randn(10_000)).to(dtype)
        log_prob = prior.log_prob(value)
        assert log_prob.dtype in (torch.float32, torch.float64)
        assert log_prob.item() == pytest.approx(prior.log_prob(value.double()).item(), rel=1e-5, abs=1e-3)
        grad = torch.zeros_like(value)
        prior.add_grad_([grad], [value], 1e-3)
        assert grad.dtype == dtype

    def test_casting_the_module_does_not_round_its_hyperparameters(self) -> None:
        prior = self.make(0.1234567890123)
        value = torch.randn(4, dtype=torch.float64)
        before = prior.log_prob(value).item()
        assert prior.bfloat16().log_prob(value).item() == before
        assert prior.float().half().log_prob(value).item() == before

    def test_copies_and_state_dicts_are_bit_equal(self) -> None:
        prior, value = self.make(0.37), torch.randn(6, dtype=torch.float64)
        assert torch.equal(prior.log_prob(value), copy.deepcopy(prior).log_prob(value))
        if not prior.state_dict():
            return
        other = self.make(2.1)
        other.load_state_dict(prior.state_dict())
        assert torch.equal(prior.log_prob(value), other.log_prob(value))

    def test_a_file_gives_the_same_prior_back(self, tmp_path: Path) -> None:
        model = nn.Linear(3, 2).double()
        prior = br.ModelPrior(model, {"*": self.make(0.37)})
        prior.save(tmp_path / "prior.safetensors")
        again = br.ModelPrior.load(tmp_path / "prior.safetensors", model)
        assert torch.equal(prior.log_prob(), again.log_prob())
        assert again["weight"].family == prior["weight"].family
        assert again["weight"].traits == prior["weight"].traits

    def test_compiles_without_graph_breaks(self) -> None:
        prior = self.make(0.5)
        value = self.points(0.5).float()
        # fullgraph raises at the first break; other classes' compilations do not count.
        torch._dynamo.reset()
        compiled = torch.compile(prior.log_prob, fullgraph=True, backend="aot_eager")
        assert compiled(value).item() == pytest.approx(prior.log_prob(value).item(), rel=1e-6)

    # -- words -----------------------------------------------------------------------------------------

    def test_describes_itself(self) -> None:
        prior = self.make(0.5)
        assert len(prior.describe()) > 3
        assert prior.family in repr(prior) or type(prior).__name__ in repr(prior)

    def test_weight_decay_answers_or_says_why_not(self) -> None:
        prior = self.make(0.5)
        value = self.points(0.5)
        offset, grad = value - self.centre, torch.zeros_like(value)
        prior.add_grad_([grad], [value], 1e-3)
        exact = prior.weight_decay_readings(1000).exact
        # A weight decay is a pull in proportion to the weight; a prior has one exactly if its gradient is that.
        if exact is not None:
            assert torch.allclose(grad, exact * offset, rtol=1e-9, atol=1e-15)
        elif self.pulls_far_out:
            assert not torch.allclose(grad / offset, (grad / offset)[0].expand_as(grad), rtol=1e-9)
        if exact is not None and self.centre == 0.0:
            assert prior.weight_decay(1000) == exact
            return
        with pytest.raises(br.NotEquivalentError, match=r"br\."):
            prior.weight_decay(1000)

    @pytest.mark.parametrize("scale", SCALES)
    def test_a_parabola_is_one(self, scale: float) -> None:
        prior, value = self.make(scale), self.points(scale)
        parabola = prior.quadratic()
        if parabola is None:
            return
        away = value - (parabola.centre if isinstance(parabola.centre, Tensor) else 0.0)
        height = prior.penalty(value) - prior.penalty(value - away)
        assert height.item() == pytest.approx(float((0.5 * away.square() / parabola.variance).sum()), rel=1e-9)
        slope = torch.zeros_like(value)
        prior.add_grad_([slope], [value], 0.01)
        assert torch.allclose(slope, parabola.strength(br.LossScale(0.01)) * away, rtol=1e-9, atol=1e-12 / scale)

    @pytest.mark.parametrize("factor", [0.3, 4.0])
    def test_a_multiple_is_one(self, factor: float) -> None:
        prior, value = self.make(0.7), self.points(0.7)
        multiple = prior.times(factor)
        if multiple is None:
            return
        assert type(multiple) is type(prior)
        assert multiple.traits == prior.traits
        start = value.flip(0)
        risen = [one.penalty(value[:4]) - one.penalty(start[:4]) for one in (multiple, prior)]
        assert risen[0].item() == pytest.approx(factor * risen[1].item(), rel=1e-9, abs=1e-12)
        slopes = [torch.zeros_like(value) for _ in range(2)]
        for one, slope in zip((multiple, prior), slopes, strict=True):
            one.add_grad_([slope], [value], 1.0)
        assert torch.allclose(slopes[0], factor * slopes[1], rtol=1e-9)

    def test_weight_decay_readings_carry_their_names(self) -> None:
        prior = self.make(0.5)
        value = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
        readings = prior.weight_decay_readings(1000, at=value)
        offset, slope = value - self.centre, torch.zeros_like(value)
        prior.add_grad_([slope], [value], 1e-3)
        assert readings.gradient_matched == pytest.approx(float((slope @ offset) / (offset @ offset)), abs=1e-15)
        assert readings.curvature_matched == pytest.approx(1e-3 * float(prior.curvature(value).mean()), abs=1e-15)
        variance = prior.variance(value.shape)
        assert readings.variance_matched == (None if variance is None else pytest.approx(1e-3 / float(variance)))
        assert str(readings).startswith("exact ")
        assert set(readings.to_dict()) == {"exact", "gradient_matched", "curvature_matched", "variance_matched"}
        if not prior.traits.smooth and self.pulls_far_out:
            kinked = prior.weight_decay_readings(1000, at=torch.full((2,), self.centre, dtype=torch.float64))
            assert kinked.curvature_matched is None
            assert kinked.gradient_matched is None

    def test_is_abstract_or_final(self) -> None:
        assert getattr(type(self.make(1.0)), "__final__", False)
