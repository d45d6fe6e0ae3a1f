"""AdapterGaussian: the density of an explicit update, its gradients, and what decay of the factors is instead."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import bayesreg as br
from bayesreg.priors.adapters import factored

P, Q, R, SCALING = 7, 5, 2, 1.7


class Factors(nn.Module):
    """An update of a fixed matrix."""

    def __init__(self, p=P, q=Q, r=R, seed=0, dtype=torch.float64, left_shape=None, right_shape=None):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.A = nn.Parameter(torch.randn(right_shape or (r, q), generator=generator, dtype=dtype))
        self.B = nn.Parameter(torch.randn(left_shape or (p, r), generator=generator, dtype=dtype))

    def update(self):
        return SCALING * self.B.reshape(len(self.B), -1) @ self.A.reshape(len(self.A), -1)

    def forward(self, x):
        return x @ self.update().T


def scales(p=P, q=Q):
    generator = torch.Generator().manual_seed(9)

    def random(*shape):
        return 0.3 + torch.rand(shape, generator=generator, dtype=torch.float64)

    return {"number": 0.4, "rows": random(p, 1), "columns": random(1, q), "elements": random(p, q)}


def prior_of(model, scale=0.4, **keywords):
    keywords = {"scaling": SCALING, **keywords}
    return br.ModelPrior(model, {"*": br.AdapterGaussian(scale, [("B", "A")], **keywords)})


def explicit(model, scale, centre=0.0):
    return 0.5 * ((model.update() - centre) / scale).square().sum()


def gradients(value, model):
    return torch.autograd.grad(value, [model.B, model.A], retain_graph=True)


@pytest.mark.parametrize("kind", list(scales()))
@pytest.mark.parametrize("centred", [False, True])
def test_value_and_gradients_are_those_of_the_explicit_update(kind, centred, monkeypatch):
    monkeypatch.setattr(factored, "_CHUNK", 2 * Q)  # several blocks, the last one shorter
    model, scale, other = Factors(), scales()[kind], Factors(seed=3)
    loc = {name: p.detach() for name, p in other.named_parameters()} if centred else 0.0
    prior = prior_of(model, scale, loc=loc)
    expected = explicit(model, scale, other.update().detach() if centred else 0.0)
    assert prior.penalty().item() == pytest.approx(expected.item(), rel=1e-12)
    assert prior.log_prob().item() == pytest.approx(-expected.item(), rel=1e-12)
    for mine, theirs in zip(gradients(prior.penalty(), model), gradients(expected, model), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-10)
    # The route's own gradients, without autograd.
    optimizer = torch.optim.SGD(prior.param_groups(), lr=1.0)
    br.attach(optimizer, prior, num_data=4)
    wanted = [p.detach() - 0.25 * g for p, g in zip((model.B, model.A), gradients(expected, model), strict=True)]
    model.B.grad, model.A.grad = torch.zeros_like(model.B), torch.zeros_like(model.A)
    optimizer.step()
    assert torch.allclose(model.B, wanted[0], rtol=1e-10, atol=1e-10)
    assert torch.allclose(model.A, wanted[1], rtol=1e-10, atol=1e-10)


def values_of(model):
    return {"B": model.B.detach(), "A": model.A.detach()}


def test_convolutions_are_flattened():
    model = Factors(left_shape=(P, R, 1, 1), right_shape=(R, 3, 2, 2))
    scale = 0.3 + torch.rand(P, 12, dtype=torch.float64)
    for width in (0.4, scale):
        expected = explicit(model, width)
        prior = prior_of(model, width)
        assert prior.penalty().item() == pytest.approx(expected.item(), rel=1e-12)
        mine = {"B": torch.zeros_like(model.B), "A": torch.zeros_like(model.A)}
        prior.terms[0].add_grad_(mine, values_of(model), 1.0)
        both = zip(mine.values(), gradients(expected, model), strict=True)
        assert all(torch.allclose(a, b, rtol=1e-10) for a, b in both)


@pytest.mark.parametrize("kind", list(scales()))
@pytest.mark.parametrize("centred", [False, True])
def test_curvature_products_are_those_of_the_hessian(kind, centred):
    model, scale, other = Factors(), scales()[kind], Factors(seed=3)
    loc = {name: p.detach() for name, p in other.named_parameters()} if centred else 0.0
    prior = prior_of(model, scale, loc=loc)
    along = [torch.randn_like(model.B), torch.randn_like(model.A)]
    first = torch.autograd.grad(explicit(model, scale, other.update().detach() if centred else 0.0),
                                [model.B, model.A], create_graph=True)  # fmt: skip
    dot = sum((g * v).sum() for g, v in zip(first, along, strict=True))
    mine = prior.terms[0].curvature_times(values_of(model), dict(zip(("B", "A"), along, strict=True)))
    for found, expected in zip(mine.values(), gradients(dot, model), strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_it_depends_on_the_update_alone():
    model = Factors()
    prior, before = prior_of(model), None
    before = prior.penalty().item()
    mixed = torch.tensor([[2.0, 0.5], [-1.0, 3.0]], dtype=torch.float64)
    with torch.no_grad():
        model.B.copy_(model.B @ mixed)
        model.A.copy_(torch.linalg.solve(mixed, model.A))
    assert prior.penalty().item() == pytest.approx(before, rel=1e-12)


def test_nothing_cancels_near_the_centre():
    model = Factors(dtype=torch.float32)
    with torch.no_grad():
        model.B.mul_(1e3)
    centre = {name: p.detach().clone() for name, p in model.named_parameters()}
    prior = prior_of(model, 1e-3, loc=centre)
    assert prior.penalty().item() == 0.0
    with torch.no_grad():
        model.B.add_(1e-3)
    exact = SCALING * (model.B.double() - centre["B"].double()) @ centre["A"].double()
    assert prior.penalty().item() == pytest.approx(0.5 * (exact / 1e-3).square().sum().item(), rel=1e-4)


@pytest.mark.parametrize("times", [3.0, 10.0, 1000.0])
def test_the_same_update_by_other_factors_is_at_the_centre(times):
    model = Factors(200, 200, 8, dtype=torch.float32)
    centre = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        model.B.mul_(times), model.A.div_(times)
    spread = model.update().std().item()
    # The true value, of factors rounded to float32, is below 1e-7 of the update's own penalty.
    penalty = prior_of(model, 0.1 * spread, loc=centre).penalty().item()
    assert 0.0 <= penalty < 1e-6 * 0.5 * 200 * 200 / 0.1**2


def test_a_line_search_sees_the_whole_penalty():
    model, other = Factors(), Factors()
    X, Y = torch.randn(20, Q, dtype=torch.float64), torch.randn(20, P, dtype=torch.float64)
    solver = torch.optim.LBFGS([model.A], line_search_fn="strong_wolfe", max_iter=300, tolerance_grad=1e-9,
                               tolerance_change=0.0)  # fmt: skip
    still = torch.optim.SGD([model.B], lr=0.0)
    br.attach([solver, still], prior_of(model), num_data=20)

    def closure():
        solver.zero_grad()
        loss = 0.5 * (model(X) - Y).square().sum() / 20
        loss.backward()
        return loss

    other.B.requires_grad_(False)
    first = solver.step(closure)
    assert first.item() == pytest.approx(
        (0.5 * (other(X) - Y).square().sum() / 20 + explicit(other, 0.4) / 20).item(), rel=1e-10
    )
    whole = 0.5 * (model(X) - Y).square().sum() / 20 + explicit(model, 0.4) / 20
    assert torch.autograd.grad(whole, [model.A])[0].norm() < 1e-6


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("centred", [False, True])
def test_memory_does_not_grow_with_the_update(centred):
    p, q, r = 600, 500, 3
    model = Factors(p, q, r)
    loc = {name: torch.ones_like(t) for name, t in model.named_parameters()} if centred else 0.0
    for scale in (0.4, scales(p, q)["rows"], scales(p, q)["columns"]):
        prior = prior_of(model, scale, loc=loc)
        optimizer = torch.optim.SGD(prior.param_groups(), lr=0.0)
        br.attach(optimizer, prior, num_data=4)
        with Largest() as seen:
            prior.penalty().backward()
            optimizer.step()
        assert seen.elements <= 2 * r * p  # and not p·q = 100 times as many
    # One scale per element: a block of rows at a time.
    prior = prior_of(model, torch.full((p, q), 0.4, dtype=torch.float64), loc=loc)
    term, values = prior.terms[0], values_of(model)
    with Largest() as seen, pytest.MonkeyPatch.context() as patch:
        patch.setattr(factored, "_CHUNK", 10 * q)
        term.add_grad_({name: torch.zeros_like(v) for name, v in values.items()}, values, 1.0)
        term.penalty(values)
    assert seen.elements <= 10 * q


@pytest.mark.parametrize("frozen", ["A", "B"])
def test_a_frozen_factor_takes_part_with_its_value(frozen):
    model = Factors()
    getattr(model, frozen).requires_grad_(False)
    free = model.B if frozen == "A" else model.A
    prior = prior_of(model)
    (expected,) = torch.autograd.grad(explicit(model, 0.4), [free])
    assert prior.penalty().item() == pytest.approx(explicit(model, 0.4).item(), rel=1e-12)
    assert torch.allclose(torch.autograd.grad(prior.penalty(), [free])[0], expected, rtol=1e-12)
    optimizer = torch.optim.SGD(prior.param_groups(), lr=1.0)
    br.attach(optimizer, prior, num_data=1)
    free.grad, wanted = torch.zeros_like(free), free.detach() - expected
    optimizer.step()
    assert torch.allclose(free, wanted, rtol=1e-12)


@pytest.mark.parametrize("make", [
    lambda a, b: torch.optim.AdamW([{"params": a, "lr": 0.01}, {"params": b, "lr": 0.16}], weight_decay=0.0),
    lambda a, b: torch.optim.Adam([*b, *a], lr=0.01),
], ids=["a group for each factor", "the other order"])  # fmt: skip
def test_factors_may_be_trained_apart(make):
    one, other = Factors(), Factors()
    X, Y = torch.randn(6, Q, dtype=torch.float64), torch.randn(6, P, dtype=torch.float64)
    mine, theirs = (make([m.A], [m.B]) for m in (one, other))
    br.attach(mine, prior_of(one), num_data=6)
    for _ in range(20):
        mine.zero_grad(), theirs.zero_grad()
        ((one(X) - Y).square().sum() / 12).backward()
        ((other(X) - Y).square().sum() / 12 + explicit(other, 0.4) / 6).backward()
        mine.step(), theirs.step()
    assert torch.allclose(one.A, other.A, rtol=1e-9)
    assert torch.allclose(one.B, other.B, rtol=1e-9)


@pytest.mark.parametrize("make", [
    lambda a, b: torch.optim.SGD([{"params": a, "lr": 0.01}, {"params": b, "lr": 0.16}]),
    lambda a, b: [torch.optim.SGD([a], lr=0.01), torch.optim.SGD([b], lr=0.02)],
], ids=["two groups", "two optimizers"])  # fmt: skip
@pytest.mark.parametrize("route", ["auto", "loss"])
def test_apart_they_count_once(make, route):
    model = Factors()
    made = make(model.A, model.B)
    handle = br.attach(made, prior_of(model), num_data=6, route=route)
    assert handle.log()["penalty"] == pytest.approx(explicit(model, 0.4).item(), rel=1e-10)
    expected = gradients(explicit(model, 0.4) / 6, model)
    optimizers = made if isinstance(made, list) else [made]
    rates = {id(p): group["lr"] for o in optimizers for group in o.param_groups for p in group["params"]}
    wanted = [p.detach() - rates[id(p)] * g for p, g in zip((model.B, model.A), expected, strict=True)]
    model.A.grad, model.B.grad = torch.zeros_like(model.A), torch.zeros_like(model.B)
    if route == "loss":
        loss = handle.penalty()
        assert loss.item() == pytest.approx(explicit(model, 0.4).item() / 6, rel=1e-10)
        loss.backward()
    optimizers[0].step()
    # The other optimizer steps from where the first has gone; its own gradient is taken there.
    if len(optimizers) == 1:
        assert torch.allclose(model.B, wanted[0], rtol=1e-10)
    assert torch.allclose(model.A, wanted[1], rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_factors_are_multiplied_in_float32(dtype):
    model = Factors(40, 30, 4, dtype=dtype)
    wide = copy.deepcopy(model).double()
    prior = prior_of(model)
    assert prior.penalty().dtype == torch.float64
    assert prior.penalty().item() == pytest.approx(explicit(wide, 0.4).item(), rel=1e-5)
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.0)
    br.attach(optimizer, prior, num_data=100)
    model.A.grad, model.B.grad = torch.zeros_like(model.A), torch.zeros_like(model.B)
    optimizer.step()
    for mine, theirs in zip((model.B.grad, model.A.grad), gradients(explicit(wide, 0.4) / 100, wide), strict=True):
        assert mine.dtype == dtype
        assert torch.allclose(mine.double(), theirs, rtol=1e-2, atol=1e-3)


# -- what each prior does to the update ----------------------------------------------------------------------


def fitted(prior_rules, target, rank):
    """Return the singular values of the MAP update where the data are N(update; target, 1): inputs are unit vectors."""
    torch.manual_seed(1)
    model = Factors(*target.shape, rank, seed=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3)
    prior = br.ModelPrior(model, prior_rules)
    trainer = br.MAPTrainer(model, prior, br.likelihoods.Gaussian(1.0), optimizer="lbfgs", progress=False,
                            tolerance=1e-10, max_iterations=5000)  # fmt: skip
    result = trainer.fit((torch.eye(target.shape[1], dtype=torch.float64), target.T.contiguous()))
    assert result.converged
    return model.update().detach()


def target():
    generator = torch.Generator().manual_seed(8)
    left = torch.linalg.qr(torch.randn(6, 4, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(5, 4, generator=generator, dtype=torch.float64))[0]
    singular = torch.tensor([5.0, 3.0, 1.5, 0.4], dtype=torch.float64)
    return left, singular, right


def test_the_map_is_the_shrunken_truncated_singular_value_decomposition():
    left, singular, right = target()
    found = fitted(
        {"*": br.AdapterGaussian(0.8, [("B", "A")], scaling=SCALING)}, left @ torch.diag(singular) @ right.T, 3
    )
    # Every singular value that the rank leaves is shrunk by the same factor, as by weight decay on a whole weight.
    kept = singular.clone()
    kept[3] = 0.0
    assert torch.allclose(found, left @ torch.diag(kept / (1 + 1 / 0.8**2)) @ right.T, atol=1e-7)


def test_decay_of_the_factors_is_a_nuclear_norm():
    left, singular, right = target()
    std = 0.9
    found = fitted({"*": br.Gaussian(std)}, left @ torch.diag(singular) @ right.T, 3)
    # Singular values are soft-thresholded, by 1/(scaling·std²): a Laplace prior on them, which ends small ones.
    threshold = 1 / (SCALING * std**2)
    kept = (singular - threshold).clamp_min(0.0)
    assert kept.tolist()[2:] != singular.tolist()[2:]
    assert torch.allclose(found, left @ torch.diag(kept) @ right.T, atol=1e-6)


# -- as an object ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(scales()))
@pytest.mark.parametrize("centred", [False, True])
def test_files_and_copies_give_the_same_prior_back(kind, centred, tmp_path):
    model, scale = Factors(), scales()[kind]
    loc = {name: torch.ones_like(p) for name, p in model.named_parameters()} if centred else 0.0
    prior = prior_of(model, scale, loc=loc)
    path = tmp_path / "prior.safetensors"
    prior.save(path)
    again = br.ModelPrior.load(path, model)
    assert torch.equal(again.penalty(), prior.penalty())
    assert again["B"].describe() == prior["B"].describe()
    copied_model, copied = copy.deepcopy((model, prior))
    with torch.no_grad():
        copied_model.A.add_(1.0)
    assert torch.equal(again.penalty(), prior.penalty())
    assert not torch.equal(copied.penalty(), prior.penalty())
    # A scale for each element is kept once.
    if kind == "elements":
        assert path.stat().st_size < 2 * scale.numel() * 8 + 4000
        assert prior["A"].held_scale() is None


def test_it_is_improper_and_says_so():
    model = Factors()
    prior = prior_of(model)
    assert not prior["A"].traits.proper
    before = model.A.detach().clone()
    assert sorted(prior.sample_()) == ["A", "B"]
    assert torch.equal(model.A, before)
    with pytest.raises(br.UnsupportedError, match="improper over its factors"):
        prior.terms[0].draw(values_of(model), None)
    with pytest.raises(br.NotEquivalentError, match="nuclear norm"):
        prior["A"].weight_decay(100)
    assert not isinstance(prior["A"], br.Prior)
    for method in ("log_prob", "sample"):
        with pytest.raises(AttributeError, match=f"has no {method} of a single tensor: use it in br.ModelPrior"):
            getattr(prior["A"], method)


def test_the_decay_of_full_fine_tuning_is_that_of_its_update():
    prior = br.AdapterGaussian(0.02, [("B", "A")], scaling=SCALING)
    assert br.AdapterGaussian(torch.tensor(0.02), [("B", "A")]).update().scale.item() == pytest.approx(0.02)
    assert prior.update().weight_decay(1000) == pytest.approx(1 / (1000 * 0.02**2))
    assert br.AdapterGaussian({"B": 0.02, "D": 0.02}, [("B", "A"), ("D", "C")]).update() is not None
    with pytest.raises(br.UnsupportedError, match="several scales"):
        br.AdapterGaussian({"B": 0.02, "D": 0.03}, [("B", "A"), ("D", "C")]).update()


def test_reports_count_an_update_once():
    model = Factors()
    prior = prior_of(model)
    optimizer = torch.optim.AdamW(prior.param_groups(), lr=1e-3, weight_decay=0.0)
    handle = br.attach(optimizer, prior, num_data=10)
    model(torch.ones(2, Q, dtype=torch.float64)).sum().backward()
    optimizer.step()
    assert handle.log()["penalty"] == pytest.approx(explicit(model, 0.4).item(), rel=1e-10)
    assert "Gaussian on the merged update 1.7·B·A, std 0.4" in str(handle.describe())
    assert "B, A" in str(prior.describe(num_data=10)) or "A, B" in str(prior.describe(num_data=10))


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda m: prior_of(m, -1.0), br.InvalidArgumentError, "scale of B: expected a value > 0"),
    (lambda m: prior_of(m, float("nan")), br.InvalidArgumentError, "finite"),
    (lambda m: prior_of(m, nn.Parameter(torch.tensor(1.0))), br.InvalidArgumentError, "pass it detached"),
    (lambda m: prior_of(m, torch.ones(7, 5).requires_grad_()), br.InvalidArgumentError, "detach it"),
    (lambda m: prior_of(m, loc={"A": torch.zeros(R, Q + 1), "B": torch.zeros(P, R)}), br.InvalidArgumentError,
     "loc: A has shape (2, 6), expected (2, 5)"),
    (lambda m: prior_of(m, torch.ones(5, 7)), br.InvalidArgumentError, "broadcasts to the update's (7, 5)"),
    (lambda m: prior_of(m, torch.ones(5)), br.InvalidArgumentError, "broadcasts to the update's"),
    (lambda m: prior_of(m, scaling=0.0), br.InvalidArgumentError, "scaling of B: expected a number other than 0"),
    (lambda m: prior_of(m, loc=1.0), br.InvalidArgumentError, "loc: expected 0 or a mapping"),
    (lambda m: prior_of(m, loc={"A": torch.zeros(R, Q)}), br.ReferenceMismatchError, "missing B"),
    (lambda m: prior_of(m, {"A": 1.0}), br.InvalidArgumentError, "left factor, got A: not so for A, B"),
    (lambda m: br.AdapterGaussian(1.0), br.InvalidArgumentError, "expected pairs (left, right)"),
    (lambda m: br.AdapterGaussian(1.0, ["BA"]), br.InvalidArgumentError, "expected pairs (left, right)"),
    (lambda m: br.AdapterGaussian(1.0, [("B", "B")]), br.InvalidArgumentError, "in more than one place"),
    (lambda m: br.AdapterGaussian(1.0, [("B", "A"), ("C", "A")]), br.InvalidArgumentError, "A is in more than one"),
    (lambda m: br.ModelPrior(m, {"*": br.AdapterGaussian(1.0, [("A", "B")])}), br.InvalidArgumentError,
     "A of (2, 5) and B of (7, 2)"),
    (lambda m: br.ModelPrior(m, {"*": br.AdapterGaussian(1.0, [("B", "a")])}), br.InvalidArgumentError,
     "A is none of them"),
    (lambda m: br.ModelPrior(m, {"A": br.Flat(), "*": br.AdapterGaussian(1.0, [("B", "A")])}),
     br.ReferenceMismatchError, "of which A has another prior"),
])  # fmt: skip
def test_what_cannot_be_is_refused(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make(Factors())


def test_damaged_files_are_refused(tmp_path):
    model = Factors()
    prior_of(model).save(tmp_path / "prior.safetensors")
    with pytest.raises(br.PriorFileError, match="B has shape"):
        br.ModelPrior.load(tmp_path / "prior.safetensors", Factors(p=8))
