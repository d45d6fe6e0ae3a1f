"""GroupLaplace: normaliser, gradient, prox in a metric, certificate, samples, shapes."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from torch import nn

import bayesreg as br

SHAPES = {"row": (4, 3), "column": (4, 3), "channel": (4, 2, 3, 3), "tensor": (4, 3)}
SIZES = {"row": 3, "column": 4, "channel": 18, "tensor": 12}


def make(group="row", rate=2.0, loc=0.0):
    return br.GroupLaplace(rate, group, loc=loc)


@pytest.mark.parametrize("m", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("rate", [0.1, 1.0, 10.0])
def test_integrates_to_one_over_the_radius(m, rate):
    prior = make("tensor", rate)

    def shell(r):
        w = torch.zeros(m, dtype=torch.float64)
        w[0] = r
        log_surface = math.log(2) + m / 2 * math.log(math.pi) - scipy.special.gammaln(m / 2) + (m - 1) * math.log(r)
        return math.exp(prior.log_prob(w).item() + log_surface)

    parts = [k * (m + 1) / rate for k in (1e-12, 0.2, 0.6, 1, 1.5, 3, 30)]
    total = sum(scipy.integrate.quad(shell, a, b, epsabs=1e-13)[0] for a, b in itertools.pairwise(parts))
    assert total == pytest.approx(1.0, abs=1e-8)


def test_agrees_with_the_gamma_radius_of_scipy():
    # ‖w‖ ~ Gamma(m, rate), uniform on the sphere.
    w = torch.randn(5, dtype=torch.float64)
    r, m = float(w.norm()), 5
    log_surface = math.log(2) + m / 2 * math.log(math.pi) - scipy.special.gammaln(m / 2) + (m - 1) * math.log(r)
    expected = scipy.stats.gamma(m, scale=1 / 1.7).logpdf(r) - log_surface
    assert make("tensor", 1.7).log_prob(w).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("group", SHAPES)
def test_sums_over_groups(group):
    prior, w = make(group, 1.3), torch.randn(SHAPES[group], dtype=torch.float64)
    parts = {"row": list(w), "column": list(w.unbind(1)), "channel": list(w), "tensor": [w]}[group]
    single = make("tensor", 1.3)
    assert prior.log_prob(w).item() == pytest.approx(sum(single.log_prob(p).item() for p in parts), rel=1e-13)
    assert prior.group_size(w.shape) == SIZES[group]


def test_a_group_of_one_is_a_laplace():
    w = torch.tensor([-2.0, 0.0, 0.3], dtype=torch.float64)
    group, laplace = make("row", 2.5), br.Laplace(0.4)
    assert group.log_prob(w).item() == pytest.approx(laplace.log_prob(w).item(), rel=1e-13)
    assert torch.allclose(group.prox(w, 0.3), laplace.prox(w, 0.3))
    step = torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64)
    assert torch.allclose(group.prox(w, step), laplace.prox(w, step), atol=1e-14)
    grad = torch.tensor([0.4, -1.0, 3.0], dtype=torch.float64)
    assert torch.allclose(group.subdiff_distance(w, grad, 0.1), laplace.subdiff_distance(w, grad, 0.1))
    assert group.variance((3,)) == pytest.approx(laplace.variance())


@pytest.mark.parametrize("group", SHAPES)
def test_gradient_and_curvature_are_autograds(group):
    prior, w = make(group, 1.3, loc=0.2), torch.randn(SHAPES[group], dtype=torch.float64)
    leaf = w.clone().requires_grad_()
    (expected,) = torch.autograd.grad(prior.penalty(leaf), leaf)
    grad = torch.zeros_like(w)
    prior.add_grad_([grad], [w], 0.7)
    assert torch.allclose(grad, 0.7 * expected, rtol=1e-13)
    assert torch.autograd.gradcheck(prior.log_prob, w.clone().requires_grad_())
    hessian = torch.autograd.functional.hessian(prior.penalty, w).reshape(w.numel(), -1)
    assert torch.allclose(prior.curvature(w).reshape(-1), hessian.diagonal(), rtol=1e-12)
    assert torch.allclose(prior.psd_curvature(w), prior.curvature(w))
    v = torch.randn_like(w)
    assert torch.allclose(prior.curvature_times(w, v).reshape(-1), hessian @ v.reshape(-1), atol=1e-12)


def test_groups_on_their_centre_give_no_nan():
    prior, w = make(), torch.zeros(2, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(prior.penalty(w), w)
    assert torch.equal(grad, torch.zeros(2, 3))
    assert torch.equal(prior.curvature(w.detach()), torch.zeros(2, 3))
    assert prior.at_kink(w).all()


@pytest.mark.parametrize("rate", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("group", SHAPES)
def test_prox_in_any_metric_is_certified(group, rate, spread):
    """Zero groups, groups near their threshold and large ones, with steps that differ by e^(2·spread)."""
    prior, generator = make(group, rate), torch.Generator().manual_seed(1)
    shape = SHAPES[group]
    step = (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).exp() / rate**2
    sizes = torch.logspace(-2, 3, 6, dtype=torch.float64) / rate
    for size in sizes:
        v = size * torch.randn(shape, generator=generator, dtype=torch.float64)
        x = prior.prox(v, step if spread else float(step.reshape(-1)[0]))
        h = step if spread else step.reshape(-1)[0]
        # (x − v)/h itself is rounded where h is small.
        rounding = 8 * torch.finfo(torch.float64).eps * v.abs() / h
        assert (prior.subdiff_distance(x, (x - v) / h) <= 1e-9 * rate + rounding.max()).all()
    assert torch.equal(
        prior.prox(torch.zeros(shape, dtype=torch.float64), step), torch.zeros(shape, dtype=torch.float64)
    )


def test_prox_beats_a_grid():
    prior, step = make("tensor", 1.5), torch.tensor([0.3, 2.0], dtype=torch.float64)
    axis = torch.linspace(-3, 3, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    for v in torch.tensor([[0.4, 0.1], [2.0, -1.0], [0.0, 2.9], [0.3, 2.5]], dtype=torch.float64):
        heights = ((grid - v).square() / (2 * step)).sum(1) + 1.5 * grid.norm(dim=1)
        x = prior.prox(v, step)
        mine = ((x - v).square() / (2 * step)).sum() + 1.5 * x.norm()
        assert mine.item() <= heights.min().item() + 1e-12


# proxssi reports a penalty with the root of the number of groups, and takes proximal steps with that of their size.
def test_value_and_prox_belong_to_the_same_penalty():
    prior, v = make("column", 0.8), torch.randn(6, 3, dtype=torch.float64)
    x = prior.prox(v, 0.5)
    for move in (1e-4, -1e-4):
        for index in range(3):
            other = x.clone()
            other[:, index] *= 1 + move
            before = (x - v).square().sum() + prior.penalty(x)
            assert before <= (other - v).square().sum() + prior.penalty(other) + 1e-12


def test_moreau_for_the_group_norm():
    # v = prox(v) + the projection onto the ball of radius step·rate.
    prior, v = make("row", 2.0), torch.randn(5, 3, dtype=torch.float64)
    norms = v.norm(dim=1, keepdim=True)
    ball = v * (0.6 / norms).clamp_max(1.0)
    assert torch.allclose(prior.prox(v, 0.3) + ball, v, atol=1e-14)


def test_rates_may_differ_by_group():
    rates = torch.tensor([[1.0], [5.0]], dtype=torch.float64)
    w = torch.randn(2, 3, dtype=torch.float64)
    expected = sum(make("tensor", float(rate)).log_prob(row).item() for rate, row in zip(rates, w, strict=True))
    assert make("row", rates).log_prob(w).item() == pytest.approx(expected, rel=1e-13)
    with pytest.raises(br.InvalidArgumentError, match="one rate per group"):
        make("row", torch.ones(2, 3)).log_prob(w)
    with pytest.raises(br.InvalidArgumentError, match="broadcasts to value"):
        make("row", torch.ones(4, 1)).log_prob(w)


@pytest.mark.slow
@pytest.mark.parametrize("group", SHAPES)
def test_samples_have_gamma_radii_and_the_variance(group):
    prior = make(group, 2.0, loc=0.5)
    shape = (20_000, *SHAPES[group][1:]) if group in ("row", "channel") else (4, 3)
    draws = [prior.sample(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
             for seed in range(1 if group in ("row", "channel") else 3000)]  # fmt: skip
    radii = torch.cat([prior._norms(d - 0.5).reshape(-1) for d in draws])
    m = SIZES[group]
    assert scipy.stats.kstest(radii[:4000].numpy(), scipy.stats.gamma(m, scale=0.5).cdf).pvalue > 1e-3
    spread = torch.cat([(d - 0.5).reshape(-1) for d in draws]).square().mean().item()
    assert spread == pytest.approx(prior.variance(shape), rel=0.05)
    assert prior.variance() is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_weights(dtype):
    prior, w = make("row", 50.0), (0.02 * torch.randn(100, 100)).to(dtype)
    assert prior.log_prob(w).dtype == torch.float64
    assert prior.log_prob(w).item() == pytest.approx(prior.log_prob(w.double()).item(), rel=1e-5)
    grad = torch.zeros_like(w)
    prior.add_grad_([grad], [w], 1e-3)
    assert grad.dtype == dtype
    pulled = prior.prox(w, torch.full((100, 100), 1e3))
    assert pulled.dtype == dtype
    assert (pulled == 0).all()


def test_compiles_copies_and_saves(tmp_path):
    prior, w = make("column", 1.3, loc=0.1), torch.randn(4, 3)
    assert torch._dynamo.explain(prior.log_prob)(w).graph_break_count == 0
    compiled = torch.compile(prior.log_prob, fullgraph=True, backend="aot_eager")
    assert compiled(w).item() == pytest.approx(prior.log_prob(w).item(), rel=1e-6)
    assert torch.equal(copy.deepcopy(prior).bfloat16().log_prob(w), prior.log_prob(w))
    model = nn.Linear(3, 4).double()
    held = br.ModelPrior(model, prior)
    held.save(tmp_path / "p.safetensors")
    again = br.ModelPrior.load(tmp_path / "p.safetensors", model)
    assert torch.equal(held.log_prob(), again.log_prob())
    assert again["weight"].group == "column"


def test_says_what_it_is_and_what_it_is_not():
    prior = make("row", 2.0)
    assert prior.describe() == "group Laplace by row, rate 2, centred on 0"
    assert repr(prior) == "GroupLaplace(rate=2, loc=0, group='row')"
    with pytest.raises(br.NotEquivalentError, match=r"br\.attach"):
        prior.weight_decay(100)
    readings = prior.weight_decay_readings(100, at=torch.ones(2, 3))
    assert readings.gradient_matched == pytest.approx(0.01 * 2.0 / math.sqrt(3))
    assert readings.variance_matched == pytest.approx(0.01 * 4.0 / 4)
    table = br.ModelPrior(nn.Linear(3, 4), prior).describe(100).to_dict()["rows"]
    assert table[0]["std"] == pytest.approx(1.0)


@pytest.mark.parametrize(("build", "message"), [
    (lambda: make("rows"), "group: expected one of row, column, channel, tensor, got 'rows'; did you mean 'row'"),
    (lambda: make("row", 0.0), "rate: expected a value > 0"),
    (lambda: make("column").log_prob(torch.ones(3)), "parameter of 2 or more dimensions, got shape"),
    (lambda: br.ModelPrior(nn.Linear(2, 2), make("channel")), "parameter 'weight' of 3 or more dimensions"),
])  # fmt: skip
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        build()
