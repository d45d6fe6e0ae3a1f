"""MultivariateGaussian, MatrixGaussian, LowRankGaussian: each against the dense Gaussian it stands for."""

from __future__ import annotations

import copy

import pytest
import scipy.stats
import torch
from torch import nn

import bayesreg as br


def spd(n, seed=0):
    a = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.T / n + 0.3 * torch.eye(n, dtype=torch.float64)


def multivariate(scale=1.0, loc=0.0):
    cov = scale**2 * spd(3)
    return br.MultivariateGaussian(cov, loc=loc), (2, 3), torch.block_diag(cov, cov)


def whole(scale=1.0, loc=0.0):
    cov = scale**2 * spd(6)
    return br.MultivariateGaussian(cov, loc=loc), (2, 3), cov


def matrix(scale=1.0, loc=0.0):
    rows, cols = scale**2 * torch.tensor([[1.0, 0.8], [0.8, 1.5]], dtype=torch.float64), spd(3, 2)
    return br.MatrixGaussian(rows, cols, loc=loc), (2, 3), torch.kron(rows, cols)


def low_rank(scale=1.0, loc=0.0):
    generator = torch.Generator().manual_seed(3)
    diag = scale**2 * (0.2 + torch.rand(2, 3, generator=generator, dtype=torch.float64))
    factor = scale * torch.randn(2, 3, 2, generator=generator, dtype=torch.float64)
    flat = factor.reshape(6, 2)
    return br.LowRankGaussian(diag, factor, loc=loc), (2, 3), torch.diag(diag.reshape(-1)) + flat @ flat.T


def low_rank_of_one_diag(scale=1.0, loc=0.0):
    factor = scale * torch.randn(2, 3, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    flat = factor.reshape(6, 1)
    return (
        br.LowRankGaussian(0.3 * scale**2, factor, loc=loc),
        (2, 3),
        0.3 * scale**2 * torch.eye(6, dtype=torch.float64) + flat @ flat.T,
    )


FAMILIES = [multivariate, whole, matrix, low_rank, low_rank_of_one_diag]
every = pytest.mark.parametrize("make", FAMILIES)


@every
@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 10.0, 1e3])
def test_agrees_with_scipy(make, scale):
    loc = torch.randn(2, 3, dtype=torch.float64)
    prior, shape, cov = make(scale, loc)
    dense = scipy.stats.multivariate_normal(loc.reshape(-1).numpy(), cov.numpy())
    for reach in (0.0, 0.5, 50.0):
        w = loc + reach * scale * torch.randn(shape, dtype=torch.float64)
        expected = dense.logpdf(w.reshape(-1).numpy())
        assert prior.log_prob(w).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
        with torch.no_grad():
            assert prior.log_prob(w).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@every
def test_gradient_curvature_and_products_are_those_of_the_dense_precision(make):
    prior, shape, cov = make(0.7, 0.2)
    precision = torch.linalg.inv(cov)
    w = torch.randn(shape, dtype=torch.float64)
    expected = precision @ (w - 0.2).reshape(-1)
    grad = torch.ones(shape, dtype=torch.float64)
    prior.add_grad_([grad], [w], -0.4)
    assert torch.allclose((grad - 1).reshape(-1), -0.4 * expected, rtol=1e-10)
    leaf = w.clone().requires_grad_()
    (slope,) = torch.autograd.grad(prior.penalty(leaf), leaf)
    assert torch.allclose(slope.reshape(-1), expected, rtol=1e-10)
    assert torch.autograd.gradcheck(prior.log_prob, leaf)
    assert torch.allclose(prior.curvature(w).reshape(-1), precision.diagonal(), rtol=1e-10)
    assert torch.allclose(prior.psd_curvature(w), prior.curvature(w))
    v = torch.randn(shape, dtype=torch.float64)
    assert torch.allclose(prior.curvature_times(w, v).reshape(-1), precision @ v.reshape(-1), rtol=1e-9, atol=1e-12)
    assert torch.allclose(prior.variance(shape).expand(shape).reshape(-1), cov.diagonal(), rtol=1e-12)


@every
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("step", [1e-3, 0.5, 100.0])
def test_prox_is_the_dense_solution(make, scale, step):
    prior, shape, cov = make(scale, 0.4 * scale)
    step = step * scale**2
    v = scale * torch.randn(shape, dtype=torch.float64)
    eye = torch.eye(6, dtype=torch.float64)
    r = (v - 0.4 * scale).reshape(-1)
    dense = 0.4 * scale + torch.linalg.solve(eye + step * torch.linalg.inv(cov), r)
    assert torch.allclose(prior.prox(v, step).reshape(-1), dense, rtol=1e-9, atol=1e-12 * scale)
    steps = step * torch.linspace(0.5, 2.0, 6, dtype=torch.float64).reshape(shape)
    if isinstance(prior, br.MatrixGaussian):
        with pytest.raises(br.UnsupportedError, match="one step for all elements"):
            prior.prox(v, steps)
        return
    x = prior.prox(v, steps)
    assert prior.subdiff_distance(x, (x - v) / steps).max() < 1e-8 / scale


@pytest.mark.slow
@every
def test_samples_have_the_covariance(make):
    prior, shape, cov = make(1.0, 0.5)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([prior.sample(shape, generator=generator, dtype=torch.float64) for _ in range(6000)])
    flat = draws.reshape(len(draws), -1) - 0.5
    # Whitened draws are standard normal in every direction.
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(cov), flat.T, upper=False)
    assert torch.allclose(white @ white.T / len(draws), torch.eye(6, dtype=torch.float64), atol=0.08)
    for row in white:
        assert scipy.stats.kstest(row.numpy(), scipy.stats.norm.cdf).pvalue > 1e-4
    state = torch.get_rng_state()
    again = [prior.sample(shape, generator=torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*again)
    assert torch.equal(torch.get_rng_state(), state)


@every
def test_saves_and_copies(make, tmp_path):
    prior, _, _ = make(0.7, 0.2)
    model = nn.Linear(3, 2, bias=False).double()
    held = br.ModelPrior(model, prior)
    held.save(tmp_path / "p.safetensors")
    again = br.ModelPrior.load(tmp_path / "p.safetensors", model)
    assert torch.equal(held.log_prob(), again.log_prob())
    w = torch.randn(2, 3)
    assert torch.equal(copy.deepcopy(prior).half().log_prob(w), prior.log_prob(w))


@pytest.mark.slow
@every
def test_compiles(make):
    prior, _, _ = make(0.7, 0.2)
    w = torch.randn(2, 3)
    assert torch._dynamo.explain(prior.log_prob)(w).graph_break_count == 0
    compiled = torch.compile(prior.log_prob, fullgraph=True, backend="aot_eager")
    assert compiled(w).item() == pytest.approx(prior.log_prob(w).item(), rel=1e-5)


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_narrow_weights(make, dtype):
    prior, shape, _ = make(0.7)
    w = torch.randn(shape).to(dtype)
    assert prior.log_prob(w).item() == pytest.approx(prior.log_prob(w.double()).item(), rel=1e-5)
    grad = torch.zeros(shape, dtype=dtype)
    prior.add_grad_([grad], [w], 1.0)
    wide = torch.zeros(shape, dtype=torch.float64)
    prior.add_grad_([wide], [w.double()], 1.0)
    assert torch.allclose(grad.double(), wide, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4)
    assert prior.prox(w, 0.3).dtype == dtype


@every
def test_a_covariance_changed_in_place_counts(make):
    prior, shape, _ = make()
    w = torch.randn(shape, dtype=torch.float64)
    prior.log_prob(w)
    name = next(name for name in ("covariance", "row_covariance", "diag") if hasattr(prior, name))
    getattr(prior, name).mul_(4.0)
    rebuilt = type(prior)(**prior.hyperparameters())
    assert prior.log_prob(w).item() == pytest.approx(rebuilt.log_prob(w).item(), rel=1e-13)


@every
def test_no_weight_decay_but_readings(make):
    prior, shape, cov = make()
    with pytest.raises(br.NotEquivalentError, match="which joins elements"):
        prior.weight_decay(100)
    w = torch.randn(shape, dtype=torch.float64)
    readings, precision = prior.weight_decay_readings(100, at=w), torch.linalg.inv(cov)
    flat = w.reshape(-1)
    assert readings.gradient_matched == pytest.approx(0.01 * float(flat @ precision @ flat / (flat @ flat)))
    assert readings.curvature_matched == pytest.approx(0.01 * float(precision.diagonal().mean()))
    assert readings.variance_matched == pytest.approx(0.01 / float(cov.diagonal().mean()))
    assert prior.weight_decay_readings(100).gradient_matched is None
    assert str(prior.loc.item())[0] in prior.describe()


@pytest.mark.parametrize(("build", "message"), [
    (lambda: br.MultivariateGaussian([[1.0, 2.0], [2.0, 1.0]]), "got a smallest eigenvalue of -1"),
    (lambda: br.MultivariateGaussian([[1.0, 0.5], [0.0, 1.0]]), "symmetric matrix, got entries that differ by 0.5"),
    (lambda: br.MultivariateGaussian(torch.ones(2)), r"square matrix, got a tensor of shape \(2,\)"),
    (lambda: br.MultivariateGaussian([["a"]]), "square matrix of numbers"),
    (lambda: br.MultivariateGaussian([[float("nan")]]), "finite values"),
    (lambda: br.MultivariateGaussian(torch.eye(3)).log_prob(torch.ones(3, 2)), "3 elements, or of 3 along its last"),
    (lambda: br.MatrixGaussian(torch.eye(2), 3.0), "col_covariance: expected a square matrix, got 3.0"),
    (lambda: br.MatrixGaussian(torch.eye(2), torch.eye(3)).log_prob(torch.ones(3, 2)), "2 rows with 3 elements each"),
    (lambda: br.LowRankGaussian(0.0, torch.ones(2, 1)), "diag: expected a value > 0"),
    (lambda: br.LowRankGaussian(1.0, torch.ones(2)), "the parameter's shape and one dimension more"),
    (lambda: br.LowRankGaussian(torch.ones(3), torch.ones(2, 1)), "factor's parameter"),
    (lambda: br.LowRankGaussian(1.0, torch.full((2, 1), float("inf"))), "factor: expected finite values"),
    (lambda: br.LowRankGaussian(1.0, nn.Parameter(torch.ones(2, 1))), "pass it detached"),
    (lambda: br.LowRankGaussian(1.0, torch.ones(2, 1)).log_prob(torch.ones(3)),
     r"expected shape \(3, 1\) .* got \(2, 1\)"),
])  # fmt: skip
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        build()


def test_a_kernel_is_a_matrix_of_first_by_all_others():
    prior = br.MatrixGaussian(spd(2, 1), spd(12, 2))
    w = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    assert prior.log_prob(w).item() == pytest.approx(prior.log_prob(w.reshape(2, 12)).item(), rel=1e-13)


def test_rank_may_exceed_the_number_of_elements():
    factor = torch.randn(2, 5, dtype=torch.float64)
    prior = br.LowRankGaussian(0.5, factor)
    dense = br.MultivariateGaussian(0.5 * torch.eye(2, dtype=torch.float64) + factor @ factor.T)
    w = torch.randn(2, dtype=torch.float64)
    assert prior.log_prob(w).item() == pytest.approx(dense.log_prob(w).item(), rel=1e-12)


def test_chunks_and_other_memory_orders_change_nothing(monkeypatch):
    from bayesreg.priors.correlated import woodbury

    prior, shape, _ = low_rank(1.0, 0.3)
    w = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        before = prior.penalty(w).item()
    grad = torch.zeros(shape, dtype=torch.float64)
    prior.add_grad_([grad], [w], 0.5)
    monkeypatch.setattr(woodbury, "_CHUNK", 4)
    with torch.no_grad():
        assert copy.deepcopy(prior).penalty(w).item() == pytest.approx(before, rel=1e-14)
    strided = torch.zeros(3, 2, dtype=torch.float64).T
    prior.add_grad_([strided], [w.T.contiguous().T], 0.5)
    assert torch.allclose(strided, grad, rtol=1e-13)


def test_values_accumulate_beyond_float32():
    generator = torch.Generator().manual_seed(0)
    d = 1_000_000
    factor = 0.03 * torch.randn(d, 3, generator=generator)
    diag = 0.5 + torch.rand(d, generator=generator)
    w = torch.randn(d, generator=generator)
    prior = br.LowRankGaussian(diag, factor)
    wide = br.LowRankGaussian(diag.double(), factor.double())
    with torch.no_grad():
        assert prior.penalty(w).item() == pytest.approx(wide.penalty(w.double()).item(), rel=1e-7)


@pytest.mark.parametrize(("diag", "size"), [(1e-30, 1e5), (1e-20, 1.0)])
def test_a_diagonal_that_rounding_loses_is_refused(diag, size):
    near = br.LowRankGaussian(diag=1e-10, factor=torch.ones(3, 1).double())
    # Along (1, 1, 1) the variance is 3: three digits at the least are kept.
    assert near.penalty(torch.ones(3).double()).item() == pytest.approx(0.5, rel=1e-3)
    beyond = br.LowRankGaussian(diag=diag, factor=size * torch.ones(3, 2).double())
    with pytest.raises(br.InvalidArgumentError, match="diag, factor: expected a covariance"):
        beyond.penalty(torch.ones(3).double())
