"""A decay that is watched in CI: findings that fail, snapshots, what has changed since, annotations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.explaining.findings.finding import Finding
from bayesreg.explaining.lint import changes, failing, github_lines, identifiers, snapshot
from tests.cli.conftest import run as command  # noqa: F401 (a fixture)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def explained(decayed, optimizer=torch.optim.AdamW, decay=0.1, model=None):
    model = network() if model is None else model
    named = dict(model.named_parameters())
    groups = [
        {"params": [p for n, p in named.items() if decayed(n)], "weight_decay": decay},
        {"params": [p for n, p in named.items() if not decayed(n)], "weight_decay": 0.0},
    ]
    # So that the prior's width is that of the weights.
    return br.explain(optimizer([g for g in groups if g["params"]]), model, num_data=60)


def kernels(name):
    return name in ("0.weight", "2.weight")


def test_nothing_has_changed():
    before = snapshot(explained(kernels))
    assert changes(before, snapshot(explained(kernels))) == []
    assert before["parameters"]["1.weight"] == {
        "decay": "decoupled",
        "weight_decay": 0.0,
        "role": "norm",
        "prior": None,
    }


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (
            explained(lambda n: not n.endswith("bias")),
            ["norms are decayed: 1 parameter (1.weight).", "found: biases-decayed."],
        ),
        (
            explained(lambda n: True),
            [
                "biases are decayed: 3 parameters (0.bias, 1.bias, 2.bias).",
                "norms are decayed: 1 parameter (1.weight).",
                "found: biases-decayed.",
            ],
        ),
        (explained(kernels, decay=0.01), ["weight_decay is 0.01, was 0.1: 2 parameters (0.weight, 2.weight)."]),
        (
            explained(kernels, optimizer=torch.optim.Adam),
            [
                "decay is coupled, was decoupled: 2 parameters (0.weight, 2.weight).",
                "not found any more: decoupled-decay.",
            ],
        ),
        (
            explained(lambda n: n == "0.weight"),
            ["weights are not decayed any more: 1 parameter (2.weight)."],
        ),
        (
            explained(kernels, model=network()[:1]),
            ["gone: 4 parameters (2.weight, 1.weight, 1.bias and 1 more)."],
        ),
    ],
)  # fmt: skip
def test_what_has_changed_is_said_by_the_role(now, said):
    lines = changes(snapshot(explained(kernels)), snapshot(now))
    assert sorted(lines) == sorted(said)


def test_a_prior_that_is_attached_is_part_of_the_snapshot():
    model = network()

    def attached(scale):
        prior = br.ModelPrior(model, br.Gaussian(scale))
        optimizer = torch.optim.Adam(prior.param_groups())
        handle = br.attach(optimizer, prior, num_data=1000)
        found = snapshot(br.explain(optimizer, model, num_data=1000))
        handle.remove()
        return found

    before = attached(0.1)
    assert changes(before, attached(0.1)) == []
    (line,) = changes(before, attached(0.2))
    assert line.startswith("weight_decay is 0.025, was 0.1: 2 parameters")


def test_what_must_not_be_found():
    explanation = explained(lambda n: True)
    assert [f.identifier for f in failing(explanation, identifiers("biases-decayed, width"))] == ["biases-decayed"]
    with pytest.raises(br.InvalidArgumentError, match="did you mean 'biases-decayed'"):
        identifiers("bias-decayed")
    with pytest.raises(br.InvalidArgumentError, match="got none"):
        identifiers(" , ")


def test_annotations_cannot_be_broken_out_of():
    odd = Finding("width", "warning", "50 % of\n::error::x", "", 0.0)
    (line,) = github_lines([odd], [], [], None)
    assert "\n" not in line
    assert "50 %25 of" in line
    (line,) = github_lines([], ["changed"], [], Path("a,b:c.json"))
    assert line == "::error file=a%2Cb%3Ac.json,title=bayesreg decay changed::changed"


# -- on the command line -----------------------------------------------------------------------------------------------

SETTINGS = {"optim": "adamw_torch", "learning_rate": 5e-5, "weight_decay": 0.01, "num_train_epochs": 3}
TOLD = ("explain", "a.json", "--num-data", "8000")


def test_a_snapshot_is_saved_and_held_against(command, tmp_path):  # noqa: F811
    (tmp_path / "a.json").write_text(json.dumps(SETTINGS))
    assert command(*TOLD, "--save-baseline", "decay.json")[0] == 0
    status, out, _ = command(*TOLD, "--baseline", "decay.json")
    assert status == 0
    assert "since then nothing has changed." in out
    (tmp_path / "a.json").write_text(json.dumps({**SETTINGS, "weight_decay": 0.1}))
    status, out, _ = command(*TOLD, "--baseline", "decay.json")
    assert status == 3
    assert "since then weight_decay is 0.1, was 0.01" in out
    status, out, _ = command(*TOLD, "--baseline", "decay.json", "--json")
    assert status == 3
    assert json.loads(out)["changes"] == ["weight_decay is 0.1, was 0.01: 1 parameter (all but biases and norms)."]


def test_a_finding_ends_it_with_3(command, tmp_path):  # noqa: F811
    (tmp_path / "a.json").write_text(json.dumps(SETTINGS))
    status, out, _ = command(*TOLD, "--fail-on", "decay-off,biases-decayed")
    assert status == 3
    assert out.endswith("failed: decay-off\n")
    assert command(*TOLD, "--fail-on", "biases-decayed")[0] == 0
    status, out, _ = command(*TOLD, "--fail-on", "decay-off", "--github")
    assert status == 3
    assert "::error file=a.json,title=bayesreg decay-off::" in out
    assert "::notice file=a.json,title=bayesreg read-as::" in out
    assert json.loads(command(*TOLD, "--fail-on", "decay-off", "--json")[1])["failed"] == ["decay-off"]


@pytest.mark.parametrize(
    ("held", "more", "said"),
    [
        ("{", [], "decay.json is no JSON file"),
        ("[]", [], "expected a snapshot that --save-baseline wrote"),
        ('{"format": "bayesreg decay", "version": 1, "findings": [], "parameters": {"a": 3}}', [], "expected a snap"),
        ('{"format": "bayesreg decay", "version": 9, "findings": [], "parameters": {}}', [], "expected version 1"),
        (None, [], "decay.json cannot be read"),
        ("{}", ["--github", "--json"], "--github: prints annotations"),
    ],
)  # fmt: skip
def test_what_is_no_snapshot_is_refused(command, tmp_path, held, more, said):  # noqa: F811
    (tmp_path / "a.json").write_text(json.dumps(SETTINGS))
    if held is not None:
        (tmp_path / "decay.json").write_text(held)
    status, out, err = command(*TOLD, "--baseline", "decay.json", *more)
    assert (status, out) == (1, "")
    assert said in err
