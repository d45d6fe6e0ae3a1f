"""`bayesreg explain`: flags and checkpoints."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

import bayesreg as br
from tests.cli.common import answer, refusal
from tests.versions import ADAM_HAS_FLAG, adam_flag


def stepped(optimizer_of, steps=3):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    optimizer = optimizer_of(model)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    return model, optimizer


def test_flags(run):
    found = answer(run, "explain", "--optimizer", "sgd", "--weight-decay", "5e-4", "--num-data", "50000")
    group = found["groups"][0]
    assert (group["decay"], group["mean"]) == ("coupled", 0.0)
    assert group["std"] == pytest.approx(0.2)
    found = answer(run, "explain", "--optimizer", "AdamW", "--num-data", "50000")
    # torch's own default is what a run without the flag has.
    assert found["groups"][0]["weight_decay"] == 0.01
    assert found["groups"][0]["std"] is None
    assert found["findings"][0]["identifier"] == "decoupled-decay"
    status, out, _ = run("explain", "--optimizer", "sgd", "--weight-decay", "5e-4", "--num-data", "50000")
    assert status == 0
    assert "Gaussian, std 0.2, centred on 0" in out
    assert "weights rms" not in out


def test_flags_that_are_traps(run):
    arguments = ("--optimizer", "sgd", "--lr", "0.01", "--weight-decay", "5e-4", "--num-data", "50000")
    found = answer(run, "explain", *arguments, "--dtype", "bfloat16", "--clip-norm", "1")
    # What loses the prior altogether comes before what strengthens it by a factor that is not known.
    assert [f["identifier"] for f in found["findings"]] == ["rounding", "clip-before-decay"]
    assert {f["severity"] for f in found["findings"]} == {"warning"}
    found = answer(run, "explain", *arguments, "--dtype", "bfloat16", "--momentum", "0.999")
    assert "rounding" not in [f["identifier"] for f in found["findings"]]


def test_other_losses(run):
    found = answer(run, "explain", "--optimizer", "adam", "--weight-decay", "0.1", "--loss", "sum")
    assert found["groups"][0]["variance"] == pytest.approx(10.0)
    flat = answer(run, "explain", "--optimizer", "lbfgs", "--num-data", "10")
    assert flat["groups"][0]["std"] == "inf"


@adam_flag
@pytest.mark.parametrize("content", ["bare", "nested", "with model", "lightning"])
def test_a_checkpoint(run, tmp_path, content):
    model, optimizer = stepped(lambda m: torch.optim.AdamW(m.parameters(), lr=1e-2))
    held = {
        "bare": optimizer.state_dict(),
        "nested": {"optimizer": optimizer.state_dict(), "epoch": 3},
        "with model": {"optimizer": optimizer.state_dict(), "model": model.state_dict()},
        "lightning": {"optimizer_states": [optimizer.state_dict()], "state_dict": model.state_dict()},
    }[content]
    torch.save(held, tmp_path / "checkpoint.pt")
    found = answer(run, "explain", "checkpoint.pt", "--num-data", "100")
    group = found["groups"][0]
    live = br.explain(optimizer, model, num_data=100)
    assert group["decay"] == "decoupled"
    assert group["implied"]["median"] == pytest.approx(live.groups[0].implied.median)
    if content in ("bare", "nested"):
        assert group["parameters"][0] == "#0"
        assert group["implied"]["matched"] is None
    else:
        assert group["parameters"] == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
        assert group["implied"]["matched"] == pytest.approx(live.groups[0].implied.matched)


def test_a_checkpoint_of_several_groups_gets_the_names_that_fit(run, tmp_path):
    def grouped(model):
        weights = [p for p in model.parameters() if p.ndim > 1]
        rest = [p for p in model.parameters() if p.ndim == 1]
        return torch.optim.SGD([{"params": rest}, {"params": weights, "weight_decay": 0.1}], lr=0.1, momentum=0.9)

    model, optimizer = stepped(grouped)
    torch.save({"optimizer": optimizer.state_dict(), "model": model.state_dict()}, tmp_path / "c.pt")
    found = answer(run, "explain", "c.pt", "--num-data", "100")
    assert [g["parameters"][0] for g in found["groups"]] == ["0.bias", "0.weight"]
    assert found["groups"][1]["std"] == pytest.approx(math.sqrt(0.1))


@adam_flag
def test_the_checkpoint_of_a_run_with_a_prior_is_not_called_flat(run, tmp_path):
    def with_prior(model):
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
        br.attach(optimizer, br.ModelPrior(model, br.Gaussian(0.3)), num_data=100)
        return optimizer

    _, optimizer = stepped(with_prior)
    torch.save(optimizer.state_dict(), tmp_path / "map.pt")
    found = answer(run, "explain", "map.pt", "--num-data", "100")
    assert [f["identifier"] for f in found["findings"]] == ["lost-hooks"]
    assert found["groups"][0]["prior"] == "not told: a bayesreg prior was attached"
    assert found["groups"][0]["std"] is None


@pytest.mark.slow
def test_the_module_runs(tmp_path):
    command = [sys.executable, "-m", "bayesreg", "convert", "5e-4", "--num-data", "50000"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "0.04" in done.stdout


def test_refusals(run, tmp_path):
    _, optimizer = stepped(lambda m: torch.optim.Adam(m.parameters()))
    torch.save(optimizer, tmp_path / "whole.pt")
    torch.save(optimizer.state_dict(), tmp_path / "good.pt")
    old = optimizer.state_dict()
    for group in old["param_groups"]:
        group.pop("decoupled_weight_decay", None)
    torch.save(old, tmp_path / "old.pt")
    (tmp_path / "junk.pt").write_text("not a checkpoint")
    assert "pickled objects other than tensors, which bayesreg never loads" in refusal(
        run, "explain", "whole.pt", "--num-data", "9"
    )
    assert "junk.pt: corrupt" in refusal(run, "explain", "junk.pt", "--num-data", "9")
    assert "no such file" in refusal(run, "explain", "none.pt", "--num-data", "9")
    assert "one of Adam, AdamW" in refusal(run, "explain", "old.pt", "--num-data", "9")
    assert answer(run, "explain", "old.pt", "--optimizer", "adam", "--num-data", "9")["groups"][0]["decay"] == "coupled"
    assert "--lr: the file has its own" in refusal(run, "explain", "good.pt", "--lr", "1", "--num-data", "9")
    assert "--num-data" in refusal(run, "explain", "good.pt")
    assert "--optimizer: name one" in refusal(run, "explain", "--num-data", "9")
    assert "did you mean" in refusal(run, "explain", "--optimizer", "adamm", "--num-data", "9")
    assert "Rprop has no such setting" in refusal(
        run, "explain", "--optimizer", "rprop", "--weight-decay", "1", "--num-data", "9"
    )
    whose = "Adam" if ADAM_HAS_FLAG else "Adam or AdamW"
    assert f"its keys are those of {whose}, not of SGD" in refusal(
        run, "explain", "good.pt", "--optimizer", "sgd", "--num-data", "9"
    )
    assert "a directory, expected a file" in refusal(run, "explain", ".", "--num-data", "9")
    assert "--optimizer: name one" in refusal(run, "explain")
    sgd = ("explain", "--optimizer", "sgd", "--num-data", "9")
    assert "did you mean 'bfloat16'" in refusal(run, *sgd, "--dtype", "bflaot16")
    assert "--weight-decay: expected a number >= 0, got -1" in refusal(run, *sgd, "--weight-decay", "-1")
    assert "--momentum: expected a number below 1" in refusal(run, *sgd, "--momentum", "1")
    assert "--dtype: expected one of float32" in refusal(run, *sgd, "--dtype", "int8")
    assert "--clip-norm" in refusal(run, *sgd, "--clip-norm", "0")


def test_settings_from_files(run, tmp_path):
    """timm writes args.yaml, Hugging Face its arguments as JSON, Keras serializes regularizers."""
    timm = tmp_path / "args.yaml"
    timm.write_text("opt: sgd\nlr: 0.1\nweight_decay: 0.0005\nmomentum: 0.9\nclip_grad: null\nmodel: resnet50\n")
    found = answer(run, "explain", str(timm), "--num-data", "50000")
    assert found["groups"][0]["std"] == pytest.approx(0.2)
    hugging_face = tmp_path / "arguments.json"
    hugging_face.write_text(
        '{"optim": "adamw_torch", "learning_rate": 5e-5, "weight_decay": 0.01, "max_grad_norm": 1.0}'
    )
    found = answer(run, "explain", str(hugging_face), "--num-data", "50000")
    assert found["findings"][0]["identifier"] == "decoupled-decay"
    keras = tmp_path / "regularizer.json"
    keras.write_text('{"class_name": "L2", "config": {"l2": 0.01}}')
    found = answer(run, "explain", str(keras), "--num-data", "50000")
    assert found == answer(run, "explain", "--keras-l2", "0.01", "--num-data", "50000")
    assert found["groups"][0]["weight_decay"] == 0.02


def test_files_that_are_no_settings(run, tmp_path):
    path = tmp_path / "args.yaml"
    for text, message in (
        ("model: resnet50\n", "expected settings of Hugging Face"),
        ("- 1\n", "expected settings of Hugging Face"),
        ("a: [1\n", "not a yaml file"),
        ("!!python/object/apply:os.getcwd []\n", "not a yaml file"),
    ):
        path.write_text(text)
        assert message in refusal(run, "explain", str(path), "--num-data", "10")
    assert "cannot be read" in refusal(run, "explain", str(tmp_path / "none.json"), "--num-data", "10")
    assert "pass them alone" in refusal(run, "explain", "--keras-l2", "1", "--optimizer", "sgd", "--num-data", "10")


def test_flags_that_a_file_or_a_penalty_would_ignore_are_refused(run, tmp_path):
    path = tmp_path / "args.yaml"
    path.write_text("opt: sgd\nweight_decay: 0.0005\n")
    assert "--optimizer: the settings name their own" in refusal(
        run, "explain", str(path), "--optimizer", "adamw", "--num-data", "9"
    )
    assert "pass them alone" in refusal(run, "explain", "--keras-l2", "1", "--lr", "0.1", "--num-data", "9")
    assert "--batch-size: it plays no part" in refusal(run, "convert", "1e-4", "--num-data", "9", "--batch-size", "3")


def test_a_dtype_beside_a_file_is_refused_as_the_file_has_its_own(run, tmp_path):
    model = torch.nn.Linear(2, 1)
    torch.save(torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-3).state_dict(), tmp_path / "sgd.pt")
    assert "--dtype: the file has its own" in refusal(run, "explain", "sgd.pt", "--num-data", 10, "--dtype", "float16")
    assert "--dtype: the file has its own" in refusal(run, "explain", "sgd.pt", "--num-data", 10, "--dtype", "--json")
