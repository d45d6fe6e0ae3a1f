"""`bayesreg.testing.decay_of`: no wrong verdict on torch's optimizers, on emulated ones, and on a table of timm's."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch.optim import Optimizer

import bayesreg as br
from bayesreg.testing import decay_of
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
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.how, self.first = how, lr

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for p in group["params"]:
                norm = p.norm()
                shrink = {
                    "lr²": rate**2 * decay, "nothing": decay, "ignored": 0.0, "hidden": 0.01, "wrong": -rate * decay,
                }.get(self.how, rate * decay)  # fmt: skip
                along = (p.grad * p >= 0.0) if self.how == "cautious" else 1.0
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
