"""SWAG statistics against numpy, the covariance conventions against dense matrices, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bayesreg as br

SHAPES = {"weight": (2, 3), "bias": (2,)}
SIZE = 8


def statistics(columns=4, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(shape):
        return torch.randn(shape, generator=generator).double()

    mean = {name: draw(shape) for name, shape in SHAPES.items()}
    variance = {name: draw(shape).square() + 0.1 for name, shape in SHAPES.items()}
    deviations = {name: draw((*shape, columns)) for name, shape in SHAPES.items()}
    return mean, variance, deviations


def flat(tensors):
    return torch.cat([tensors[name].flatten() for name in SHAPES])


def wide(deviations):
    return torch.cat([deviations[name].flatten(0, -2) for name in SHAPES])


def dense(convention, variance, deviations, scale, epsilon):
    """Write each covariance out, as its authors' formula reads."""
    d, q, eye = torch.diag(flat(variance)), wide(deviations), torch.eye(SIZE).double()
    k = q.shape[1]
    return {
        "stated": scale * (0.5 * d + epsilon * eye) + scale * (q @ q.T) / (2 * (k - 1)),
        "data_emphasized_elbo": scale * (0.5 * d + epsilon * eye + (q @ q.T) / (2 * k - 2)),
        "harvey": scale * 0.5 * d + epsilon * eye + scale * 0.5 * (q @ q.T) / (k - 1),
        "shwartz_ziv": scale * d + epsilon * eye + (scale * q) @ (scale * q).T,
    }[convention]


def bound(prior):
    model = nn.Linear(3, 2).double()
    return model, br.ModelPrior(model, {"*": prior})


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2, 1e6])
@pytest.mark.parametrize("convention", ["stated", "data_emphasized_elbo", "harvey", "shwartz_ziv"])
def test_conventions_against_dense_matrices(convention, scale):
    mean, variance, deviations = statistics()
    prior = br.transfer.low_rank_prior(mean, variance, deviations, scale=scale, epsilon=0.1, convention=convention)
    model, joint = bound(prior)
    covariance = dense(convention, variance, deviations, scale, 0.1)
    exact = torch.distributions.MultivariateNormal(flat(mean), covariance)
    value = torch.cat([p.flatten() for p in model.parameters()]).detach().requires_grad_()
    density = exact.log_prob(value)
    assert joint.log_prob().item() == pytest.approx(density.item(), rel=1e-10)
    (slope,) = torch.autograd.grad(density, value)
    joint.log_prob().backward()
    ours = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.allclose(ours, slope, rtol=1e-8, atol=1e-12 * slope.abs().max().item())


def test_what_the_conventions_do_to_the_shape():
    """The share of the low-rank part in the whole variance: constant under one, running away under the others."""
    _, variance, deviations = statistics()

    def share(convention, scale):
        whole = dense(convention, variance, deviations, scale, 0.1).trace()
        return (
            1 - dense(convention, variance, {n: 0 * t for n, t in deviations.items()}, scale, 0.1).trace() / whole
        ).item()

    stated = [share("stated", scale) for scale in (1e-2, 1e2, 1e6)]
    assert stated == pytest.approx([stated[0]] * 3)
    assert share("harvey", 1e-2) < 0.5 * share("harvey", 1e2)
    assert share("shwartz_ziv", 1e-2) < 0.1
    assert share("shwartz_ziv", 1e6) > 0.999


@pytest.mark.slow
def test_samples_come_from_the_density():
    mean, variance, deviations = statistics()
    model, joint = bound(br.transfer.low_rank_prior(mean, variance, deviations))
    generator, draws = torch.Generator().manual_seed(0), []
    for _ in range(4000):
        joint.sample_(generator=generator)
        draws.append(torch.cat([p.flatten() for p in model.parameters()]).detach())
    sampled = torch.stack(draws)
    covariance = dense("stated", variance, deviations, 1.0, 0.0)
    # Whitened by the stated covariance the draws are standard normal: their quadratic forms are chi-squared.
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (sampled - flat(mean)).T, upper=False)
    form = white.square().sum(0)
    assert form.mean().item() == pytest.approx(SIZE, abs=4 * (2 * SIZE / 4000) ** 0.5)
    assert (white @ white.T / 4000 - torch.eye(SIZE)).abs().max() < 0.1


def test_snapshots_against_numpy():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    model[1].weight.requires_grad_(False)
    swag, history = br.transfer.SWAG(model, max_rank=4), []
    for _ in range(9):
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(torch.randn_like(p))
        swag.collect()
        history.append(model[0].weight.detach().clone().numpy())
    mean, variance, deviations = swag.statistics()
    assert set(mean) == {"0.weight", "0.bias", "1.bias"}
    taken = np.stack(history)
    assert np.allclose(mean["0.weight"], taken.mean(0), rtol=1e-12)
    assert np.allclose(variance["0.weight"], taken.var(0), rtol=1e-10)
    running = [taken[i] - taken[: i + 1].mean(0) for i in range(9)]
    assert np.allclose(deviations["0.weight"], np.stack(running[-4:], -1), rtol=1e-10)
    assert deviations["0.weight"].shape == (2, 3, 4)


def test_weights_far_from_zero_keep_their_variance():
    """The mean of squares minus the square of the mean has no digits left here."""
    model = nn.Linear(1, 1, bias=False)
    swag = br.transfer.SWAG(model)
    for step in (0.0, 1.0, 2.0, 3.0):
        with torch.no_grad():
            model.weight.fill_(1e4 + step)
        swag.collect()
    assert swag.statistics()[1]["weight"].item() == pytest.approx(1.25, rel=1e-4)


def test_a_prior_learned_on_one_task_is_used_on_another(tmp_path):
    torch.manual_seed(0)
    source, target = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    swag = br.transfer.SWAG(source)
    optimizer = torch.optim.SGD(source.parameters(), lr=0.1)
    x, y = torch.randn(30, 3), torch.randint(0, 5, (30,))
    for _ in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(source(x), y).backward()
        optimizer.step()
        swag.collect()
    prior = br.ModelPrior(
        target, {"1.*": br.Gaussian(1.0), "*": swag.prior(scale=10.0, epsilon=1e-4, rank=5, only="0.*")}
    )
    left = br.transfer.load_into(target, swag.reference(), new="1.*")
    assert left == ["1.weight", "1.bias"]
    assert torch.equal(target[0].weight, swag.statistics()[0]["0.weight"])
    assert "SWAG of 12 snapshots" in str(prior.describe())
    prior.save(tmp_path / "prior.safetensors")
    again = br.ModelPrior.load(tmp_path / "prior.safetensors", target)
    assert torch.equal(again.log_prob(), prior.log_prob())
    optimizer = torch.optim.Adam(prior.param_groups(), lr=0.01)
    br.attach(optimizer, prior, num_data=30)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(target(x), y % 2).backward()
        optimizer.step()
    assert torch.isfinite(prior.log_prob())


def test_bad_statistics_are_refused():
    mean, variance, deviations = statistics()
    make = br.transfer.low_rank_prior
    with pytest.raises(br.InvalidArgumentError, match=r"convention: .* got 'harvy'; did you mean 'harvey'"):
        make(mean, variance, deviations, convention="harvy")
    with pytest.raises(br.InvalidArgumentError, match=r"epsilon: expected a number >= 0"):
        make(mean, variance, deviations, epsilon=-1.0)
    with pytest.raises(br.InvalidArgumentError, match=r"two or more columns \(K - 1 divides\), got 1"):
        make(mean, variance, {name: t[..., :1] for name, t in deviations.items()})
    with pytest.raises(br.InvalidArgumentError, match=r"variance of bias: expected numbers > 0, got 0 .* give epsilon"):
        make(mean, variance | {"bias": torch.zeros(2)}, deviations)
    wrong = {"weight": deviations["weight"][:1], "bias": deviations["bias"]}
    with pytest.raises(br.ReferenceMismatchError) as caught:
        make(mean, {"weight": -variance["weight"], "other": torch.ones(1)}, wrong)
    for said in (
        "bias is not in all of",
        "other is not in all of",
        "variance of weight is negative",
        "deviations of weight",
    ):
        assert said in str(caught.value)


def test_bad_snapshots_are_refused():
    model = nn.Linear(2, 1)
    swag = br.transfer.SWAG(model, max_rank=3)
    swag.collect()
    with pytest.raises(br.InvalidArgumentError, match="expected two or more snapshots, got 1"):
        swag.prior()
    with torch.no_grad():
        model.weight.fill_(float("nan"))
    with pytest.raises(br.InvalidArgumentError, match="snapshot 2 has NaN or infinite weights in weight; it was not"):
        swag.collect()
    assert swag.num_snapshots == 1
    with torch.no_grad():
        model.weight.fill_(1.0)
    swag.collect()
    with pytest.raises(br.InvalidArgumentError, match="rank: expected 2 to 2, the deviations kept of 2 snapshots"):
        swag.prior(rank=3)
    with pytest.raises(br.InvalidArgumentError, match="max_rank: expected 2 or more, got 1"):
        br.transfer.SWAG(model, max_rank=1)
    with pytest.raises(br.InvalidArgumentError, match="no trainable parameters"):
        br.transfer.SWAG(nn.Linear(2, 2).requires_grad_(False))
