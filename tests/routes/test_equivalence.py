"""Smooth priors: every optimizer, setting and loop ends where the penalty in the loss does; native is bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from bayesreg.optimizers import decay_rule
from tests.optimizers.test_decay import ALL
from tests.routes.common import PRIORS, STEPS, VARIANTS, N, data, largest_gap, net, optimizer_of, trained
from tests.sampling import cells, slow
from tests.versions import muon

CELLS = [(name, settings) for name, variants in VARIANTS.items() for settings in variants]
LABELS = ["-".join([name, *(f"{k}={v}" for k, v in settings.items())]) for name, settings in CELLS]

# Adafactor divides by the size of its update, centred RMSprop by a difference that nearly cancels: with a clip they
# turn an error of 1e-16 into 1e-7. There, the yardstick is the loop by hand against itself, started one ulp away.
SENSITIVE = ("Adafactor", "RMSprop")


def run(name, settings, prior_name, loop, *, by_bayesreg, nudge=None):
    """Train with the prior attached, or with its penalty in the loss of the same loop."""
    model = net()
    if nudge is not None:
        coin = torch.Generator().manual_seed(nudge)
        with torch.no_grad():
            for p in model.parameters():
                up = torch.nextafter(p, torch.full_like(p, 9.0))
                p.copy_(torch.where(torch.rand(p.shape, generator=coin) < 0.5, up, p))
    prior = br.ModelPrior(model, PRIORS[prior_name]())
    optimizer = optimizer_of(name, prior.param_groups() if by_bayesreg else model.parameters(), **settings)
    handle = br.attach(optimizer, prior, num_data=N, before_clip=loop == "clip") if by_bayesreg else None
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=loop == "scaler")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS) if loop == "scheduler" else None
    pieces = 3 if loop == "accumulate" else 1
    X, y = data()
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=loop != "plain")
        for part in range(pieces):
            loss = F.cross_entropy(model(X[part::pieces]), y[part::pieces]) / pieces
            if handle is None and part == 0:
                loss = loss + prior.penalty() / N
            scaler.scale(loss).backward()
        if loop == "clip":
            if handle is not None:
                handle.apply_()
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        scaler.step(optimizer)
        scaler.update()
        if schedule is not None:
            schedule.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize(
    ("name", "settings", "prior_name", "loop"),
    cells(
        dict(zip(LABELS, CELLS, strict=True)),
        ["isotropic", "centred", "diagonal"],
        ["plain", "accumulate", "clip", "scaler", "scheduler"],
        # Each optimizer and setting twice, with another prior and in another loop.
        keep=lambda cell, prior, loop: (
            (cell % 3, cell % 5) == (prior, loop) or ((cell + 1) % 3, (cell + 2) % 5) == (prior, loop)
        ),
    ),
)
def test_every_optimizer_setting_and_loop(name, settings, prior_name, loop):
    """Invariant 2: after 50 steps in float64 the weights are those of the loop with the penalty in the loss."""
    got = run(name, settings, prior_name, loop, by_bayesreg=True)
    expected = run(name, settings, prior_name, loop, by_bayesreg=False)
    gap = largest_gap(got, expected)
    if gap < 1e-12:
        return
    assert name in SENSITIVE
    nudged = [run(name, settings, prior_name, loop, by_bayesreg=False, nudge=seed) for seed in range(4)]
    assert gap < 10 * max(largest_gap(other, expected) for other in nudged)


@pytest.mark.parametrize(
    ("name", "grouped", "prior_name"),
    cells(VARIANTS.keys(), [True, False], ["student-t", "mixed"], keep=lambda i, j, k: i % 4 == 2 * j + k),
)
def test_further_priors_and_one_mixed_group(name, prior_name, grouped):
    one, two = net(), net()
    prior, reference = br.ModelPrior(one, PRIORS[prior_name]()), br.ModelPrior(two, PRIORS[prior_name]())
    optimizer = optimizer_of(name, prior.param_groups() if grouped else one.parameters())
    br.attach(optimizer, prior, num_data=N)
    expected = trained(two, optimizer_of(name, two.parameters()), penalty=lambda: reference.penalty() / N)
    assert largest_gap(trained(one, optimizer), expected) < 1e-12
    # The prior moved the weights: agreement is not that of two runs without it.
    bare = net()
    assert largest_gap(expected, trained(bare, optimizer_of(name, bare.parameters()))) > 1e-4


@pytest.mark.parametrize("prior_name", ["isotropic", "centred", "diagonal"])
def test_one_plain_group_is_exact_untouched_and_told_of_the_free_way(prior_name):
    one, two = net(), net()
    prior, reference = br.ModelPrior(one, PRIORS[prior_name]()), br.ModelPrior(two, PRIORS[prior_name]())
    optimizer = torch.optim.SGD(one.parameters(), lr=0.05, momentum=0.9)
    before = [len(group["params"]) for group in optimizer.param_groups]
    handle = br.attach(optimizer, prior, num_data=N)
    assert "prior.param_groups() would do it for free" in str(handle.describe())
    plain = torch.optim.SGD(two.parameters(), lr=0.05, momentum=0.9)
    expected = trained(two, plain, penalty=lambda: reference.penalty() / N)
    assert largest_gap(trained(one, optimizer), expected) < 1e-12
    assert [len(group["params"]) for group in optimizer.param_groups] == before
    # And the other way of building it has nothing to say.
    model = net()
    prior = br.ModelPrior(model, PRIORS[prior_name]())
    grouped = br.attach(torch.optim.SGD(prior.param_groups(), lr=0.05), prior, num_data=N)
    assert "would do it for free" not in str(grouped.describe())


@muon
def test_muon_sees_the_gradient_of_the_objective_beside_another_optimizer():
    """Muon takes matrices only and rounds to bfloat16 inside, so it is its input that is compared."""
    seen = {}

    def step(by_bayesreg):
        model = net()
        prior = br.ModelPrior(model, {"*": br.Gaussian.centered_at(net(seed=9), 0.3)})
        matrices = [p for p in model.parameters() if p.ndim == 2]
        rest = [p for p in model.parameters() if p.ndim == 1]
        muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.0)
        adam = torch.optim.AdamW(rest, lr=0.02, weight_decay=0.0)
        if by_bayesreg:
            handle = br.attach([muon, adam], prior, num_data=N)
            assert {row[2] for row in handle.describe().rows} == {"gradient"}
        X, y = data()
        loss = F.cross_entropy(model(X), y)
        (loss if by_bayesreg else loss + prior.penalty() / N).backward()
        muon.register_step_pre_hook(lambda *_: seen.update({by_bayesreg: [p.grad.clone() for p in matrices]}))
        muon.step()
        adam.step()
        return [p.detach() for p in rest]

    with_bayesreg, by_hand = step(True), step(False)
    assert largest_gap(seen[True], seen[False]) < 1e-15
    assert largest_gap(with_bayesreg, by_hand) < 1e-12


@pytest.mark.parametrize("name", [n for n in ALL if decay_rule(n).kind == "coupled"])
@pytest.mark.parametrize("dtype", [torch.float32, slow(torch.float64)])
def test_native_route_is_torchs_weight_decay_bit_for_bit(name, dtype):
    for settings in VARIANTS[name]:
        if settings.get("decoupled_weight_decay"):
            continue
        one, two = net().to(dtype), net().to(dtype)
        prior = br.ModelPrior(one, br.Gaussian(0.3))
        optimizer = optimizer_of(name, prior.param_groups(), **settings)
        handle = br.attach(optimizer, prior, num_data=N)
        assert {row[2] for row in handle.describe().rows} == {"native", "none"}
        decay = br.Gaussian(0.3).weight_decay(N)
        weights = [p for p in two.parameters() if p.ndim > 1]
        rest = [p for p in two.parameters() if p.ndim == 1]
        groups = [{"params": weights, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
        plain = optimizer_of(name, groups, **settings)
        X, y = data()
        for model, opt in ((one, optimizer), (two, plain)):
            for _ in range(STEPS):
                opt.zero_grad()
                F.cross_entropy(model(X.to(dtype)), y).backward()
                opt.step()
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True)), settings


def test_an_optimizer_whose_decay_cannot_be_coupled_takes_the_gradient_route():
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    handle = br.attach(optimizer_of("Adafactor", prior.param_groups()), prior, num_data=N)
    assert {row[2] for row in handle.describe().rows} == {"gradient", "none"}


@pytest.mark.parametrize("name", [n for n in VARIANTS if n != "Rprop"])
def test_maximize_still_shrinks_toward_the_centre(name):
    def train(maximize):
        model = net()
        prior = br.ModelPrior(model, {"0.weight": br.Gaussian(0.3, loc=0.4), "*": br.Gaussian(0.5)})
        optimizer = optimizer_of(name, prior.param_groups(), maximize=maximize)
        br.attach(optimizer, prior, num_data=N)
        X, y = data()
        for _ in range(STEPS):
            optimizer.zero_grad()
            ((-1 if maximize else 1) * F.cross_entropy(model(X), y)).backward()
            optimizer.step()
        return [p.detach() for p in model.parameters()]

    assert largest_gap(train(True), train(False)) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("prior_name", ["isotropic", "centred", "diagonal"])
@pytest.mark.parametrize(
    ("name", "settings"), [("SGD", {"momentum": 0.9}), ("Adam", {}), ("AdamW", {"foreach": True}), ("RMSprop", {})]
)
def test_compiled_steps(name, settings, prior_name):
    """Beside a by-hand loop that is compiled too: compiled Adam itself is 1e-6 away from the eager one."""

    def train(by_bayesreg):
        torch.compiler.reset()
        model = net()
        prior = br.ModelPrior(model, PRIORS[prior_name]())
        optimizer = optimizer_of(name, prior.param_groups(), **settings)
        if by_bayesreg:
            br.attach(optimizer, prior, num_data=N)
        step = torch.compile(optimizer.step)
        X, y = data()
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(X), y)
            (loss if by_bayesreg else loss + prior.penalty() / N).backward()
            step()
        return [p.detach() for p in model.parameters()]

    assert largest_gap(train(True), train(False)) < 1e-12


@pytest.mark.parametrize("keywords", [{"fused": True}, {"fused": False}])
def test_fused_optimizers_under_a_gradient_scaler(keywords):
    """float32, with a step in the middle that overflows and is skipped."""

    def train(scaler):
        model = net().float()
        rules = {"0.weight": br.Gaussian(0.3, loc=0.4), "2.weight": br.Gaussian(0.2), "*": br.Flat()}
        prior = br.ModelPrior(model, rules)
        optimizer = torch.optim.SGD(prior.param_groups(), lr=0.05, **keywords)
        br.attach(optimizer, prior, num_data=N)
        X, y = data()
        for step in range(11):
            optimizer.zero_grad()
            broken = step == 4
            loss = F.cross_entropy(model(X.float()), y) * (float("inf") if broken else 1.0)
            if scaler is None:
                if not broken:
                    loss.backward()
                    optimizer.step()
                continue
            before = copy.deepcopy(model.state_dict())
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            if broken:
                assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        return [p.detach() for p in model.parameters()]

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    assert largest_gap(train(scaler), train(None)) < 1e-5
    assert scaler.get_scale() == 2.0**11
