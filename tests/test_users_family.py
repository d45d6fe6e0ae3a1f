"""A family of a user's own, in under 40 lines, is everywhere what a shipped one is."""

from __future__ import annotations

import inspect
import json
import math
import sys
import warnings
from functools import partial
from typing import final

import matplotlib as mpl
import pytest
import scipy.stats
import torch
from sklearn.datasets import load_diabetes
from torch import nn

import bayesreg as br
from bayesreg.testing import PriorContract
from tests.versions import ADAMW_HAS_FLAG

mpl.use("Agg")


@br.register_family
@final
class Bridge(br.ElementwisePrior):
    """−log p(w) = Σ rate·|w − loc|^power/power + const: a Laplace of power 1, a Gaussian of power 2."""

    def __init__(self, rate, power=2, *, loc=0.0):
        super().__init__(loc=loc, rate=rate)
        self.power = power
        self.traits = br.Traits(True, True, smooth=power == 2, elementwise=True, has_prox=True, gaussian=power == 2)

    def offset_penalty(self, offset):
        return self.rate * offset.abs() ** self.power / self.power

    def offset_slope(self, offset):
        return self.rate * offset.sign() * offset.abs() ** (self.power - 1)

    def offset_curvature(self, offset):
        return self.rate * (self.power - 1) * torch.ones_like(offset)

    def offset_prox(self, offset, step):
        return (
            offset / (1 + step * self.rate)
            if self.power == 2
            else nn.functional.softshrink(offset, 0.0)
            * ((offset.abs() - step * self.rate).clamp_min(0) / offset.abs().clamp_min(1e-300))
        )

    def log_normaliser(self):
        return (2 / self.rate).log() if self.power == 1 else 0.5 * (2 * math.pi / self.rate).log()

    def draw_offsets(self, like, generator):
        draw = torch.randn if self.power == 2 else lambda *a, **k: torch.rand(*a, **k).log().neg()
        size = draw(like.shape, generator=generator, dtype=like.dtype, device=like.device) / self.rate ** (
            1 / self.power
        )
        return size * torch.randint(0, 2, like.shape, generator=generator).mul(2).sub(1)

    def variance(self, shape=None):
        return float((2 if self.power == 1 else 1) / self.rate ** (2 / self.power)) if self.rate.ndim == 0 else None

    def quadratic(self):
        return self.parabola(1 / self.rate) if self.power == 2 else None

    def times(self, factor):
        return self.with_powers(factor, rate=1.0)

    def saved_options(self):
        return {"power": self.power}


class TestBridgeSquared(PriorContract):
    per_element = ("rate",)

    def make(self, scale):
        return Bridge(scale**-2)

    def logpdf(self, scale):
        return scipy.stats.norm(0, scale).logpdf


class TestBridgeKinked(PriorContract):
    per_element = ("rate",)

    def make(self, scale):
        return Bridge(1 / scale, 1)

    def logpdf(self, scale):
        return scipy.stats.laplace(0, scale).logpdf


def test_it_is_written_in_under_forty_lines():
    lines = [line for line in inspect.getsource(Bridge).splitlines() if line.strip()]
    assert len(lines) < 40, len(lines)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


X = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(10, 3)
Y = X.sum(1, keepdim=True).sin()


def trained(prior, make, **keywords):
    model = network()
    built = br.ModelPrior(model, prior)
    optimizer = make(built.param_groups())
    handle = br.attach(optimizer, built, num_data=10, **keywords)
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(X) - Y).square().mean()
        (loss + handle.penalty() if keywords.get("route") == "loss" else loss).backward()
        optimizer.step()
    routes = {row[2] for row in handle.describe().rows} - {"none"}
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]), routes


REFERENCE = {name: torch.full_like(p, 0.2) for name, p in network().named_parameters()}

SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
ROUTES = [
    (Bridge(4.0), br.Gaussian(0.5), SGD, {}, "native"),
    (Bridge(4.0, loc=0.3), br.Gaussian(0.5, loc=0.3), SGD, {}, "native + centre"),
    (Bridge.centered_at(REFERENCE, 4.0), br.Gaussian.centered_at(REFERENCE, 0.5), SGD, {}, "native + centre"),
    (Bridge(4.0), br.Gaussian(0.5), partial(torch.optim.AdamW, lr=0.01, weight_decay=0.0), {},
     "native" if ADAMW_HAS_FLAG else "gradient"),
    (Bridge(4.0), br.Gaussian(0.5), partial(torch.optim.Adafactor, lr=0.01, weight_decay=0.0), {}, "gradient"),
    (Bridge(4.0), br.Gaussian(0.5), SGD, {"route": "loss"}, "loss"),
    (Bridge(4.0), br.Gaussian(0.5), partial(torch.optim.AdamW, lr=0.01, weight_decay=0.0), {"route": "decoupled"},
     "decoupled"),
    (Bridge(4.0), br.Gaussian(0.5), SGD, {"route": "proximal"}, "proximal"),
    (Bridge(5.0, 1), br.Laplace(0.2), SGD, {}, "proximal"),
    (Bridge(5.0, 1), br.Laplace(0.2), partial(torch.optim.Adam, lr=0.01), {}, "proximal"),
]  # fmt: skip


@pytest.mark.parametrize(("own", "shipped", "make", "keywords", "route"), ROUTES)
def test_every_route_is_that_of_the_shipped_family(own, shipped, make, keywords, route):
    body = {"*": own} if own.reference is not None else own
    mine, taken = trained(body, make, **keywords)
    theirs, expected = trained({"*": shipped} if own.reference is not None else shipped, make, **keywords)
    assert taken == expected == {route}
    assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-13)
    assert not torch.equal(mine, trained(br.Flat(), make)[0])


def test_optimizer_groups_decay_and_explanation():
    model = network()
    prior = br.ModelPrior(model, {"0.*": Bridge(4.0), "2.*": br.Gaussian(0.5)})
    assert len(prior.param_groups()) == 1  # one strength, whoever says it
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    handle = br.attach(optimizer, prior, num_data=10)
    assert optimizer.param_groups[0]["weight_decay"] == Bridge(4.0).weight_decay(10) == 0.4
    assert handle.log()["groups"][0]["weight_decay"] == 0.4
    found = br.explain(optimizer, model, num_data=10).groups
    assert all(group.std == 0.5 and group.weight_decay == 0.4 for group in found)
    with pytest.raises(br.NotEquivalentError, match="AdamW decouples"):
        Bridge(4.0).weight_decay(10, "adamw")
    with pytest.raises(br.NotEquivalentError, match=r"pulls toward 0, this prior toward loc \(here lambda = 0\.4\)"):
        Bridge(4.0, loc=1.0).weight_decay(10)
    with pytest.raises(br.NotEquivalentError, match="equivalent to Bridge: its pull is not in proportion"):
        Bridge(4.0, 1).weight_decay(10)
    wild = torch.optim.SGD(model.parameters(), lr=100.0)
    handle.remove()
    br.attach(wild, prior, num_data=10)
    model(X).sum().backward()
    with pytest.warns(br.OvershootWarning, match=r"lr·λ"):
        wild.step()


def test_the_prior_is_planned_afresh_when_its_own_number_changes():
    model = network()
    prior = br.ModelPrior(model, Bridge(4.0))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, num_data=10)
    prior["0.weight"].rate.fill_(8.0)
    model(X).sum().backward()
    optimizer.step()
    assert optimizer.param_groups[0]["weight_decay"] == 0.8


@pytest.mark.parametrize(("own", "shipped", "solver"), [
    (Bridge(4.0), br.Gaussian(0.5), "lbfgs"), (Bridge(4.0, 1), br.Laplace(0.25), "proximal"),
])  # fmt: skip
def test_the_trainer_reaches_the_same_map(own, shipped, solver):
    features, target = (torch.as_tensor(part) for part in load_diabetes(return_X_y=True))
    features, target = features / features.std(0), ((target - target.mean()) / target.std())[:, None]
    weights = []
    for prior in (own, shipped):
        model = nn.Linear(10, 1).double()
        trainer = br.MAPTrainer(model, prior, br.likelihoods.Gaussian(0.7), optimizer=solver, progress=False)
        assert trainer.fit((features, target)).converged
        weights.append(model.weight.detach())
    assert torch.allclose(*weights, atol=1e-7)
    if solver == "proximal":
        assert torch.equal(weights[0] == 0, weights[1] == 0)
        kinked = br.ModelPrior(model, own)
        path = br.sparsity.regularization_path(
            model, kinked, br.likelihoods.Gaussian(0.7), (features, target), count=4, floor=0.1
        )
        assert path[0].nonzero == 0
        assert path[-1].nonzero > 0
        assert br.sparsity.zeros(br.ModelPrior(model, own)).rows[0][2] == 10 - path[-1].nonzero


def test_files_tables_rescaling_and_strengths(tmp_path):
    model = network()
    prior = br.ModelPrior(model, {"0.*": Bridge(4.0, loc=0.5), "2.*": Bridge(3.0, 1)})
    prior.save(tmp_path / "own.safetensors")
    again = br.ModelPrior.load(tmp_path / "own.safetensors", model)
    assert torch.equal(again.log_prob(), prior.log_prob())
    assert "toward its centre" in str(prior.describe(num_data=10))
    stronger = br.sparsity.with_strength(prior, 2.0)
    assert (stronger["0.weight"].rate.item(), stronger["2.weight"].rate.item()) == (8.0, 6.0)
    wider = br.transfer.rescaled(br.ModelPrior(model, Bridge(4.0)), 4.0)
    assert wider["0.weight"].variance() == 1.0
    with pytest.raises(br.UnsupportedError, match=r"2\.weight: expected a Gaussian prior .* got Bridge"):
        br.transfer.rescaled(prior, 4.0)
    product = br.Product([Bridge(3.0), br.Gaussian(1.0)])
    assert product.weight_decay(10) == pytest.approx(0.4)
    mixed = br.Mixture([Bridge(4.0), Bridge(400.0)], [0.5, 0.5])
    assert mixed.log_prob(torch.zeros(1)).isfinite()
    moved = br.transfer.l2_sp(model, REFERENCE, body_scale=1.0)
    assert moved["0.weight"].family == "Gaussian"


def test_words_plots_and_the_command_line(tmp_path, monkeypatch, capsys):
    from bayesreg.cli import main

    assert br.prior_from_words("bridge(4.0, power=1)").rate.item() == 4.0
    assert br.prior_from_words("bridge(rate=2.0)").describe().startswith("Bridge")
    for prior in (Bridge(4.0), Bridge(4.0, 1)):
        assert prior.plot()[0].get_title() == "density p(w)"
    model = network()
    assert br.ModelPrior(model, Bridge(4.0)).plot().get_yticklabels()
    argv = ["bayesreg", "fit", "iris", "--prior", "bridge(4.0)", "--output", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, capsys.readouterr().err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["converged"]
    assert "Bridge" in str(metrics["priors"])


def test_what_it_declares_and_does_not_have_is_refused_when_it_is_made():
    with pytest.raises(
        br.InvalidArgumentError, match=r"Liar: its traits declare has_prox=True, and it has no offset_prox"
    ):

        class Liar(br.ElementwisePrior):
            traits = br.Traits(proper=True, convex=True, smooth=False, elementwise=True, has_prox=True)
            offset_penalty = offset_slope = offset_curvature = Bridge.offset_penalty
            log_normaliser, draw_offsets = Bridge.log_normaliser, Bridge.draw_offsets

    class Late(br.ElementwisePrior):
        offset_penalty = offset_slope = offset_curvature = Bridge.offset_penalty
        log_normaliser, draw_offsets = Bridge.log_normaliser, Bridge.draw_offsets

        def __init__(self):
            super().__init__()
            self.traits = br.Traits(proper=True, convex=True, smooth=False, elementwise=True, has_prox=True)

    with pytest.raises(br.InvalidArgumentError, match="Late: its traits declare has_prox=True"):
        Late()


# -- parabolas that are not spelled Gaussian: the pull of every route is the slope of the penalty ------------


class Quartic(torch.distributions.Normal):
    """A Normal by class, and no parabola by density."""

    def log_prob(self, value):
        return super().log_prob(value) - 0.5 * value.pow(4)


def reference(dtype):
    return {"weight": torch.linspace(-1.0, 1.0, 6).reshape(2, 3).to(dtype)}


PARABOLAS = {
    "of a subclass of Normal": lambda: br.FromDistribution(Quartic(0.0, 0.5)),
    "Normal about 1": lambda: br.FromDistribution(torch.distributions.Normal(1.0, 0.5)),
    "power 2": lambda: br.GeneralizedNormal(power=2, scale=0.5, loc=0.3),
    "product about two points": lambda: br.Product([br.Gaussian(0.3, loc=1.0), br.Gaussian(0.7, loc=-1.0)]),
    "product about a reference in bfloat16": lambda: br.Product([
        br.Gaussian.centered_at(reference(torch.bfloat16), scale=0.3),
        br.Gaussian(1.0),
    ]),
    "product with one per element": lambda: br.Product([
        br.Gaussian(torch.tensor([0.1, 0.5, 1.0])),
        br.Gaussian(0.3),
    ]),
}


@pytest.mark.parametrize("make", PARABOLAS.values(), ids=PARABOLAS)
@pytest.mark.parametrize(
    "optimizer", [partial(torch.optim.SGD, lr=1.0), partial(torch.optim.SGD, lr=1.0, foreach=False)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_pull_is_the_slope_of_the_penalty(make, optimizer, dtype):
    model = nn.Linear(3, 2, bias=False).to(dtype)
    with torch.no_grad():
        model.weight.copy_(torch.linspace(0.2, 1.4, 6).reshape(2, 3))
    prior = br.ModelPrior(model, {"*": make()})
    (slope,) = torch.autograd.grad(prior.penalty(), [model.weight])
    made = optimizer(prior.param_groups())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", br.OvershootWarning)
        br.attach(made, prior, num_data=10)
        before = model.weight.detach().clone()
        model.weight.grad = torch.zeros_like(model.weight)
        made.step()
    moved = before.double() - model.weight.detach().double()
    assert torch.allclose(moved, slope.double() / 10, rtol=3e-6 if dtype == torch.float32 else 1e-12)


def test_a_product_about_one_point_has_its_map_exactly_there():
    product = br.Product([br.Gaussian(0.3, loc=1.0), br.Gaussian(0.7, loc=1.0)])
    assert product.quadratic().centre.item() == pytest.approx(1.0, abs=1e-15)


def test_multiples_keep_what_is_beyond_the_reference_and_refuse_what_is_learned():
    body = br.Gaussian.centered_at(reference(torch.float32), scale=0.5, resized=br.Gaussian(2.0))
    larger = nn.Linear(3, 4, bias=False)
    wider = br.ModelPrior(larger, {"*": body.times(0.25)})["weight"].variance()
    assert torch.equal(wider.expand(4, 3), torch.tensor([1.0, 1.0, 16.0, 16.0])[:, None].expand(4, 3))
    with pytest.raises(br.UnsupportedError, match="Gaussian scale: it is learned"):
        br.Gaussian(nn.Parameter(torch.tensor(0.5))).times(2.0)
    named = {"weight": torch.ones(2, 3)}
    joint = br.LowRankGaussian(named, {name: t[..., None] for name, t in named.items()}).times(4.0)
    scaled = br.ModelPrior(nn.Linear(3, 2, bias=False), {"*": joint})["weight"].variance()
    assert torch.equal(scaled.expand(2, 3), torch.full((2, 3), 0.5))


def test_the_variance_of_a_mixture_is_that_of_its_draws():
    skewed = br.FromDistribution(torch.distributions.StudentT(5.0, 3.0, 0.5))
    mixed = br.Mixture([skewed, br.Gaussian(1.0)], [0.5, 0.5])
    draws = mixed.sample((200_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert mixed.variance() == pytest.approx(draws.var().item(), rel=0.03)


def test_what_makes_no_density_is_refused():
    with pytest.raises(br.InvalidArgumentError, match="expected a parabola with a variance > 0, got -1"):
        br.Gaussian(1.0).parabola(torch.tensor(-1.0))
    with pytest.raises(br.InvalidArgumentError, match=r"Gaussian\.with_powers: .* got 'scal'; did you mean 'scale'"):
        br.Gaussian(1.0).with_powers(2.0, scal=-0.5)
