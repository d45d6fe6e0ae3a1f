"""`bayesreg.testing.decay_of`: no wrong verdict on torch's optimizers, on emulated ones, and on a table of timm's."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import bayesreg as br
from bayesreg.testing import decay_of
from tests.third_party.decays import MARKS, PAGE, reports, section
from tests.third_party.matrix import missing
from tests.third_party.stand_in import put_in_place

# kind, hidden, through_metric, scales_with, follows_schedule
TORCH = {
    "SGD": ("coupled", False, False, None, None),
    "Adam": ("coupled", False, True, None, None),
    "NAdam": ("coupled", False, True, None, None),
    "RAdam": ("coupled", False, True, None, None),
    "Adagrad": ("coupled", False, True, None, None),
    "Adadelta": ("coupled", False, True, None, None),
    "Adamax": ("coupled", False, True, None, None),
    "RMSprop": ("coupled", False, True, None, None),
    "ASGD": ("other", True, None, None, None),
    "AdamW": ("decoupled", False, None, "lr", True),
    "Adafactor": ("decoupled", False, None, "lr", True),
    "Muon": ("decoupled", False, None, "lr", True),
    "Rprop": ("none", False, None, None, None),
}


@pytest.mark.parametrize("name", TORCH)
def test_torchs_own(name):
    if not hasattr(torch.optim, name):
        pytest.skip("this torch has none")
    found = decay_of(getattr(torch.optim, name))
    assert (found.kind, found.hidden, found.through_metric, found.scales_with, found.follows_schedule) == TORCH[name]
    assert found.name == name


def test_settings_of_the_same_class():
    decay_of(partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)).require("coupled", through_metric=False)
    decay_of(partial(torch.optim.Adam, amsgrad=True)).require("coupled", through_metric=True)
    if "decoupled_weight_decay" in torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]:
        decay_of(partial(torch.optim.Adam, decoupled_weight_decay=True)).require("decoupled", scales_with="lr")


class Own(Optimizer):
    """SGD with a decay of every kind."""

    def __init__(self, params, lr=0.1, weight_decay=0.0, how="lr"):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "how": how})
        self.how = how

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for p in group["params"]:
                norm = p.norm()
                shrink = {
                    "lr²": rate**2 * decay, "nothing": decay, "ignored": 0.0, "hidden": 0.01, "wrong": -rate * decay,
                    "tiny": 1e-7 * rate * decay,
                }.get(self.how, rate * decay)  # fmt: skip
                along = (p.grad * p >= 0.0) if self.how == "cautious" else 1.0
                if self.how in ("matrices", "vectors") and (p.ndim > 1) is (self.how == "vectors"):
                    shrink = 0.0
                p.sub_(shrink * along * p)
                p.sub_(rate * p.grad)
                if self.how == "held":
                    p.mul_(norm / p.norm())


@pytest.mark.parametrize(
    ("how", "kind", "more"),
    [
        ("lr", "coupled", {"hidden": False}),
        ("lr²", "other", {}),
        ("nothing", "other", {}),
        ("ignored", "none", {}),
        ("cautious", "cautious", {}),
        ("held", "held", {}),
        ("hidden", "other", {"hidden": True}),
        ("wrong", "other", {}),
        # It is not "none": a rate that begins at nearly 0 grows.
        ("tiny", "unknown", {}),
        ("lr", "coupled", {"applies_to": "all"}),
        ("matrices", "coupled", {"applies_to": "matrices"}),
        ("vectors", "coupled", {"applies_to": "vectors"}),
        ("ignored", "none", {"applies_to": None}),
    ],
)
def test_emulated_ones(how, kind, more):
    decay_of(partial(Own, how=how)).require(kind, **more)


def test_the_shrinkage_of_a_momentum_is_decoupled():
    class Apart(torch.optim.SGD):
        def step(self, closure=None):
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p.mul_(1.0 - group["lr"] * group["apart"])
            super().step()

    class Named(Apart):
        """Its decay is called weight_decay, and SGD's own stays at 0."""

        def __init__(self, params, lr=0.1, weight_decay=0.0, fixed=False):
            super().__init__(params, lr=lr, momentum=0.9)
            self.fixed = lr if fixed else None
            for group in self.param_groups:
                group["apart"] = weight_decay

        def step(self, closure=None):
            held = []
            for group in self.param_groups:
                rate = group["lr"] if self.fixed is None else self.fixed
                group["apart"] = group["weight_decay"] * rate / group["lr"]
                held.append(group["weight_decay"])
                group["weight_decay"] = 0.0
            super().step()
            for group, decay in zip(self.param_groups, held, strict=True):
                group["weight_decay"] = decay

    decay_of(Named).require("decoupled", scales_with="lr", follows_schedule=True)
    fixed = decay_of(partial(Named, lr=0.05, fixed=True))
    fixed.require("decoupled", scales_with="nothing", follows_schedule=False)


def test_what_rounding_loses():
    assert decay_of(torch.optim.AdamW).acts_in == {"float32": True, "bfloat16": False}
    assert decay_of(torch.optim.SGD).acts_in == {}


def test_a_report_prints_and_asserts():
    found = decay_of(torch.optim.AdamW)
    assert "weights are shrunk apart from the gradient" in str(found)
    assert json.loads(found.to_json())["scales_with"] == "lr"
    found.require("decoupled", scales_with="lr")
    with pytest.raises(AssertionError, match="AdamW: expected kind 'coupled', got 'decoupled'"):
        found.require("coupled")
    with pytest.raises(AssertionError, match="expected follows_schedule False, got True"):
        found.require("decoupled", follows_schedule=False)
    with pytest.raises(br.InvalidArgumentError, match=r"kind: expected one of coupled, .*did you mean 'coupled'"):
        found.require("couple")
    with pytest.raises(br.InvalidArgumentError, match="scales: expected one of"):
        found.require("decoupled", scales="lr")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (3, "make_optimizer: expected a function, got int 3"),
        (lambda: None, "calling it raised TypeError"),
        (lambda p: p, "expected one that makes an optimizer, got list"),
    ],
)
def test_what_makes_no_optimizer_is_refused(given, match):
    with pytest.raises(br.InvalidArgumentError, match=match):
        decay_of(given)


def test_the_module_is_there_without_pytest():
    code = "import sys; sys.modules['pytest'] = None; from bayesreg.testing import decay_of; import torch; "
    code += "decay_of(torch.optim.SGD).require('coupled')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# By hand, from their sources: what timm's names do with weight_decay.
TIMM = {
    **dict.fromkeys(("sgd", "momentum", "adam", "adamax", "nadam", "radam", "rmsprop", "adagrad"), ("coupled", None)),
    **dict.fromkeys(("adadelta", "madgrad"), ("coupled", None)),
    **dict.fromkeys(("adamw", "sgdw", "nadamw", "lion", "muon", "adabelief", "adafactor"), ("decoupled", "lr")),
    **dict.fromkeys(("adamc", "sgdc"), ("decoupled", "lr²")),
    **dict.fromkeys(("lamb", "adan", "lars"), ("other", None)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timms(name):
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    put_in_place()
    from timm.optim import create_optimizer_v2

    found = decay_of(lambda weights: create_optimizer_v2(list(weights), opt=name, lr=0.05, weight_decay=0.0))
    assert (found.kind, found.scales_with) == TIMM[name]


def _of(kind, names):
    return dict.fromkeys(names.split(), kind)


# By hand, from their sources: whether `weight_decouple` is on by default, and what the step does with it.
PYTORCH_OPTIMIZER = {
    **_of(
        "coupled", "accsgd adadelta adamax adamg adasmooth ademamix adopt aggmo aida dualadam madgrad padam pid qhadam"
    ),
    **_of("coupled", "qhm rose schedulefreesgd shampoo swats"),
    # Without momentum the two are one.
    "sgdw": "coupled",
    **_of(
        "decoupled", "adabelief adabound adagc adalite adamc adamod adamw adanorm adapnm ano avagrad bcos came diffgrad"
    ),
    **_of("decoupled", "exadam grams grokfastadamw kate laprop lion pnm signsgd tam tiger yogi"),
    # It begins with a rate of a millionth of what it is given.
    "prodigy": "unknown",
    "nero": "held",
    **_of("none", "a2grad adashift gravity lbfgs msvag sm3"),
    # It divides by 1 + lr·λ; only once it is rectified.
    **_of("other", "adan radam"),
}


@pytest.mark.slow
def test_pytorch_optimizers():
    if importlib.util.find_spec("pytorch_optimizer") is None:
        pytest.skip("pytorch_optimizer is not installed")
    found = reports("pytorch_optimizer")
    assert {name: found[name].kind for name in PYTORCH_OPTIMIZER} == PYTORCH_OPTIMIZER
    assert found["fromage"].hidden


@pytest.mark.slow
def test_the_page_says_what_is_found():
    absent = {"timm", "pytorch_optimizer"} & set(missing())
    if absent:
        pytest.skip(f"not installed: {', '.join(sorted(absent))}")
    text = PAGE.read_text(encoding="utf-8")
    assert text.partition(MARKS[0])[2].partition(MARKS[1])[0].strip() == section()
    assert f"of timm's and {len(PYTORCH_OPTIMIZER)} of" in " ".join(text.split())
    assert f"to {len(TIMM)} of timm's" in " ".join(text.split())


def explained(how, decay=0.1):
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    optimizer = Own(model.parameters(), how=how, weight_decay=decay)
    return br.explain(optimizer, model, num_data=100)


def test_explain_says_what_a_live_one_is():
    found = explained("cautious")
    assert found.groups[0].decay == "cautious"
    assert "cautious-decay" in {finding.identifier for finding in found.findings}
    assert "unknown-decay" not in {finding.identifier for finding in found.findings}
    for decay in (0.1, 0.0):
        found = explained("held", decay)
        assert found.groups[0].decay == "held"
        assert "uniform on a sphere" in found.groups[0].prior
        assert "norm-held" in {finding.identifier for finding in found.findings}
    with pytest.raises(br.NotEquivalentError, match="neither added to the gradient nor a plain shrinkage"):
        br.weight_decay_to_variance(0.1, 100, optimizer=partial(Own, how="cautious"))


class Corrected(torch.optim.SGD):
    """Decay by lr²/lr_max beside the step, by a setting as timm's optimizers have it."""

    def __init__(self, params, lr=0.1, weight_decay=0.0, corrected_weight_decay=True):
        super().__init__(params, lr=lr, momentum=0.9)
        self.largest = lr
        for group in self.param_groups:
            group["weight_decay"], group["corrected_weight_decay"] = weight_decay, corrected_weight_decay

    @torch.no_grad()
    def step(self, closure=None):
        decays = [group["weight_decay"] for group in self.param_groups]
        for group, decay in zip(self.param_groups, decays, strict=True):
            share = group["lr"] / self.largest if group["corrected_weight_decay"] else 1.0
            for p in group["params"]:
                p.mul_(1.0 - group["lr"] * share * decay)
            group["weight_decay"] = 0.0
        super().step(closure)
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay


def test_a_decay_by_the_square_of_the_rate_of_a_live_one():
    decay_of(partial(Corrected, lr=0.05)).require("decoupled", scales_with="lr²", follows_schedule=False)
    model = nn.Linear(3, 3)
    optimizer = Corrected(model.parameters(), lr=0.02, weight_decay=0.1)
    rates = [0.02 * (1 - t / 50) for t in range(50)]
    found = br.explain(optimizer, model, num_data=100, batch_size=10, steps=50, schedule=rates)
    assert found.groups[0].decay == "decoupled"
    assert "corrected-decay" in {finding.identifier for finding in found.findings}
    left = 1.0
    for rate in rates:
        left *= 1.0 - rate**2 / 0.02 * 0.1
    assert found.groups[0].horizon.share_left == pytest.approx(left, rel=1e-12)
