"""The table of torch's optimizers, held against what they really do."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.optim import Optimizer

from bayesreg.optimizers import decay_rule, hand_set_decay, unwrap
from bayesreg.optimizers.probe import drifts, probe, rebuild
from tests.versions import HAS_MUON, adam_flag, muon

ALL = sorted(
    name for name, cls in vars(torch.optim).items() if inspect.isclass(cls) and issubclass(cls, Optimizer)
    and cls is not Optimizer
)  # fmt: skip
LAMBDA = 0.3


def run(cls, *, native: float, coupled: float = 0.0, decoupled: float = 0.0, **extra):
    """Twelve steps on random gradients with native, hand-coupled or hand-decoupled decay."""
    g = torch.Generator().manual_seed(0)
    weights = torch.nn.Parameter(torch.randn(3, 3, generator=g, dtype=torch.float64))
    keywords = dict(extra)
    if "weight_decay" in inspect.signature(cls.__init__).parameters:
        keywords["weight_decay"] = native
    optimizer = cls([weights], lr=0.01, **keywords)
    for _ in range(12):
        weights.grad = torch.randn(3, 3, generator=g, dtype=torch.float64) + coupled * weights.detach()
        if decoupled:
            weights.data.mul_(1 - 0.01 * decoupled)
        optimizer.step()
    return weights.detach()


def test_every_optimizer_of_torch_is_in_the_table():
    assert len(ALL) >= 14 + HAS_MUON
    for name in ALL:
        assert decay_rule(getattr(torch.optim, name)).kind != "unknown", name


@pytest.mark.parametrize("name", [n for n in ALL if decay_rule(n).kind == "coupled"])
def test_coupled_decay_is_the_gradient_of_the_penalty(name):
    cls = getattr(torch.optim, name)
    assert torch.allclose(run(cls, native=LAMBDA), run(cls, native=0.0, coupled=LAMBDA), rtol=0, atol=1e-13)
    assert not torch.allclose(run(cls, native=LAMBDA), run(cls, native=0.0), atol=1e-6)


# Adafactor's update depends on the weights before the decay, so the hand-made decay before it differs there.
@pytest.mark.parametrize("name", ["AdamW", pytest.param("Muon", marks=muon)])
def test_decoupled_decay_is_not(name):
    cls = getattr(torch.optim, name)
    assert decay_rule(cls).kind == "decoupled"
    assert torch.allclose(run(cls, native=LAMBDA), run(cls, native=0.0, decoupled=LAMBDA), rtol=0, atol=1e-13)
    assert not torch.allclose(run(cls, native=LAMBDA), run(cls, native=0.0, coupled=LAMBDA), atol=1e-6)


def test_adafactor_is_not_coupled():
    cls = torch.optim.Adafactor
    assert decay_rule(cls).kind == "decoupled"
    assert not torch.allclose(run(cls, native=LAMBDA), run(cls, native=0.0, coupled=LAMBDA), atol=1e-6)


@pytest.mark.parametrize("name", [pytest.param("Adam", marks=adam_flag), "NAdam", "RAdam"])
def test_the_flag_makes_it_decoupled(name):
    cls = getattr(torch.optim, name)
    flag = {"decoupled_weight_decay": True}
    assert torch.allclose(run(cls, native=LAMBDA, **flag), run(cls, native=0.0, decoupled=LAMBDA), atol=1e-13)
    optimizer = cls([torch.nn.Parameter(torch.zeros(2))], **flag)
    assert decay_rule(optimizer).kind == "decoupled"


@pytest.mark.parametrize("name", [n for n in ALL if decay_rule(n).kind == "none"])
def test_the_rest_has_no_weight_decay(name):
    assert "weight_decay" not in inspect.signature(getattr(torch.optim, name).__init__).parameters


def test_lambd_of_asgd_is_a_decay_too():
    cls = torch.optim.ASGD
    shrunk = run(cls, native=0.0, lambd=LAMBDA)
    assert not torch.allclose(shrunk, run(cls, native=0.0, lambd=0.0), atol=1e-6)
    assert decay_rule(cls).extra_decay == 1e-4


def test_a_decay_set_by_hand_is_seen_behind_groups_that_carry_zero():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "weight_decay": 0.0}]
    assert hand_set_decay(torch.optim.SGD(groups, weight_decay=5e-4)) == 5e-4
    assert hand_set_decay(torch.optim.SGD(groups)) == 0.0
    assert hand_set_decay(torch.optim.AdamW(groups)) == 0.0


# -- probing ---------------------------------------------------------------------------------------------------


def built(name, **settings):
    cls = getattr(torch.optim, name)
    if name == "ASGD":
        settings.setdefault("lambd", 0.0)
    return cls([torch.nn.Parameter(torch.zeros(3, 3))], **settings)


@pytest.mark.parametrize("name", ALL)
def test_a_probe_finds_what_the_table_says(name):
    """The probe has no names to go by; the table was checked above."""
    assert probe(rebuild(built(name))) == decay_rule(getattr(torch.optim, name)).kind


@pytest.mark.parametrize(
    ("name", "settings", "kind"),
    [
        ("SGD", {"momentum": 0.9, "nesterov": True}, "coupled"), ("SGD", {"maximize": True}, "coupled"),
        pytest.param("Adam", {"decoupled_weight_decay": True}, "decoupled", marks=adam_flag),
        ("RAdam", {"decoupled_weight_decay": True}, "decoupled"),
        ("Adam", {"amsgrad": True, "weight_decay": 0.5}, "coupled"), ("RMSprop", {"centered": True}, "coupled"),
        ("ASGD", {"lambd": 1e-2}, "other"),
    ],
)  # fmt: skip
def test_a_probe_keeps_the_settings(name, settings, kind):
    optimizer = built(name, **settings)
    assert probe(rebuild(optimizer)) == kind
    subclass = type("Mine", (type(optimizer),), {})
    rule = decay_rule(subclass([torch.nn.Parameter(torch.zeros(3, 3))], **settings))
    assert (rule.kind, rule.probed, rule.hidden) == (kind, True, kind == "other")


@pytest.mark.parametrize("name", [n for n in ALL if n != "ASGD"])
def test_no_optimizer_but_asgd_drifts(name):
    assert not drifts(rebuild(built(name)))
    assert drifts(rebuild(built("ASGD", lambd=1e-3)))


def test_a_probe_leaves_no_trace():
    optimizer = built("Adam")
    optimizer.param_groups[0]["note"] = torch.zeros(1)
    state = torch.random.get_rng_state()
    before = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    probe(rebuild(optimizer))
    assert torch.equal(state, torch.random.get_rng_state())
    assert {k: v for k, v in optimizer.param_groups[0].items() if k != "params"} == before
    assert optimizer.state == {}


def test_wrappers_are_unwrapped():
    inner = built("SGD")

    class Wrapper(Optimizer):
        def __init__(self, base):
            self.base = base

    assert unwrap(Wrapper(inner)) is inner
    assert unwrap(Wrapper(Wrapper(inner))) is inner
    assert unwrap(inner) is inner
    assert decay_rule(Wrapper(inner)).kind == "coupled"
