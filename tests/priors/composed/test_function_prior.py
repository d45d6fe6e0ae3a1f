"""Priors on functions of parameters: each Jacobian policy against SciPy and autograd, and what is refused."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import nn

import bayesreg as br

UNSURE = br.HierarchicalGaussian(br.hyperpriors.InverseGamma(2.0, 0.1))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()


def tied(**keywords):
    keywords = {"jacobian": "none", "base": br.Gaussian(1.0)} | keywords
    return br.FunctionPrior("difference", br.Gaussian(0.1), of=["0.weight", "2.weight"], **keywords)


def test_soft_tying_is_a_correlated_gaussian():
    """Each weight and its twin: precision [[1, 0], [0, 1]] + 100·[[1, −1], [−1, 1]]."""
    model = network()
    prior = br.ModelPrior(model, {br.biases: br.Flat(), "*": tied()})
    precision = torch.eye(2, dtype=torch.float64) + 100 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    pairs = torch.stack([model[0].weight, model[2].weight], -1)
    expected = 0.5 * torch.einsum("...a,ab,...b->", pairs, precision, pairs)
    assert prior.penalty().item() == pytest.approx(expected.item(), rel=1e-12)
    # Its MAP: what data say of one layer moves the other.
    target = torch.randn(3, 3, dtype=torch.float64)

    def loss():
        return 0.5 * (model[0].weight - target).square().sum() + prior.penalty()

    optimizer = torch.optim.LBFGS(
        [model[0].weight, model[2].weight], line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=0.0
    )
    for _ in range(5):
        optimizer.step(lambda: (optimizer.zero_grad(), loss().backward(), loss())[-1])
    exact = torch.linalg.solve(precision + torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)),
                               torch.stack([target.reshape(-1), torch.zeros(9, dtype=torch.float64)]))  # fmt: skip
    assert torch.allclose(model[0].weight.reshape(-1), exact[0], atol=1e-6)
    assert torch.allclose(model[2].weight.reshape(-1), exact[1], atol=1e-6)


def test_attach_follows_the_penalty_and_solvers_reach_the_map():
    ends = []
    X = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.sin(X)
    for attached in (True, False):
        model = network()
        prior = br.ModelPrior(model, {br.biases: br.Flat(), "*": tied(base=br.StudentT(4.0, 1.0))})
        optimizer = torch.optim.Adam(prior.param_groups(), lr=0.03)
        if attached:
            words = str(br.attach(optimizer, prior, num_data=20).describe())
            assert "gradient" in words
        for _ in range(40):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(X), y)
            (loss if attached else loss + prior.penalty() / 20).backward()
            optimizer.step()
        ends.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert torch.allclose(*ends, rtol=0, atol=1e-12)
    result = br.MAPTrainer(model, prior, br.likelihoods.Gaussian(0.3), optimizer="lbfgs", progress=False).fit((X, y))
    assert result.converged
    nll = 0.5 * (model(X) - y).square().sum() / 0.09
    grads = torch.autograd.grad(nll + prior.penalty(), list(model.parameters()))
    assert max(g.abs().max().item() for g in grads) < 1e-5


@pytest.mark.parametrize(
    ("function", "prior", "reference"),
    [
        ("exp", br.HierarchicalGaussian(br.hyperpriors.Gamma(2.0, 0.5), None, "element"), None),
        ("log", br.Gaussian(0.7, loc=0.3), scipy.stats.lognorm(0.7, scale=math.exp(0.3))),
        ("exp", br.FromDistribution(torch.distributions.HalfCauchy(torch.tensor(0.5, dtype=torch.float64))), None),
        ("softplus", br.FromDistribution(torch.distributions.Gamma(torch.tensor(3.0), torch.tensor(2.0))), None),
    ],
)
def test_with_its_jacobian_it_is_the_density_of_the_weights(function, prior, reference):
    """A normal on log w is the log-normal on w; and in general the density integrates to 1 over w."""
    model = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        model.weight.uniform_(0.2, 2.0)
    whole = br.ModelPrior(model, {"*": br.FunctionPrior(function, prior, of=["weight"], jacobian="elementwise")})
    if reference is not None:
        expected = reference.logpdf(model.weight.detach().numpy()).sum()
        assert whole.log_prob().item() == pytest.approx(expected, rel=1e-12)
    one = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(one.weight)
    single = br.ModelPrior(one, {"*": br.FunctionPrior(function, prior, of=["weight"], jacobian="elementwise")})

    def density(w):
        with torch.no_grad():
            one.weight.fill_(w)
        return math.exp(single.log_prob().item())

    low = 1e-12 if function == "log" else -40.0
    pieces = [low, *(x for x in (-5.0, 0.0, 1.0, 5.0) if x > low), 60.0]
    halves = 1.0 if reference is not None or not isinstance(prior, br.HierarchicalGaussian) else 0.5
    mass = sum(scipy.integrate.quad(density, a, b, limit=300)[0] for a, b in itertools.pairwise(pieces))
    assert mass == pytest.approx(halves, abs=2e-3 if isinstance(prior, br.FromDistribution) else 1e-6)
    if halves == 1.0:
        whole.sample_(generator=torch.Generator().manual_seed(0))
        assert model.weight.isfinite().all()


def test_without_it_the_map_depends_on_how_it_is_written():
    """A standard normal on log w: as a density of w its mode is e⁻¹, as a penalty 1."""
    modes = []
    for jacobian in ("elementwise", "none"):
        model = nn.Linear(1, 1, bias=False).double()
        with torch.no_grad():
            model.weight.fill_(0.6)
        prior = br.ModelPrior(model, {"*": br.FunctionPrior("log", br.Gaussian(1.0), of=["weight"], jacobian=jacobian)})
        optimizer = torch.optim.SGD(prior.param_groups(), lr=0.05)
        br.attach(optimizer, prior, num_data=1)
        for _ in range(400):
            optimizer.zero_grad()
            (0.0 * model.weight.sum()).backward()
            optimizer.step()
        modes.append(model.weight.item())
    assert modes == pytest.approx([math.exp(-1.0), 1.0], abs=1e-6)


def test_a_prior_on_the_norm():
    # Gamma of as many degrees as weights: the norm of GroupLaplace.
    model = nn.Linear(3, 2).double()
    size = 8
    gamma = br.FromDistribution(torch.distributions.Gamma(*(torch.tensor(v, dtype=torch.float64) for v in (size, 1.7))))
    radial = br.ModelPrior(model, {"*": br.FunctionPrior("norm", gamma, of=["weight", "bias"], jacobian="radial")})
    flat = torch.cat([model.weight.reshape(-1), model.bias])
    group = br.GroupLaplace(1.7, "tensor")
    assert radial.log_prob().item() == pytest.approx(group.log_prob(flat).item(), rel=1e-12)
    # Draws: the norm has the distribution, the directions are uniform.
    generator, norms, tilt = torch.Generator().manual_seed(0), [], []
    for _ in range(600):
        radial.sample_(generator=generator)
        flat = torch.cat([model.weight.detach().reshape(-1), model.bias.detach()])
        norms.append(flat.norm().item())
        tilt.append((flat[0] / flat.norm()).item())
    assert scipy.stats.kstest(norms, scipy.stats.gamma(size, scale=1 / 1.7).cdf).pvalue > 1e-3
    # One coordinate of a uniform direction: (t + 1)/2 is Beta((m − 1)/2, (m − 1)/2).
    half = (size - 1) / 2
    assert scipy.stats.kstest((np.array(tilt) + 1) / 2, scipy.stats.beta(half, half).cdf).pvalue > 1e-3
    # As a penalty: ½(r − 2)²/0.1² has its mode on a sphere.
    penalty = br.ModelPrior(
        model, {"*": br.FunctionPrior("norm", br.Gaussian(0.1, loc=2.0), of=["weight", "bias"], jacobian="none")}
    )
    r = math.sqrt(sum(p.square().sum().item() for p in model.parameters()))
    assert penalty.penalty().item() == pytest.approx(0.5 * (r - 2.0) ** 2 / 0.01, rel=1e-10)
    # With its Jacobian a half-normal norm has no MAP, and that is said.
    half_normal = br.FromDistribution(torch.distributions.HalfNormal(torch.tensor(1.0)))
    none = br.ModelPrior(model, {"*": br.FunctionPrior("norm", half_normal, of=["weight", "bias"], jacobian="radial")})
    with pytest.raises(br.UnsupportedError, match="no bound at 0"):
        br.attach(torch.optim.SGD(none.param_groups(), lr=0.1), none, num_data=1)
    assert math.isfinite(none.log_prob().item())


def test_curvature_products_are_autograds():
    model = network()
    prior = br.ModelPrior(model, {br.biases: br.Flat(), "*": tied(base=br.StudentT(4.0, 1.0))})
    (term,) = [term for term in prior.terms if len(term.names) == 2]
    held = dict(model.named_parameters())
    values = tuple(held[name].detach() for name in term.names)
    vectors = tuple(torch.randn_like(v) for v in values)

    def named(tensors):
        return dict(zip(term.names, tensors, strict=True))

    found = term.curvature_times(named(values), named(vectors))
    _, exact = torch.autograd.functional.hvp(lambda *v: term.penalty(named(v)), values, vectors)
    assert all(torch.allclose(found[n], e, rtol=1e-10, atol=1e-12) for n, e in zip(term.names, exact, strict=True))


def test_files_keep_named_functions_and_refuse_others(tmp_path):
    model = network()
    prior = br.ModelPrior(model, {br.biases: br.Flat(), "*": tied()})
    prior.save(tmp_path / "p.safetensors")
    again = br.ModelPrior.load(tmp_path / "p.safetensors", model)
    assert torch.equal(prior.penalty(), again.penalty())
    assert again["2.weight"].describe() == prior["2.weight"].describe()
    assert "as a penalty" in str(again.describe(num_data=10))
    own = br.FunctionPrior(lambda a, b: a @ b, br.Gaussian(1.0), of=["0.weight", "2.weight"], jacobian="none")
    whole = br.ModelPrior(model, {br.biases: br.Flat(), "*": own})
    assert whole.penalty().item() == pytest.approx(0.5 * (model[0].weight @ model[2].weight).square().sum().item())
    with pytest.raises(br.UnsupportedError, match="cannot hold the function <lambda>"):
        whole.save(tmp_path / "q.safetensors")
    assert whole.sample_() == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_wrong_calls_are_answered():
    gaussian = br.Gaussian(1.0)
    for keywords, words in (
        ({"function": "differnce"}, "did you mean 'difference'"),
        ({"function": 3}, "function: expected a text or a function, got int 3"),
        ({"of": "0.weight"}, "list of different"),
        ({"of": ["a", "a"]}, "list of different"),
        ({"jacobian": "yes"}, "expected one of none, elementwise, radial"),
        ({"prior": br.Laplace(1.0)}, "kink"),
        ({"base": br.Laplace(1.0)}, "kink"),
        ({"jacobian": "elementwise", "base": gaussian}, "leave base out"),
        ({"jacobian": "radial"}, "the function 'norm'"),
        ({"jacobian": "elementwise"}, "one parameter"),
        ({"function": "exp", "jacobian": "elementwise", "of": ["a"], "prior": UNSURE}, "expected a density"),
        ({"jacobian": "elementwise", "of": ["a"], "prior": br.Uniform(0.5, 2.0)}, "kink or a bound"),
        ({"function": "norm", "jacobian": "elementwise", "of": ["a"]}, "does not determine"),
        ({"function": "norm", "jacobian": "radial"}, "positive numbers"),
        ({"of": [torch.zeros(2)]}, "Tensor"),
        ({"prior": br.Horseshoe(1.0)}, "no bound"),
    ):
        full = {"function": "difference", "prior": gaussian, "of": ["a", "b"], "jacobian": "none"} | keywords
        with pytest.raises(br.InvalidArgumentError, match=words):
            br.FunctionPrior(full.pop("function"), full.pop("prior"), **full)
    with pytest.raises(br.InvalidArgumentError, match="missing"):
        br.FunctionPrior("norm", gaussian, ["a"])
    model = network()
    with pytest.raises(br.InvalidArgumentError, match=r"gives it to 2\.bias as well"):
        br.ModelPrior(model, {"0.*": br.Flat(), "*": tied()})
    with pytest.raises(br.ReferenceMismatchError, match=r"0\.weight has another prior"):
        br.ModelPrior(model, {br.biases: br.Flat(), "0.*": br.Flat(), "*": tied()})
    uneven = nn.ModuleDict({"a": nn.Linear(3, 2, bias=False), "b": nn.Linear(2, 5, bias=False)})
    with pytest.raises(br.InvalidArgumentError, match="it does not take"):
        br.ModelPrior(uneven, br.FunctionPrior("difference", gaussian, of=["a.weight", "b.weight"], jacobian="none"))
    for function in (lambda w: w.cumsum(0), lambda w: torch.cat([w[:1], w[1:] + w[1:, :1]])):
        mixing = br.FunctionPrior(function, gaussian, of=["a.weight"], jacobian="elementwise")
        with pytest.raises(br.InvalidArgumentError, match="each element apart"):
            br.ModelPrior(uneven, {"b.*": br.Flat(), "*": mixing})
    logarithm = br.FunctionPrior("log", gaussian, of=["a.weight"], jacobian="elementwise")
    with pytest.raises(br.InvalidArgumentError, match="not finite at their present values"):
        br.ModelPrior(uneven, {"b.*": br.Flat(), "*": logarithm})
    prior = br.ModelPrior(model, {br.biases: br.Flat(), "*": tied()})
    assert not isinstance(prior["0.weight"], br.Prior)
    with pytest.raises(AttributeError, match="has no log_prob of a single tensor"):
        prior["0.weight"].log_prob(model[0].weight)
    model[0].weight.requires_grad_(False)
    with pytest.raises(br.UnsupportedError, match="not trained together"):
        br.attach(torch.optim.SGD(prior.param_groups(), lr=0.1), prior, num_data=10)


@pytest.mark.parametrize("trainer", [False, True])
def test_leaving_the_domain_raises_and_the_trainer_puts_the_weights_back(trainer):
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 0.5)
    log_normal = br.FunctionPrior("log", br.Gaussian(0.3), of=["weight"], jacobian="elementwise")
    prior = br.ModelPrior(model, {"*": log_normal})
    X = torch.ones(8, 1, dtype=torch.float64)
    if trainer:
        fitting = br.MAPTrainer(
            model, prior, br.likelihoods.Gaussian(0.1), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
            max_epochs=5, batch_size=4, progress=False,
        )  # fmt: skip
        with pytest.raises(br.NonFiniteObjectiveError, match="epoch 1"):
            fitting.fit((X, -5 * X))
        assert model.weight.item() == 0.5
        return
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.5)
    br.attach(optimizer, prior, num_data=8)

    def train():
        for _ in range(5):
            optimizer.zero_grad()
            (model(X) + 5 * X).square().mean().backward()
            optimizer.step()

    with pytest.raises(br.NonFiniteObjectiveError, match="log or its density is not finite"):
        train()


def test_a_linear_function_with_convex_priors_is_convex():
    model = network()
    prior = br.ModelPrior(model, {**{name: tied() for name in tied().of}, br.biases: br.Flat()})
    assert "Not convex" not in str(prior.describe())
