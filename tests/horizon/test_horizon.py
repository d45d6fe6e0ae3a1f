"""What decay leaves of the start, against runs that are simulated step by step; schedules; the angle of a step."""

from __future__ import annotations

import importlib.util
import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import bayesreg as br
from bayesreg.horizon.rates import rates_over, shape_by_name
from bayesreg.horizon.schedules import named_schedule
from bayesreg.horizon.turning import turning
from tests.third_party.stand_in import put_in_place
from tests.versions import ADAM_HAS_FLAG

T = 400


def wsd(optimizer):
    return lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / 40, max(0.0, (T - t) / 80)))


SCHEDULES = {
    "constant": None,
    "linear": "linear",
    "cosine": "cosine",
    "wsd": wsd,
    "cycle": partial(lr_scheduler.OneCycleLR, max_lr=[0.03, 0.3], total_steps=T),
    "steps": partial(lr_scheduler.MultiStepLR, milestones=[100, 300], gamma=0.3),
}


def scheduler_of(schedule, optimizer):
    if schedule is None:
        return lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
    return named_schedule(optimizer, schedule, None, T) if isinstance(schedule, str) else schedule(optimizer)


def left_over(optimizer, scheduler):
    """Run with gradients of 0, where all that is left is what decay leaves; and with others, from two starts."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    total = [0.0 for _ in parameters]
    for _ in range(T):
        for at, group in enumerate(optimizer.param_groups):
            total[at] += float(group["lr"]) * group["weight_decay"]
        for p in parameters:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        scheduler.step()
    return [float(p.detach()) for p in parameters], total


def two_groups(make):
    first, second = (nn.Parameter(torch.ones((), dtype=torch.float64)) for _ in range(2))
    model = nn.Module()
    model.first, model.second = first, second
    groups = [
        {"params": [first], "lr": 0.01, "weight_decay": 0.1},
        {"params": [second], "lr": 0.1, "weight_decay": 0.3},
    ]
    return model, make(groups)


MAKERS = {
    "AdamW": torch.optim.AdamW,
    "AdamW, fused": partial(torch.optim.AdamW, fused=True),
    "Adam, decoupled": partial(torch.optim.Adam, decoupled_weight_decay=True),
    "SGD": torch.optim.SGD,
    "SGD, momentum": partial(torch.optim.SGD, momentum=0.9),
    "SGD, dampening": partial(torch.optim.SGD, momentum=0.8, dampening=0.3),
    "SGD, nesterov": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_left_is_what_a_run_leaves(kind, schedule):
    if "decoupled" in kind and not ADAM_HAS_FLAG:
        pytest.skip("Adam of this torch has no decoupled_weight_decay")
    model, optimizer = two_groups(MAKERS[kind])
    found = br.explain(optimizer, model, num_data=1000, steps=T, schedule=SCHEDULES[schedule])
    # One cycle moves momentum too, on the optimizer itself.
    if schedule == "cycle" and "momentum" in kind:
        pytest.skip("the momentum of a cycle is not followed")
    _, mine = two_groups(MAKERS[kind])
    scheduler = scheduler_of(SCHEDULES[schedule], mine)
    if schedule == "cycle" and "momentum" in mine.defaults:
        pytest.skip("the momentum of a cycle is not followed")
    left, total = left_over(mine, scheduler)
    gain = 1.0
    if kind.startswith("SGD,"):
        gain = (1.0 - mine.defaults["dampening"]) / (1.0 - mine.defaults["momentum"])
    for group, expected, decays in zip(found.groups, left, total, strict=True):
        assert group.horizon.decay_sum == pytest.approx(gain * decays, rel=1e-12)
        assert group.horizon.share_left == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "wsd"])
@pytest.mark.parametrize("name", ["adamw", "adamc", "nadamw", "lion"])
def test_what_is_left_of_timms(name, schedule):
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    put_in_place()
    from timm.optim import create_optimizer_v2

    def make(groups):
        made = create_optimizer_v2(groups[0]["params"], opt=name, lr=0.05, weight_decay=0.0)
        made.param_groups[0]["weight_decay"] = 0.2  # its factory would leave a scalar without
        return made

    model, optimizer = two_groups(make)
    found = br.explain(optimizer, model, num_data=1000, steps=T, schedule=SCHEDULES[schedule])
    _, mine = two_groups(make)
    (left,), (total,) = left_over(mine, scheduler_of(SCHEDULES[schedule], mine))
    (group,) = found.groups
    assert group.decay == "decoupled"
    if name != "adamc":  # by the square of the rate
        assert group.horizon.decay_sum == pytest.approx(total, rel=1e-12)
    assert group.horizon.share_left == pytest.approx(left, rel=1e-6)


@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")  # up to torch 2.6
def test_the_share_is_what_two_runs_from_two_starts_differ_by():
    """With gradients that do not depend on the weights the start is all that is different between two runs."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(T, 5, generator=generator, dtype=torch.float64)

    def run(start):
        weight = nn.Parameter(torch.full((5,), start, dtype=torch.float64))
        optimizer = torch.optim.AdamW([weight], lr=0.01, weight_decay=0.2)
        scheduler = named_schedule(optimizer, "cosine", 20, T)
        for row in noise:
            weight.grad = row.clone()
            optimizer.step()
            scheduler.step()
        return weight.detach()

    model = nn.Linear(5, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.2)
    horizon = br.explain(optimizer, model, num_data=10, steps=T, schedule="cosine", warmup=20).groups[0].horizon
    assert torch.allclose(run(1.0) - run(0.0), torch.tensor(horizon.share_left, dtype=torch.float64), rtol=1e-9)
    assert math.exp(-horizon.decay_sum) == pytest.approx(horizon.share_left, rel=2e-3)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [None, 7, 0.25])
def test_a_name_means_what_it_means_to_the_trainer(name, warmup):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = named_schedule(optimizer, name, warmup, 100), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert shape_by_name(name, 100, warmup) == pytest.approx(rates, abs=1e-12)


def test_a_trial_of_a_schedule_leaves_the_optimizer_alone():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    before, weights = {**optimizer.param_groups[0]}, model.weight.detach().clone()
    br.explain(
        optimizer, model, num_data=10, steps=50, schedule=partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=50)
    )
    assert optimizer.param_groups[0] == before
    assert torch.equal(model.weight, weights)
    assert not optimizer.state


def test_rates_may_be_given_step_by_step():
    model, optimizer = two_groups(torch.optim.AdamW)
    one = np.linspace(0.1, 0.0, T)
    both = np.stack([0.1 * one, one], axis=1)
    for schedule in (one, both, torch.from_numpy(one), one.tolist()):
        groups = br.explain(optimizer, model, num_data=10, schedule=schedule).groups
        assert [g.horizon.steps for g in groups] == [T, T]
        assert groups[0].horizon.decay_sum == pytest.approx(0.1 * 0.1 * one.sum(), rel=1e-12)
        assert groups[1].horizon.decay_sum == pytest.approx(0.3 * one.sum(), rel=1e-12)


def test_how_far_the_run_is_and_how_long_it_remembers():
    model = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(30):
        model(torch.randn(4, 3)).sum().backward()
        optimizer.step()
    found = br.explain(optimizer, model, num_data=800, batch_size=4, epochs=10)
    horizon = found.groups[0].horizon
    assert horizon.steps == 2000
    assert horizon.epochs == 10
    assert horizon.done == 30
    assert horizon.left_now == pytest.approx(0.999**30, rel=1e-12)
    assert horizon.memory == pytest.approx(1000.0)
    assert horizon.memory_epochs == pytest.approx(5.0)
    assert horizon.memory_share == pytest.approx(0.5)
    assert horizon.to_dict()["memory_share"] == horizon.memory_share
    assert found.to_dict()["groups"][0]["horizon"]["regime"] == "between"
    # A last, smaller batch takes a step too.
    assert br.explain(optimizer, model, num_data=801, batch_size=4, epochs=1).groups[0].horizon.steps == 201


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"steps": 10, "epochs": 1}, "steps: pass steps or epochs, not both"),
        ({"epochs": 1}, "epochs: needs batch_size="),
        ({"epochs": 1, "batch_size": 2, "num_data": br.LossScale.sum()}, "needs num_data= as a number"),
        ({"batch_size": 2}, "batch_size: plays no part without the length of the run"),
        ({"schedule": "cosine"}, "schedule: plays no part without the length"),
        ({"steps": 0}, "steps: expected an integer >= 1"),
        ({"steps": 10, "schedule": "cosin"}, "schedule: expected 'constant', 'linear', 'cosine' or a factory"),
        ({"steps": 10, "schedule": [0.1] * 9}, "schedule: expected 10 learning rates"),
        ({"steps": 2, "schedule": [0.1, -0.1]}, "expected learning rates >= 0"),
        ({"steps": 2, "schedule": [0.1, math.nan]}, "expected learning rates >= 0"),
        ({"steps": 2, "schedule": lambda o: o}, "got one that returns SGD|got one that returns"),
        ({"steps": 2, "schedule": lambda: None}, "schedule: expected a factory"),
        ({"steps": 2, "schedule": lr_scheduler.ReduceLROnPlateau}, "goes by what a run measures"),
        ({"steps": 10, "warmup": 10}, "warmup: expected fewer steps than the 10"),
        ({"steps": 10, "warmup": 2, "schedule": [0.1] * 10}, "warmup: is for the schedules by name"),
    ],
)
def test_what_does_not_fit_is_refused(given, match):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(br.InvalidArgumentError, match=match):
        br.explain(optimizer, model, **{"num_data": 100, **given})


def test_what_decay_is_not_that_of_a_start_has_no_horizon():
    model = nn.Linear(2, 1)
    for optimizer in (
        torch.optim.Adam(model.parameters(), weight_decay=0.1),
        torch.optim.ASGD(model.parameters(), weight_decay=0.1),
        torch.optim.AdamW(model.parameters(), weight_decay=0.0),
    ):
        assert br.explain(optimizer, model, num_data=10, steps=100).groups[0].horizon is None


def test_an_attached_prior_has_one_where_its_pull_does():
    model = nn.Linear(2, 1, bias=False)
    prior = br.ModelPrior(model, br.Gaussian(1.0, loc=0.5))
    steps = {"steps": 200, "num_data": 100}
    for make, route, expected in (
        (partial(torch.optim.SGD, lr=0.1), None, (1.0 - 0.1 * 0.01) ** 200),
        (partial(torch.optim.Adam, lr=0.1), "decoupled", (1.0 - 0.1 * 0.01) ** 200),
        (partial(torch.optim.Adam, lr=0.1), None, None),
    ):
        optimizer = make(prior.param_groups())
        handle = br.attach(optimizer, prior, num_data=100, **({} if route is None else {"route": route}))
        found = br.explain(optimizer, model, **steps).groups[0].horizon
        assert (found is None) == (expected is None)
        if expected is not None:
            assert found.share_left == pytest.approx(expected, rel=1e-9)
        handle.remove()


# -- what is said of it ------------------------------------------------------------------------------------------------


def said(optimizer, model, **given):
    return {f.identifier: f for f in br.explain(optimizer, model, **given).findings}


@pytest.mark.parametrize(
    ("rate", "decay", "steps", "identifier", "words"),
    [
        (5e-5, 0.01, 1000, "decay-off", r"leaves 99\.95 % of the start \(k = 0\.0005; it remembers 2,000,000 steps"),
        (3e-4, 0.1, 50_000, "start-half-forgotten", r"leaves 22\.3 % of the start \(k = 1\.5"),
        (6e-4, 0.1, 600_000, "start-forgotten", r"leaves 2e-14 % of the start \(k = 36"),
    ],
)  # fmt: skip
def test_a_regime_is_a_finding(rate, decay, steps, identifier, words):
    model = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    found = said(optimizer, model, num_data=1000, steps=steps)
    assert re.search(words, found[identifier].text)
    assert {"decay-off", "start-half-forgotten", "start-forgotten"} & found.keys() == {identifier}
    assert found[identifier].severity == ("warning" if identifier == "decay-off" else "note")
    coupled = torch.optim.SGD(model.parameters(), lr=rate, weight_decay=decay)
    assert said(coupled, model, num_data=1000, steps=steps)[identifier].severity == "note"


def test_the_suggested_gaussian_says_how_near_rest_it_was_read():
    model = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            (model(torch.randn(8, 3)) - 1.0).square().mean().backward()
            optimizer.step()

    steps(10)
    young = said(optimizer, model, num_data=1000, steps=100_000)["decoupled-decay"]
    assert "after 10 of 100,000 steps 99.97 % of the start is left, so it says nothing yet" in young.remedy
    alone = said(optimizer, model, num_data=1000)["decoupled-decay"]
    assert "after 10 steps at 0.0003 99.97 % of the start is left, so it says nothing yet" in alone.remedy
    optimizer.param_groups[0]["lr"] = 0.3
    steps(150)
    assert "of the start is left" not in said(optimizer, model, num_data=1000)["decoupled-decay"].remedy


# -- scale-free layers, bounds -----------------------------------------------------------------------------------------


def noise_on_directions(make, steps, width=128):
    """Noise across the weights, of size 1/‖w‖, as behind a normalisation: the mean square of angles and of weights."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(0.1 * torch.randn(24, width, generator=generator, dtype=torch.float64))
    optimizer, angles, squares = make([weight]), [], []
    for step in range(steps):
        with torch.no_grad():
            norm = weight.norm(dim=1, keepdim=True)
            unit = weight / norm
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.grad = (noise - (noise * unit).sum(1, keepdim=True) * unit) / norm
        before = weight.detach().clone()
        optimizer.step()
        if step >= steps // 2:
            after = weight.detach()
            across = after / after.norm(dim=1, keepdim=True) - before / before.norm(dim=1, keepdim=True)
            angles.append(2.0 * torch.asin(across.norm(dim=1) / 2.0))
            squares.append(after.square().mean())
    return math.sqrt(torch.stack(angles).square().mean()), math.sqrt(torch.stack(squares).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "kind", "rate", "decay", "settings"),
    [
        (partial(torch.optim.AdamW, betas=(b, 0.99)), "decoupled", 1e-2, 0.1, {"betas": (b, 0.99)})
        for b in (0.5, 0.9)
    ]
    + [(partial(torch.optim.SGD, momentum=m), "coupled", 0.1, 1e-2, {"momentum": m}) for m in (0.0, 0.9)],
    ids=["AdamW .5", "AdamW .9", "SGD", "SGD momentum"],
)  # fmt: skip
def test_the_angle_of_a_step_is_that_of_simulated_noise(make, kind, rate, decay, settings):
    cls = make.func
    found = turning(cls, kind, rate, decay, settings)
    gain = 1.0 / (1.0 - settings.get("momentum", 0.0))
    angle, rms = noise_on_directions(partial(make, lr=rate, weight_decay=decay), int(6.0 / (rate * decay * gain)))
    assert angle == pytest.approx(found.angle, rel=0.05)
    if found.rms is not None:
        assert rms == pytest.approx(found.rms, rel=0.05)


def test_where_the_angle_is_not_known_none_is_said():
    known = {"betas": (0.9, 0.999)}
    assert turning(torch.optim.AdamW, "decoupled", 1e-3, 0.1, {**known, "amsgrad": True}) is None
    assert turning(torch.optim.Adam, "coupled", 1e-3, 0.1, known) is None
    assert turning(torch.optim.SGD, "coupled", 0.1, 0.1, {"momentum": 0.9, "nesterov": True}) is None
    assert turning(torch.optim.SGD, "coupled", 0.1, 0.0, {}) is None
    assert turning(None, "decoupled", 0.1, 0.1, known) is None


def test_a_norm_hears_of_the_angle():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    text = said(optimizer, model, num_data=10)["scale-invariant"].text
    assert "their rms goes to 0.224 and a step turns them by 0.01 radians" in text


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_decay_under_muon_is_a_bound():
    model = nn.Linear(4, 8, bias=False)
    optimizer = torch.optim.Muon(model.parameters(), lr=0.02, weight_decay=0.5)
    with torch.no_grad():
        # As many rows as twice the columns: updates are scaled by the root of 2.
        model.weight.copy_(2.0 * math.sqrt(2.0) * torch.eye(8, 4) * torch.tensor([1.0, 0.95, 0.8, 0.0]))
    explanation = br.explain(optimizer, model, num_data=10)
    assert explanation.groups[0].prior == "no Gaussian; bounds singular values by 2"
    bound = next(f for f in explanation.findings if f.identifier == "bound")
    assert "50 % of its singular values are within a tenth of that" in bound.text


def test_a_learning_rate_of_a_run_of_many_groups_is_its_own():
    found = rates_over("linear", [1.0, 0.0, 2.0], 4)
    assert [rates[0] for rates in found] == [1.0, 0.0, 2.0]
    assert found[2].tolist() == [2.0, 1.5, 1.0, 0.5]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["AdamW", "SGD", "SGD, momentum"])
def test_the_angle_of_a_step_is_that_of_a_batch_normed_network(kind):
    """On labels that are noise, each step of which is drawn anew."""
    make, how, rate, decay, settings = {
        "AdamW": (torch.optim.AdamW, "decoupled", 3e-3, 0.3, {"betas": (0.9, 0.999)}),
        "SGD": (torch.optim.SGD, "coupled", 0.1, 5e-3, {}),
        "SGD, momentum": (torch.optim.SGD, "coupled", 0.1, 5e-3, {"momentum": 0.9}),
    }[kind]
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    inputs = torch.randn(4096, 32, generator=generator)
    network = nn.Sequential(
        nn.Linear(32, 64, bias=False), nn.BatchNorm1d(64, affine=False), nn.ReLU(), nn.Linear(64, 10)
    )
    weight = network[0].weight
    groups = [{"params": [weight]}, {"params": list(network[3].parameters()), "weight_decay": 0.0}]
    optimizer = make(groups, lr=rate, weight_decay=decay, **settings)
    steps = int(8.0 / (rate * decay) * (1.0 - settings.get("momentum", 0.0)))
    angles, squares = [], []
    for step in range(steps):
        rows = torch.randint(4096, (32,), generator=generator)
        labels = torch.randint(10, (32,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs[rows]), labels).backward()
        before = weight.detach().clone()
        optimizer.step()
        if step >= steps // 2:
            after = weight.detach()
            across = after / after.norm(dim=1, keepdim=True) - before / before.norm(dim=1, keepdim=True)
            angles.append((2.0 * torch.asin(across.norm(dim=1) / 2.0)).square().mean())
            squares.append(after.square().mean())
    found = turning(make, how, rate, decay, settings)
    assert math.sqrt(torch.stack(angles).mean()) == pytest.approx(found.angle, rel=0.05)
    if found.rms is not None:
        assert math.sqrt(torch.stack(squares).mean()) == pytest.approx(found.rms, rel=0.05)
