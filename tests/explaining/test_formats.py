"""Settings of many programs by small files of each: read as they act on them, and none taken for another."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import bayesreg as br
from bayesreg.explaining.formats.settings import settings_of
from bayesreg.explaining.formats.trainers import literals
from tests.cli.common import answer, refusal
from tests.cli.conftest import run  # noqa: F401 (a fixture)
from tests.versions import HAS_MUON

AXOLOTL = """
base_model: NousResearch/Llama-3.2-1B
datasets:
  - path: teknium/GPT4-LLM-Cleaned
    type: alpaca
adapter: lora
gradient_accumulation_steps: 2
micro_batch_size: 2
num_epochs: 1
optimizer: adamw_8bit
lr_scheduler: cosine
learning_rate: 2e-4
warmup_ratio: 0.1
weight_decay: 0.01
"""
LLAMA_FACTORY = """
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
stage: sft
do_train: true
finetuning_type: lora
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
"""
DEEPSPEED = {
    "train_batch_size": 16, "gradient_clipping": 1.0, "zero_optimization": {"stage": 2},
    "optimizer": {"type": "Adam", "params": {"lr": 3e-5, "betas": [0.8, 0.999], "eps": 1e-8, "weight_decay": 3e-7}},
}  # fmt: skip
HYDRA = """
optimizer:
  _target_: torch.optim.SGD
  lr: 0.1
  momentum: 0.9
  weight_decay: 1e-4
trainer:
  max_epochs: 90
  gradient_clip_val: 0.5
"""
LIGHTNING = """
trainer:
  max_steps: 20000
optimizer:
  class_path: torch.optim.AdamW
  init_args:
    lr: 0.001
"""
NANO_GPT = """
# train a miniature character-level model
out_dir = 'out-shakespeare-char'
eval_interval = 250
batch_size = 5 * 8
learning_rate = 1e-3 # with baby networks can afford to go a bit higher
max_iters = 5000
lr_decay_iters = 5000 # make equal to max_iters usually
min_lr = 1e-4
warmup_iters = 100
beta2 = 0.99
weight_decay = 1e-1
print("never run")
compile = True
"""
TORCHTITAN = """
[job]
description = "Llama 3 debug training"

[optimizer]
name = "AdamW"
lr = 8e-4
weight_decay = 0.1

[[optimizer.param_groups]]
pattern = "(norm|bias)"
weight_decay_multiplier = 0.0

[[optimizer.param_groups]]
pattern = "tok_embeddings"
lr_multiplier = 0.5
weight_decay_multiplier = 0.1
beta2 = 0.98

[lr_scheduler]
warmup_steps = 200
decay_ratio = 0.8
decay_type = "cosine"
min_lr_factor = 0.1

[training]
global_batch_size = 16
max_norm = 1.0
steps = 1000
"""
ADAMW_1E3 = {"lr": 1e-3, "weight_decay": 0.0}
TORCHTITAN_MIXED = {
    "optimizer": {
        "param_groups": [
            {"pattern": "norm|bias|emb", "optimizer_name": "AdamW", "optimizer_kwargs": ADAMW_1E3},
            {"pattern": ".*", "optimizer_name": "Muon", "optimizer_kwargs": {"lr": 0.02, "weight_decay": 0.05}},
        ]
    },
    "training": {"steps": 500},
}  # fmt: skip
KERAS = {"class_name": "AdamW", "config": {"learning_rate": 1e-3, "weight_decay": 4e-3}}
TIMM = {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.05, "sched": "cosine", "epochs": 300, "batch_size": 128}
HUGGING_FACE = {"optim": "adamw_torch", "learning_rate": 5e-5, "weight_decay": 0.01, "num_train_epochs": 3}
FILES = {
    "axolotl.yaml": (AXOLOTL, "Hugging Face", 0.01, 2e-4, "decoupled"),
    "llama.yaml": (LLAMA_FACTORY, "Hugging Face", 0.0, 1e-4, "decoupled"),
    "deepspeed.json": (json.dumps(DEEPSPEED), "DeepSpeed", 3e-7, 3e-5, "decoupled"),
    "hydra.yaml": (HYDRA, "Hydra", 1e-4, 0.1, "coupled"),
    "lightning.yaml": (LIGHTNING, "Lightning", 0.01, 1e-3, "decoupled"),
    "nano.py": (NANO_GPT, "nanoGPT", 0.1, 1e-3, "decoupled"),
    "titan.toml": (TORCHTITAN, "torchtitan", 0.1, 8e-4, "decoupled"),
    "mixed.json": (json.dumps(TORCHTITAN_MIXED), "torchtitan", 0.0, 1e-3, "decoupled"),
    "keras.json": (json.dumps(KERAS), "Keras", 4e-3, 1e-3, "decoupled"),
    "timm.yaml": (yaml.safe_dump(TIMM), "timm", 0.05, 1e-3, "decoupled"),
    "arguments.json": (json.dumps(HUGGING_FACE), "Hugging Face", 0.01, 5e-5, "decoupled"),
}


def content(name):
    text = FILES[name][0]
    reads = {"py": literals, "json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}
    return reads[name.rpartition(".")[2]](text)


@pytest.mark.parametrize("name", FILES)
def test_each_is_read_as_what_it_is(name, run, tmp_path):  # noqa: F811
    text, whose, decay, rate, kind = FILES[name]
    (tmp_path / name).write_text(text)
    found = answer(run, "explain", name, "--num-data", "8000")
    said = " ".join(f["text"] for f in found["findings"] if f["identifier"] == "read-as")
    others = {one for _, one, *_ in FILES.values()} - {whose}
    assert whose in said
    assert not any(one in said for one in others)
    assert found["groups"][0]["weight_decay"] == pytest.approx(decay)
    assert found["groups"][0]["decay"] == kind
    settings = settings_of(content(name), None)
    assert float(settings.groups[0].settings["lr"]) == pytest.approx(rate)


def explained(name, **more):
    return br.explain(content(name), nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), num_data=8000, **more)


def test_their_runs():
    assert explained("axolotl.yaml").groups[0].horizon.steps == 2000
    default = {k: v for k, v in content("axolotl.yaml").items() if k != "lr_scheduler"}
    total = br.explain(default, num_data=8000).groups[0].horizon.decay_sum
    assert total == pytest.approx(explained("axolotl.yaml").groups[0].horizon.decay_sum)
    assert explained("nano.py").groups[0].horizon.steps == 5000
    assert explained("lightning.yaml").groups[0].horizon.steps == 20_000
    assert explained("hydra.yaml").groups[0].horizon is None
    assert explained("hydra.yaml", steps=100).groups[0].horizon.steps == 100


def test_the_schedule_of_nano_gpt():
    """Warm-up, cosine to min_lr, and that: by its own function."""
    given = {**content("nano.py"), "lr_decay_iters": 3000}

    def rate(step):
        if step < 100:
            return 1e-3 * (step + 1) / 101
        if step > 3000:
            return 1e-4
        share = (step - 100) / 2900
        return 1e-4 + 0.5 * (1.0 + torch.cos(torch.tensor(torch.pi * share, dtype=torch.float64)).item()) * 9e-4

    horizon = br.explain(given, num_data=8000).groups[0].horizon
    assert horizon.decay_sum == pytest.approx(0.1 * sum(map(rate, range(5000))), rel=1e-9)
    flat = br.explain({**given, "decay_lr": False}, num_data=8000).groups[0].horizon
    assert flat.decay_sum == pytest.approx(0.1 * 5000 * 1e-3)
    # What a configuration leaves to train.py is not guessed.
    assert br.explain({"learning_rate": 1e-3, "max_iters": 10}, num_data=8000).groups[0].horizon is None


def test_who_decays_what():
    assert [g.parameters for g in explained("nano.py").groups] == [("0.weight",), ("0.bias", "1.weight", "1.bias")]
    assert [len(g.parameters) for g in explained("deepspeed.json").groups] == [4]
    assert [len(g.parameters) for g in explained("hydra.yaml").groups] == [4]


class Titan(nn.Module):
    """Names as torchtitan's models have them."""

    def __init__(self):
        super().__init__()
        self.tok_embeddings = nn.Embedding(11, 4)
        self.layers = nn.ModuleDict({"0": nn.Linear(4, 4)})
        self.norm = nn.LayerNorm(4)


def test_the_groups_of_torchtitan():
    found = br.explain(content("titan.toml"), Titan(), num_data=8000)
    groups = {group.parameters: group for group in found.groups}
    assert list(groups) == [
        ("layers.0.weight",), ("layers.0.bias", "norm.weight", "norm.bias"), ("tok_embeddings.weight",)
    ]  # fmt: skip
    assert [group.weight_decay for group in groups.values()] == pytest.approx([0.1, 0.0, 0.01])
    settings = settings_of(content("titan.toml"), Titan())
    assert [float(g.settings["lr"]) for g in settings.groups] == pytest.approx([8e-4, 8e-4, 4e-4])
    assert [g.settings["betas"] for g in settings.groups] == [(0.9, 0.95), (0.9, 0.95), (0.9, 0.98)]
    assert settings.clip_norm == 1.0
    mixed = br.explain(content("mixed.json"), Titan(), num_data=8000)
    assert [group.parameters for group in mixed.groups] == [
        ("tok_embeddings.weight", "layers.0.bias", "norm.weight", "norm.bias"), ("layers.0.weight",)
    ]  # fmt: skip
    if HAS_MUON:
        assert "bound" in {finding.identifier for finding in mixed.findings}
    assert "schedule-not-read" in {finding.identifier for finding in mixed.findings}


def test_patterns_of_torchtitan_that_match_nothing_are_said():
    given = content("titan.toml")
    given["optimizer"]["param_groups"][1]["pattern"] = "token_embedding"
    found = br.explain(given, Titan(), num_data=8000)
    (finding,) = [f for f in found.findings if f.identifier == "pattern-unmatched"]
    assert "'token_embedding'" in finding.text
    assert found.groups[0].parameters == ("tok_embeddings.weight", "layers.0.weight")
    given["optimizer"]["param_groups"][1]["pattern"] = "(unclosed"
    with pytest.raises(br.InvalidArgumentError, match="regular expressions"):
        br.explain(given, Titan(), num_data=8000)


@pytest.mark.parametrize("kind", ["linear", "sqrt", "cosine"])
@pytest.mark.parametrize("ratio", [0.8, 0.5, None, 0.0])
def test_the_schedule_of_torchtitan(kind, ratio):
    """By its own words: a warm-up to 1, 1, then down over the last share of the steps to the least factor."""
    given = content("titan.toml")
    given["lr_scheduler"] |= {"decay_type": kind, "decay_ratio": ratio}
    falls = 800 if ratio is None else round(1000 * ratio)

    def factor(step):
        if step < 200:
            return (step + 1) / 201
        if step < 1000 - falls or falls == 0:
            return 1.0
        done = (step + 1 - (1000 - falls)) / (falls + 1)
        left = {"linear": 1 - done, "sqrt": 1 - done**0.5, "cosine": 0.5 * (1 + np.cos(np.pi * done))}[kind]
        return 0.1 + 0.9 * left

    horizon = br.explain(given, Titan(), num_data=8000).groups[0].horizon
    assert horizon.decay_sum == pytest.approx(0.1 * 8e-4 * sum(map(factor, range(1000))), rel=1e-12)
    assert horizon.epochs == pytest.approx(1000 * 16 / 8000)


def test_decays_by_the_square_of_the_rate():
    """timm's adamc: a step shrinks by lr²/lr_max·λ."""
    given = {"opt": "adamc", "lr": 1e-3, "weight_decay": 0.1, "sched": "cosine", "epochs": 10, "batch_size": 80}
    found, plain = (br.explain({**given, "opt": opt}, num_data=8000) for opt in ("adamc", "adamw"))
    assert found.groups[0].decay == "decoupled"
    (finding,) = [f for f in found.findings if f.identifier == "corrected-decay"]
    assert "lr²/lr_max·0.1" in finding.text
    assert "corrected-decay" not in {f.identifier for f in plain.findings}
    # One learning rate per epoch of 100 steps, from the first on, to min_lr = 0.
    rates = np.repeat(1e-3 * 0.5 * (1 + np.cos(np.pi * np.arange(10) / 10)), 100)
    assert plain.groups[0].horizon.decay_sum == pytest.approx(0.1 * rates.sum())
    assert found.groups[0].horizon.decay_sum == pytest.approx(0.1 * (rates**2 / 1e-3).sum())
    assert found.groups[0].horizon.share_left == pytest.approx(np.prod(1 - 0.1 * rates**2 / 1e-3), rel=1e-12)


@pytest.mark.parametrize("name", ["muonh", "AdamH", "hyperball"])
def test_optimizers_that_hold_norms_by_name(name):
    found = br.explain({"optimizer": {"_target_": f"their.{name}", "lr": 1e-3, "weight_decay": 0.0}}, num_data=100)
    assert found.groups[0].decay == "held"
    assert "uniform on a sphere" in found.groups[0].prior
    assert "norm-held" in {f.identifier for f in found.findings}
    assert br.explain({"opt": name, "lr": 1e-3, "weight_decay": 0.0}, num_data=100).groups[0].decay == "held"


def test_cautious_decay_by_its_setting():
    block = {"_target_": "dion.Muon", "lr": 1e-3, "weight_decay": 0.1, "cautious_wd": True}
    found = br.explain({"optimizer": block}, num_data=100)
    assert found.groups[0].decay == "cautious"
    (finding,) = [f for f in found.findings if f.identifier == "cautious-decay"]
    assert "at rest the weights are those without it" in finding.text
    assert br.explain({"optimizer": {**block, "cautious_wd": False}}, num_data=100).groups[0].decay == "unknown"
    # A cautious update is another thing: its decay is decoupled.
    assert br.explain({"opt": "cadamw", "lr": 1e-3, "weight_decay": 0.1}, num_data=100).groups[0].decay == "decoupled"


@pytest.mark.parametrize("odd", [True, "much", -1.0, 1e308, float("nan"), float("inf"), [1.0], {}])
@pytest.mark.parametrize(
    "key", ["lr", "weight_decay", "steps", "warmup_steps", "decay_ratio", "weight_decay_multiplier"]
)
def test_odd_numbers_are_refused_by_name(key, odd):
    given = content("titan.toml")
    places = {
        "steps": given["training"], "warmup_steps": given["lr_scheduler"], "decay_ratio": given["lr_scheduler"],
        "weight_decay_multiplier": given["optimizer"]["param_groups"][0],
    }  # fmt: skip
    places.get(key, given["optimizer"])[key] = odd
    with pytest.raises(br.InvalidArgumentError, match=f"^{key}: expected a number"):
        br.explain(given, num_data=100)


def test_what_deepspeed_calls_adam():
    texts = [f.text for f in explained("deepspeed.json").findings]
    assert any("takes Adam for AdamW" in text for text in texts)
    given = {"optimizer": {"type": "Adam", "params": {"lr": 1e-3, "weight_decay": 0.1, "adam_w_mode": False}}}
    assert br.explain(given, num_data=100).groups[0].decay == "coupled"
    auto = {"optimizer": {"type": "AdamW", "params": {"lr": "auto", "weight_decay": "auto"}}}
    with pytest.raises(br.InvalidArgumentError, match="'auto' is filled in by Hugging Face's Trainer"):
        br.explain(auto, num_data=100)


def test_an_optimizer_of_somebody_else_is_not_known():
    for target, kind in (("my.optim.Fancy", "unknown"), ("lion_pytorch.Lion", "decoupled"), ("my.AdamW", "unknown")):
        found = br.explain({"optimizer": {"_target_": target, "lr": 1e-3, "weight_decay": 0.1}}, num_data=100)
        assert found.groups[0].decay == kind


def test_clips_that_are_said_and_not_said():
    assert "Gradients are clipped to 0.5" in str(explained("hydra.yaml"))
    bare = {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.1}}
    assert "If the loop clips gradients" in str(br.explain(bare, num_data=100))


def test_a_schedule_beside_the_optimizer_is_not_read():
    given = {**content("lightning.yaml"), "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR"}}
    found = br.explain(given, num_data=100)
    assert "schedule-not-read" in {f.identifier for f in found.findings}
    assert found.groups[0].horizon is None


def test_python_is_read_and_never_run(run, tmp_path):  # noqa: F811
    (tmp_path / "odd.py").write_text("import os\nos.abort()\nlearning_rate = float('1')\n")
    assert "expected settings of" in refusal(run, "explain", "odd.py", "--num-data", "10")
    (tmp_path / "bad.py").write_text("learning_rate = (")
    assert "no Python file" in refusal(run, "explain", "bad.py", "--num-data", "10")
    assert literals("a = 2 * 3\nb: int = 4\nc = [1, 'x']\nd = f()\nif True:\n    e = 1\na = 5 * 8.0\n") == {
        "a": 40.0, "b": 4, "c": [1, "x"],
    }  # fmt: skip
    assert literals("a = 9**9**9\nb = 'x' * 10**9\nc = 1e15 * 2\n") == {}
