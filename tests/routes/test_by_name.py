"""Routes asked for by name: what they do, when they are refused, what they report; several optimizers; the log."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from tests.routes.common import PRIORS, STEPS, VARIANTS, N, attached, data, largest_gap, net, optimizer_of, trained
from tests.versions import ADAMW_HAS_FLAG

DECAY = 1.0 / (N * 0.3**2)


@pytest.mark.parametrize("route", ["gradient", "proximal", "loss", "native"])
def test_every_exact_route_ends_at_the_same_map(route):
    """The weights after convergence do not depend on how the prior reached them."""

    def train(route):
        torch.manual_seed(0)
        model = nn.Linear(6, 3).double()
        prior = br.ModelPrior(model, {"*": br.Gaussian(0.3)})
        optimizer = torch.optim.SGD(prior.param_groups(), lr=0.5, momentum=0.9)
        handle = br.attach(optimizer, prior, num_data=N, route=route)
        assert {row[2] for row in handle.describe().rows} == {route} or route == "auto"
        X, y = data()
        for _ in range(800):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(X), y)
            (loss + handle.penalty() if route == "loss" else loss).backward()
            optimizer.step()
        return [p.detach() for p in model.parameters()]

    assert largest_gap(train(route), train("auto")) < 1e-10


@pytest.mark.parametrize("name", [*VARIANTS, "LBFGS"])
def test_the_loss_route_is_the_penalty_in_the_loss_for_every_optimizer(name):
    one, two = net(), net()
    prior, reference = br.ModelPrior(one, PRIORS["mixed"]()), br.ModelPrior(two, PRIORS["mixed"]())
    optimizer = optimizer_of(name, one.parameters())
    handle = br.attach(optimizer, prior, num_data=N, route="loss")
    plain = optimizer_of(name, two.parameters())
    X, y = data()

    def closure(model, opt, penalty):
        def run():
            opt.zero_grad()
            loss = F.cross_entropy(model(X), y) + penalty()
            loss.backward()
            return loss

        return run

    with_handle = closure(one, optimizer, handle.penalty)
    by_hand = closure(two, plain, lambda: reference.penalty() / N)
    for _ in range(3 if name == "LBFGS" else STEPS):
        optimizer.step(with_handle)
        plain.step(by_hand)
    assert largest_gap([p.detach() for p in one.parameters()], [p.detach() for p in two.parameters()]) < 1e-9


@pytest.mark.parametrize("with_closure", [True, False])
def test_a_forgotten_penalty_raises(with_closure):
    model, _, optimizer, handle = attached(route="loss")
    F.cross_entropy(model(data()[0]), data()[1]).backward()
    handle.penalty().backward()
    optimizer.step()
    with pytest.raises(br.InvalidArgumentError, match=r"handle\.penalty\(\) was not called before this step"):
        optimizer.step(*([lambda: F.cross_entropy(model(data()[0]), data()[1])] if with_closure else []))


# -- decoupled ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [True, False])
def test_decoupled_on_adamw_is_adamws_own_decay_bit_for_bit(fused):
    one, two = net(), net()
    prior = br.ModelPrior(one, {"*": br.Gaussian(0.3)})
    optimizer = torch.optim.AdamW(one.parameters(), lr=0.02, weight_decay=0.0, fused=fused)
    handle = br.attach(optimizer, prior, num_data=N, route="decoupled")
    plain = torch.optim.AdamW(two.parameters(), lr=0.02, weight_decay=br.Gaussian(0.3).weight_decay(N), fused=fused)
    assert largest_gap(trained(one, optimizer), trained(two, plain)) == 0.0
    assert "not the MAP of this prior" in str(handle.describe())


@pytest.mark.parametrize("name", ["Adam", "SGD", "Adafactor", "RMSprop"])
@pytest.mark.parametrize("closure", [True, False])
def test_decoupled_toward_a_centre(name, closure):
    """θ ← θ − lr·λ·(θ − loc), before the step, for isotropic, diagonal and centred Gaussians."""
    widths = 0.2 + torch.linspace(0, 1, 6, dtype=torch.float64)
    centre = net(seed=9)
    rules = {"0.weight": br.Gaussian(widths, loc=centre[0].weight.detach()), "0.bias": br.Flat(),
             "2.weight": br.Gaussian(0.3, loc=0.2), "*": br.Gaussian(0.3)}  # fmt: skip
    one, two = net(), net()
    prior = br.ModelPrior(one, rules)
    optimizer, plain = optimizer_of(name, one.parameters()), optimizer_of(name, two.parameters())
    br.attach(optimizer, prior, num_data=N, route="decoupled")
    X, y = data()

    def run():
        optimizer.zero_grad()
        loss = F.cross_entropy(one(X), y)
        loss.backward()
        return loss

    for _ in range(STEPS):
        if closure:
            optimizer.step(run)
        else:
            run()
            optimizer.step()
        plain.zero_grad()
        F.cross_entropy(two(X), y).backward()
        with torch.no_grad():
            first = two[0].weight
            first.sub_(0.02 / (N * widths**2) * (first - centre[0].weight))
            two[2].weight.sub_(0.02 * DECAY * (two[2].weight - 0.2))
            two[2].bias.sub_(0.02 * DECAY * two[2].bias)
        plain.step()
    assert largest_gap([p.detach() for p in one.parameters()], [p.detach() for p in two.parameters()]) < 1e-12


@pytest.mark.slow
def test_decoupled_sgd_reports_the_map_that_it_is():
    """Heavy ball with decoupled decay is the MAP of precision λ(1 − momentum)/(1 − dampening)/s: here a tenth."""
    torch.manual_seed(0)
    model = nn.Linear(6, 3).double()
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.3)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    handle = br.attach(optimizer, prior, num_data=N, route="decoupled")
    X, y = data()
    for _ in range(8000):
        optimizer.zero_grad()
        F.cross_entropy(model(X), y).backward()
        optimizer.step()
    precision = 1.0 / 0.3**2 * 0.1
    objective = F.cross_entropy(model(X), y) + 0.5 / N * precision * sum((p**2).sum() for p in model.parameters())
    # lr·λ is not small against the step: the fixed point is off by that relative amount and no more.
    for slope, weight in zip(torch.autograd.grad(objective, list(model.parameters())), model.parameters(), strict=True):
        assert slope.abs().max() < 0.02 * DECAY * weight.abs().max() * precision / N
    assert f"a prior precision of {precision:.3g} on weight" in str(handle.describe())


def test_decoupled_adam_reports_the_precision_in_its_state():
    model = net()
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.3)})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    handle = br.attach(optimizer, prior, num_data=N, route="decoupled")
    assert "describe again after a step" in str(handle.describe())
    trained(model, optimizer, steps=7)
    state = optimizer.state[model[0].weight]
    expected = DECAY * N * ((state["exp_avg_sq"] / (1 - 0.999**7)).sqrt() + 1e-8)
    low, middle, high = torch.quantile(expected.flatten(), torch.tensor([0.05, 0.5, 0.95]).double()).tolist()
    assert f"a prior precision of {middle:.3g} on 0.weight (5% to 95%: {low:.3g} to {high:.3g})" in str(
        handle.describe()
    )


# -- choosing and refusing ------------------------------------------------------------------------------------


def test_a_route_per_parameter():
    model = net()
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.3)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = br.attach(optimizer, prior, num_data=N, route={br.biases: "decoupled", "0.*": "proximal"})
    found = {
        name: row["route"] for row in handle.describe().to_dict()["rows"] for name in row["parameters"].split(", ")
    }
    assert found == {"0.weight": "proximal", "0.bias": "decoupled", "2.weight": "gradient", "2.bias": "decoupled"}


@pytest.mark.parametrize(
    ("rules", "route", "make", "message"),
    [
        ({"*": br.Laplace(0.3)}, "native", torch.optim.SGD, r"Laplace, scale 0\.3 .* is no isotropic Gaussian"),
        ({"*": br.Gaussian(torch.ones(1))}, "native", torch.optim.SGD, "is no isotropic Gaussian"),
        ({"*": br.Gaussian(0.3)}, "native", torch.optim.Adafactor, "weight_decay is not the gradient of a Gaussian"),
        ({"0.*": br.Gaussian(0.3), "*": br.Gaussian(0.2)}, "native", torch.optim.SGD, "its param group holds other"),
        ({"*": br.Laplace(0.3)}, "gradient", torch.optim.SGD, "has a kink or a boundary, where a subgradient"),
        ({"*": br.Laplace(0.3)}, "loss", torch.optim.SGD, "which autograd steps over"),
        ({"*": br.Laplace(0.3)}, "decoupled", torch.optim.SGD, "for Gaussians only, and this is Laplace"),
        ({"*": br.Gaussian(0.3)}, "decoupled", torch.optim.LBFGS, "LBFGS searches along lines"),
        ({"*": br.FromDistribution(torch.distributions.StudentT(3.0))}, "proximal", torch.optim.SGD,
         "has no proximal operator"),
    ],
)  # fmt: skip
def test_a_route_that_is_not_exact_is_refused(rules, route, make, message):
    model = net()
    prior = br.ModelPrior(model, rules)
    with pytest.raises(br.UnsupportedError, match=message):
        br.attach(make(model.parameters(), lr=0.1), prior, num_data=N, route=route)


def test_wrong_route_names_and_globs():
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(br.InvalidArgumentError, match=r"got 'gradients'; did you mean 'gradient'"):
        br.attach(optimizer, prior, num_data=N, route="gradients")
    with pytest.raises(br.PatternError, match=r"route 'O\.\*': expected a glob that matches a parameter"):
        br.attach(optimizer, prior, num_data=N, route={"O.*": "gradient"})
    with pytest.raises(br.UnsupportedError, match=r"with before_clip=True decay would act after the clip"):
        br.attach(optimizer, prior, num_data=N, route={"*.weight": "native"}, before_clip=True)


# -- several optimizers, and the log ----------------------------------------------------------------------------


def test_two_optimizers_with_one_prior():
    one, two = net(), net()
    rules = {"0.*": br.Gaussian(0.3, loc=0.1), "*": br.Gaussian(0.4)}
    prior, reference = br.ModelPrior(one, rules), br.ModelPrior(two, rules)

    def optimizers(model):
        return [
            torch.optim.SGD(model[0].parameters(), lr=0.05, momentum=0.9),
            torch.optim.AdamW(model[2].parameters(), lr=0.02, weight_decay=0.0),
        ]

    first, second = optimizers(one), optimizers(two)
    handle = br.attach(first, prior, num_data=N)
    assert [row[2] for row in handle.describe().rows] == ["native + centre", "native" if ADAMW_HAS_FLAG else "gradient"]

    class Both:
        def __init__(self, several):
            self.several = several

        def zero_grad(self):
            for o in self.several:
                o.zero_grad()

        def step(self):
            for o in self.several:
                o.step()

    expected = trained(two, Both(second), penalty=lambda: reference.penalty() / N)
    assert largest_gap(trained(one, Both(first)), expected) < 1e-12
    handle.remove()
    br.attach(first, prior, num_data=N)


def test_the_log_is_the_prior_in_parts():
    model, prior, _, handle = attached({
        "0.weight": br.Laplace(0.1), "0.bias": br.Flat(), "2.weight": br.Gaussian(0.5), "*": br.Gaussian(0.5, loc=1.0),
    })  # fmt: skip
    terms = handle.log()
    assert terms["log_prior"] == pytest.approx(prior.log_prob().item(), rel=1e-12)
    assert terms["log_prior"] == terms["log_prior_constant"] - terms["penalty"]
    assert terms["penalty_in_loss"] == pytest.approx(terms["penalty"] / N)
    assert terms["loss_scale"] == 1 / N
    groups = {g["parameters"][0]: g for g in terms["groups"]}
    for key in ("log_prior", "log_prior_constant", "penalty", "penalty_in_loss"):
        assert sum(g[key] for g in groups.values()) == pytest.approx(terms[key], rel=1e-12)
    assert groups["0.weight"]["penalty"] == pytest.approx(model[0].weight.abs().sum().item() / 0.1)
    assert groups["0.weight"]["weight_decay"] is None
    assert groups["0.bias"]["weight_decay"] == 0.0
    assert groups["2.weight"]["weight_decay"] == groups["2.bias"]["weight_decay"] == pytest.approx(4 / N)
    assert groups["2.bias"]["log_prior_constant"] == pytest.approx(-3 * math.log(0.5 * math.sqrt(2 * math.pi)))
    model[0].weight.requires_grad_(False)
    assert handle.log()["penalty"] == pytest.approx(terms["penalty"] - groups["0.weight"]["penalty"])


# -- half precision ---------------------------------------------------------------------------------------------


def half_precision_step(dtype, *, lr, scale=0.3, optimizer_class=torch.optim.SGD, route="auto", warm_up=(), **settings):
    model = nn.Linear(4, 2).to(dtype)
    prior = br.ModelPrior(model, {"*": br.Gaussian(scale)})
    settings = {"weight_decay": 0.0, **settings} if optimizer_class is torch.optim.AdamW else settings
    optimizer = optimizer_class(model.parameters(), lr=lr, **settings)
    br.attach(optimizer, prior, num_data=1000, route=route)
    for rate in (*warm_up, lr, lr):
        optimizer.param_groups[0]["lr"] = rate
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
    return model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("route", ["auto", "gradient", "decoupled"])
def test_a_pull_lost_to_rounding_warns_once(dtype, route):
    # lr·λ = 1e-3 / (1000 · 0.09) = 1.1e-5, far below what either dtype can hold.
    with pytest.warns(br.RoundingWarning, match=r"weight: the prior moves a weight by lr·λ = 1\.1e-05") as seen:
        half_precision_step(dtype, lr=1e-3, route=route)
    assert len(seen) == 1


def test_decoupled_in_float32_can_be_lost_too():
    # lr·λ = 1e-6 · 0.011 = 1.1e-8 < 2⁻²⁵
    with pytest.warns(br.RoundingWarning, match="less than torch.float32 can hold"):
        half_precision_step(torch.float32, lr=1e-6, optimizer_class=torch.optim.AdamW, route="decoupled")


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": torch.float32, "lr": 1e-3},
        {"dtype": torch.bfloat16, "lr": 0.5},  # lr·λ = 5.6e-3
        {"dtype": torch.bfloat16, "lr": 0.05, "momentum": 0.9},  # the same, by momentum
        # Warm-ups from 0, or from a rate at which the pull would be lost, are waited for.
        {"dtype": torch.bfloat16, "lr": 0.5, "warm_up": (0.0, 1e-4, 1e-3, 0.1)},
        # Adam rescales the pull with the gradient: lr·λ says nothing.
        {"dtype": torch.bfloat16, "lr": 1e-3, "optimizer_class": torch.optim.AdamW, "route": "gradient"},
    ],
)
def test_no_warning_where_the_pull_is_held(settings):
    half_precision_step(**settings)


@pytest.mark.parametrize("route", ["auto", "gradient", "proximal", "decoupled"])
def test_half_precision_weights_move_as_the_exact_ones_do_up_to_rounding(route):
    def train(dtype):
        torch.manual_seed(0)
        model = nn.Linear(6, 3).double()
        with torch.no_grad():
            model.weight.copy_(model.weight.bfloat16())
        centre = model.weight.detach() + 0.25
        model = model.to(dtype)
        prior = br.ModelPrior(model, {"weight": br.Gaussian(0.1, loc=centre), "*": br.Gaussian(0.1)})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        br.attach(optimizer, prior, num_data=100, route=route)
        for _ in range(4):
            for p in model.parameters():
                p.grad = torch.zeros_like(p)
            optimizer.step()
        return model.weight.detach().double()

    exact = train(torch.float64)
    for dtype in (torch.bfloat16, torch.float16):
        assert (train(dtype) - exact).abs().max() < 4 * torch.finfo(dtype).eps * exact.abs().max()
