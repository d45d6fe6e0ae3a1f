"""A low-rank Gaussian over several parameters of a model: one density in every sum, route and file."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import bayesreg as br

NAMES = ("0.weight", "2.weight", "2.bias")


def network():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def tensors(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: p.shape for name, p in model.named_parameters() if name in NAMES}
    diag = {n: 0.1 + torch.rand(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
    factor = {n: torch.randn(*s, 3, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
    loc = {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
    return diag, factor, loc


def built():
    model = network()
    diag, factor, loc = tensors(model)
    prior = br.ModelPrior(model, {"0.bias": br.Flat(), "*": br.LowRankGaussian(diag, factor, loc=loc)})
    flat = torch.cat([factor[n].reshape(-1, 3) for n in NAMES])
    cov = torch.diag(torch.cat([diag[n].reshape(-1) for n in NAMES])) + flat @ flat.T
    centre = torch.cat([loc[n].reshape(-1) for n in NAMES])
    return model, prior, torch.distributions.MultivariateNormal(centre, cov)


def vector(model):
    held = dict(model.named_parameters())
    return torch.cat([held[n].reshape(-1) for n in NAMES])


def test_density_is_that_of_the_dense_gaussian():
    model, prior, dense = built()
    expected = dense.log_prob(vector(model))
    assert prior.log_prob().item() == pytest.approx(expected.item(), rel=1e-12)
    with torch.no_grad():
        assert prior.log_prob().item() == pytest.approx(expected.item(), rel=1e-12)
    mine = torch.autograd.grad(prior.log_prob(), [model[0].weight, model[2].bias])
    theirs = torch.autograd.grad(dense.log_prob(vector(model)), [model[0].weight, model[2].bias])
    assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(mine, theirs, strict=True))


def loss(model):
    X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    return (model(X) - X[:, :2]).square().sum() / 4


@pytest.mark.parametrize("make", [
    lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9),
    lambda groups: torch.optim.Adam(groups, lr=0.01),
    lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.0),
])  # fmt: skip
def test_attach_follows_the_penalty_by_autograd(make):
    one, prior, _ = built()
    other, _, dense = built()
    first, second = make(prior.param_groups()), make(other.parameters())
    handle = br.attach(first, prior, num_data=4)
    for _ in range(50):
        first.zero_grad()
        loss(one).backward()
        first.step()
        second.zero_grad()
        (loss(other) - 0.25 * dense.log_prob(vector(other))).backward()
        second.step()
    assert torch.allclose(vector(one), vector(other), rtol=1e-11, atol=1e-12)
    assert handle.log()["log_prior"] == pytest.approx(dense.log_prob(vector(one)).item(), rel=1e-10)
    assert "low-rank Gaussian of rank 3 over 3 parameters" in str(handle.describe())


def test_a_parameter_without_gradient_still_pulls_on_the_others():
    model, prior, dense = built()
    optimizer = torch.optim.SGD(prior.param_groups(), lr=1.0)
    br.attach(optimizer, prior, num_data=4)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model[2].bias.grad = torch.zeros_like(model[2].bias)
    (expected,) = torch.autograd.grad(-0.25 * dense.log_prob(vector(model)), [model[2].bias])
    optimizer.step()
    assert torch.allclose(model[2].bias.detach(), before["2.bias"] - expected, rtol=1e-10)
    assert torch.equal(model[0].weight.detach(), before["0.weight"])
    # Whichever it is.
    model[2].bias.grad, model[0].weight.grad = None, torch.zeros_like(model[0].weight)
    (expected,) = torch.autograd.grad(-0.25 * dense.log_prob(vector(model)), [model[0].weight])
    optimizer.step()
    assert torch.allclose(model[0].weight.detach(), before["0.weight"] - expected, rtol=1e-10)


def test_the_solver_reaches_the_map():
    model = nn.Linear(3, 2, bias=True).double()
    generator = torch.Generator().manual_seed(5)
    diag = {"weight": torch.full((2, 3), 0.5, dtype=torch.float64), "bias": torch.full((2,), 0.5, dtype=torch.float64)}
    factor = {"weight": torch.randn(2, 3, 2, generator=generator, dtype=torch.float64),
              "bias": torch.randn(2, 2, generator=generator, dtype=torch.float64)}  # fmt: skip
    prior = br.ModelPrior(model, {"*": br.LowRankGaussian(diag, factor)})
    X, Y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 2, dtype=torch.float64)
    result = br.MAPTrainer(model, prior, br.likelihoods.Gaussian(0.7), optimizer="lbfgs", progress=False).fit((X, Y))
    assert result.converged
    # In closed form: θ = (weight, bias), y = Aθ + noise.
    A = torch.cat(
        [torch.kron(torch.eye(2, dtype=torch.float64), X), torch.kron(torch.eye(2), torch.ones(20, 1)).double()], 1
    )
    flat = torch.cat([factor["weight"].reshape(6, 2), factor["bias"]])
    precision = torch.linalg.inv(0.5 * torch.eye(8, dtype=torch.float64) + flat @ flat.T)
    theta = torch.linalg.solve(A.T @ A / 0.49 + precision, A.T @ Y.T.reshape(-1) / 0.49)
    found = torch.cat([model.weight.detach().reshape(-1), model.bias.detach()])
    assert torch.allclose(found, theta, atol=1e-9)


@pytest.mark.slow
def test_samples_move_together():
    model, prior, dense = built()
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(4000):
        assert prior.sample_(generator=generator) == ["0.bias"]
        draws.append(vector(model).detach().clone())
    offsets = torch.stack(draws) - dense.loc
    white = torch.linalg.solve_triangular(dense.scale_tril, offsets.T, upper=False)
    assert torch.allclose(white @ white.T / 4000, torch.eye(len(white), dtype=torch.float64), atol=0.12)


def test_files_and_copies_keep_the_parts_together(tmp_path):
    model, prior, _ = built()
    prior.save(tmp_path / "joint.safetensors")
    again = br.ModelPrior.load(tmp_path / "joint.safetensors", model)
    assert torch.equal(prior.log_prob(), again.log_prob())
    copied_model, copied = copy.deepcopy((model, prior))
    with torch.no_grad():
        copied_model[0].weight.add_(1.0)
    assert not torch.equal(copied.log_prob(), prior.log_prob())
    assert len(prior.param_groups()) == 2


def test_two_models_may_share_the_unbound_prior():
    model = network()
    diag, factor, loc = tensors(model)
    unbound = br.LowRankGaussian(diag, factor, loc=loc)
    first = br.ModelPrior(model, {"0.bias": br.Flat(), "*": unbound})
    second = br.ModelPrior(network(), {"0.bias": br.Flat(), "*": unbound})
    assert not set(first.terms) & set(second.terms)
    assert first.log_prob().item() == pytest.approx(second.log_prob().item())


def test_marginal_leaves_the_others_out():
    model, _, dense = built()
    diag, factor, loc = tensors(model)
    part = br.LowRankGaussian(diag, factor, loc=loc).marginal(["2.weight", "2.bias"])
    prior = br.ModelPrior(model, {"0.*": br.Flat(), "2.*": part})
    keep = slice(12, None)
    marginal = torch.distributions.MultivariateNormal(dense.loc[keep], dense.covariance_matrix[keep, keep])
    assert prior.log_prob().item() == pytest.approx(marginal.log_prob(vector(model)[keep]).item(), rel=1e-12)
    with pytest.raises(br.InvalidArgumentError, match="expected some of"):
        br.LowRankGaussian(diag, factor).marginal(["nope"])


def test_what_does_not_fit_is_refused():
    model = network()
    diag, factor, _ = tensors(model)
    with pytest.raises(br.ReferenceMismatchError, match=r"missing 0\.bias"):
        br.ModelPrior(model, {"*": br.LowRankGaussian(diag, factor)})
    with pytest.raises(br.ReferenceMismatchError, match=r"joins 3 parameters, of which 0\.weight has another prior"):
        br.ModelPrior(model, {"0.*": br.Flat(), "*": br.LowRankGaussian(diag, factor)})
    with pytest.raises(br.ReferenceMismatchError, match=r"no pair for 2\.bias"):
        br.LowRankGaussian(diag, {n: f for n, f in factor.items() if n != "2.bias"})
    with pytest.raises(br.InvalidArgumentError, match="two tensors or two mappings"):
        br.LowRankGaussian(0.1, factor)
    with pytest.raises(br.InvalidArgumentError, match="one rank for all parameters"):
        br.LowRankGaussian(diag, {**factor, "2.bias": factor["2.bias"][:, :1]})
    unbound = br.LowRankGaussian(diag, factor)
    assert not isinstance(unbound, br.Prior)
    with pytest.raises(AttributeError, match=r"use it in br\.ModelPrior"):
        unbound.log_prob(torch.zeros(4, 3))
    with pytest.raises(br.UnsupportedError, match=r"save it in a br\.ModelPrior"):
        unbound.hyperparameters()


def test_a_part_alone_is_no_density():
    _, prior, _ = built()
    part = prior["2.bias"]
    assert not isinstance(part, br.Prior)
    for method in ("log_prob", "penalty", "sample", "add_grad_", "prox"):
        with pytest.raises(AttributeError, match=f"over several parameters has no {method} of a single tensor"):
            getattr(part, method)
    assert part.variance().shape == (2,)


def test_a_frozen_or_separate_part_is_refused():
    model, prior, _ = built()
    model[2].bias.requires_grad_(False)
    with pytest.raises(br.UnsupportedError, match=r"joins 3 parameters, and 2\.bias is not trained together"):
        prior.log_prob()
    model[2].bias.requires_grad_(True)
    groups = [{"params": [model[2].bias]}, {"params": [*model[0].parameters(), model[2].weight]}]
    with pytest.raises(br.UnsupportedError, match="keep all in "):
        br.attach(torch.optim.SGD(groups, lr=0.1), prior, num_data=4)


def tied():
    model = nn.ModuleDict({"e": nn.Embedding(4, 3), "o": nn.Linear(3, 4, bias=False), "f": nn.Linear(3, 2, bias=False)})
    model["o"].weight = model["e"].weight
    return model


def test_named_centre_of_a_low_rank_gaussian_is_found():
    source, model = nn.Linear(3, 1), nn.Linear(3, 1)
    unbound = br.LowRankGaussian.centered_at(source, 0.1, torch.ones(1, 3, 1), extra="ignore")
    with pytest.raises(br.InvalidArgumentError, match="centred on named weights"):
        unbound.log_prob(torch.zeros(1, 3))
    prior = br.ModelPrior(model, {"bias": br.Flat(), "weight": unbound})
    assert torch.equal(prior["weight"].loc, source.weight.detach())
    with torch.no_grad():
        model.weight.copy_(source.weight)
    assert prior.penalty().item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", ["e.weight", "o.weight"])
def test_joint_priors_know_tied_weights_by_any_name(tmp_path, name):
    model = tied()
    diag = {name: torch.ones(4, 3), "f.weight": torch.ones(2, 3)}
    factor = {n: torch.randn(*d.shape, 2) for n, d in diag.items()}
    prior = br.ModelPrior(model, {"*": br.LowRankGaussian(diag, factor)})
    prior.save(tmp_path / "p.safetensors")
    assert torch.equal(br.ModelPrior.load(tmp_path / "p.safetensors", model).log_prob(), prior.log_prob())


def test_joint_priors_refuse_both_names_of_a_tied_weight():
    diag = {n: torch.ones(4, 3) for n in ("e.weight", "o.weight")} | {"f.weight": torch.ones(2, 3)}
    factor = {n: torch.randn(*d.shape, 2) for n, d in diag.items()}
    with pytest.raises(br.ReferenceMismatchError, match=r"e\.weight and o\.weight are one tied parameter"):
        br.ModelPrior(tied(), {"*": br.LowRankGaussian(diag, factor)})


def test_shorthand_with_a_joint_prior_says_what_to_write():
    model = nn.Linear(3, 2)
    held = {n: torch.ones_like(p) for n, p in model.named_parameters()}
    with pytest.raises(br.ReferenceMismatchError, match=r"write \{'\*': prior\}"):
        br.ModelPrior(model, br.LowRankGaussian(held, {n: t[..., None] for n, t in held.items()}))
