"""Training settings of other libraries, read as those libraries act on them."""

from __future__ import annotations

import ast
import copy
import importlib.util
import inspect
import json
import math
import re
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.explaining.findings.finding import IDENTIFIERS
from tests.third_party.stand_in import put_in_place

N = 50_000


class Block(nn.Module):
    """Names that the Trainer's patterns catch, and some that they miss."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.attention_norm = nn.RMSNorm(4)
        self.norm = nn.GroupNorm(2, 4)
        self.PostRMSNorm = nn.RMSNorm(4)
        self.bn1 = nn.BatchNorm1d(4)
        self.mixer = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.debias_proj = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(1, 1))

    def no_weight_decay(self):
        return ["embedding.*"]


def hugging_face(**changed):
    values = {"optim": "adamw_torch", "learning_rate": 5e-5, "weight_decay": 0.01, "max_grad_norm": 1.0, **changed}
    return SimpleNamespace(**values)


def identifiers(found):
    return [finding.identifier for finding in found.findings]


def decayed(found):
    return {name for group in found.groups if group.weight_decay for name in group.parameters}


@pytest.mark.parametrize("which", ["block", "bert"])
def test_the_trainers_own_groups(which):
    transformers = pytest.importorskip("transformers")
    model = Block()
    if which == "bert":
        config = transformers.BertConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        )
        model = transformers.BertForSequenceClassification(config)
    theirs = set(transformers.Trainer.get_decay_parameter_names(None, model))
    assert decayed(br.explain(hugging_face(), model, num_data=N)) == theirs
    assert 0 < len(theirs) < len(list(model.named_parameters()))


def test_real_training_arguments(tmp_path):
    transformers = pytest.importorskip("transformers")
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), weight_decay=0.02, learning_rate=1e-3, optim="sgd", use_cpu=True, report_to="none",
        label_smoothing_factor=0.1,
    )  # fmt: skip
    model = Block()
    found = br.explain(arguments, model, num_data=N)
    assert found.groups[0].variance == pytest.approx(1 / (N * 0.02))
    assert "clip-before-decay" in identifiers(found)  # max_grad_norm is 1 by default
    assert "soft-targets" in identifiers(found)
    assert found.to_dict() == br.explain(json.loads(arguments.to_json_string()), model, num_data=N).to_dict()


@pytest.mark.parametrize(
    ("optim", "kind"),
    [
        ("adamw_torch_fused", "decoupled"), ("paged_adamw_8bit", "decoupled"), ("adafactor", "decoupled"),
        ("lion_8bit", "decoupled"), ("sgd", "coupled"), ("adagrad", "coupled"), ("rmsprop", "coupled"),
        ("galore_adamw", "unknown"), ("schedule_free_sgd", "unknown"),
    ],
)  # fmt: skip
def test_the_trainers_optimizers(optim, kind):
    found = br.explain(hugging_face(optim=optim, optim_args="momentum=0.9, name=x"), num_data=N)
    assert found.groups[0].decay == kind
    expected = {"decoupled": "decoupled-decay", "coupled": "clip-before-decay", "unknown": "unknown-decay"}
    assert identifiers(found)[0] == expected[kind]
    assert found.groups[1].variance == math.inf


def test_advice_knows_of_the_trainers_clip():
    clipped = br.explain(hugging_face(), num_data=N).findings[0].remedy
    assert "before_clip=True as gradients are clipped to 1" in clipped
    missing = {"learning_rate": 5e-5, "weight_decay": 0.01, "num_train_epochs": 3}
    assert br.explain(missing, num_data=N).findings[0].remedy == clipped
    assert "before_clip" not in br.explain(hugging_face(max_grad_norm=0.0), num_data=N).findings[0].remedy
    assert "flat" in identifiers(br.explain(hugging_face(weight_decay=0.0), num_data=N))


# -- timm --------------------------------------------------------------------------------------------------------


def test_timms_groups_and_what_its_arguments_change():
    model = Block()
    arguments = Namespace(opt="sgd", lr=0.1, weight_decay=1e-4, momentum=0.9, clip_grad=2.0, smoothing=0.1, cutmix=1.0)
    found = br.explain(arguments, model, num_data=N)
    # Vectors, biases and what the model names are free; a scale of shape (1, 1) is not.
    assert decayed(found) == {"mixer.0.weight", "debias_proj.weight", "scale"}
    assert found.groups[0].variance == pytest.approx(1 / (N * 1e-4))
    assert "Gradients are clipped to 2" in str(found)
    assert "label smoothing and cutmix change the targets" in str(found)
    assert found.to_dict() == br.explain(vars(arguments), model, num_data=N).to_dict()
    other = br.explain(Namespace(opt="sgd", weight_decay=1e-4, clip_grad=0.01, clip_mode="agc"), num_data=N)
    assert "clipped by agc" in str(other)


@pytest.mark.parametrize(
    ("opt", "kind"),
    [("sgd", "coupled"), ("nadam", "coupled"), ("lookahead_adam", "coupled"), ("adamw", "decoupled"),
     ("adabelief", "decoupled"), ("lamb", "other"), ("newest", "unknown")],
)  # fmt: skip
def test_timms_optimizers(opt, kind):
    assert br.explain({"opt": opt, "weight_decay": 0.05}, num_data=N).groups[0].decay == kind


def test_the_decay_of_timms_heavy_ball_is_the_prior_of_where_it_ends():
    """θ ← (1 − lr·λ)θ beside SGD with momentum μ rests where a coupled SGD with λ(1 − μ) does."""
    torch.manual_seed(0)
    X, y = torch.randn(40, 3, dtype=torch.float64), torch.randn(40, dtype=torch.float64)
    decay, momentum, rate = 0.3, 0.8, 0.05
    found = br.explain({"opt": "sgdw", "weight_decay": decay, "momentum": momentum}, num_data=40)
    w, buffer = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for _ in range(5000):
        gradient = X.T @ (X @ w - y) / 40
        w = w * (1 - rate * decay)
        buffer = momentum * buffer + gradient
        w = w - rate * buffer
    truth = torch.linalg.solve(X.T @ X + torch.eye(3).double() / found.groups[0].variance, X.T @ y)
    assert (w - truth).abs().max() < 0.01 * truth.abs().max()
    naive = torch.linalg.solve(X.T @ X + 40 * decay * torch.eye(3).double(), X.T @ y)
    assert (w - naive).abs().max() > 0.1 * truth.abs().max()
    assert "decoupled-momentum" in identifiers(found)


# -- Keras -------------------------------------------------------------------------------------------------------


class L2:
    def __init__(self, l2):
        self.l2 = l2

    def get_config(self):
        return {"l2": self.l2}


def test_a_keras_penalty_has_no_half():
    found = br.explain({"class_name": "L2", "config": {"l2": 0.01}}, num_data=N)
    assert found.groups[0].variance == pytest.approx(br.l2_coefficient_to_variance(0.01, N))
    assert found.groups[0].weight_decay == 0.02
    assert identifiers(found) == ["missing-half", "regularizer-of-a-layer"]
    assert br.explain(L2(0.01), num_data=N).to_dict() == found.to_dict()
    # One gradient step of the penalty is that of the prior it names.
    w = torch.randn(5, dtype=torch.float64, requires_grad=True)
    (0.01 * w.square().sum()).backward()
    prior = br.Gaussian(found.groups[0].std)
    pull = torch.zeros_like(w)
    prior.add_grad_([pull], [w.detach()], 1 / N)
    assert torch.allclose(pull, w.grad, rtol=1e-12)


def test_other_keras_penalties():
    lasso = br.explain({"l1": 1e-3}, num_data=N)
    assert lasso.groups[0].std == pytest.approx(2**0.5 * br.l1_to_laplace_scale(1e-3, N))
    assert identifiers(lasso)[0] == "subgradient"
    both = br.explain({"class_name": "L1L2", "config": {"l1": 1e-3, "l2": 0.01}}, num_data=N)
    prior = br.ElasticNet(1e-3 * N, 0.02 * N)
    assert both.groups[0].variance == pytest.approx(float(prior.variance()))
    assert {"subgradient", "missing-half"} <= set(identifiers(both))
    with pytest.raises(br.InvalidArgumentError, match="expected l1 or l2 > 0"):
        br.explain({"class_name": "L2", "config": {"l2": 0.0}}, num_data=N)
    with pytest.raises(br.InvalidArgumentError, match=r"l2: expected a number >= 0, and not beyond 1e\+30, got -1"):
        br.explain({"class_name": "L2", "config": {"l2": -1}}, num_data=N)


def test_keras_optimizers_decouple_and_sgd_is_a_prior_all_the_same():
    config = {"learning_rate": 0.01, "weight_decay": 1e-3, "momentum": 0.9}
    found = br.explain({"class_name": "SGD", "config": config}, num_data=N)
    assert found.groups[0].variance == pytest.approx(1 / (N * 1e-4))
    assert identifiers(found) == ["decoupled-momentum", "read-as"]
    plain = br.explain({"class_name": "SGD", "config": {**config, "momentum": 0.0}}, num_data=N)
    assert plain.groups[0].variance == pytest.approx(1 / (N * 1e-3))
    assert identifiers(plain) == ["read-as"]
    adam = br.explain({"class_name": "Adam", "config": config}, num_data=N)
    assert identifiers(adam) == ["decoupled-decay", "read-as"]


def test_settings_of_others_are_not_taken_for_one_of_these():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    state = {"opt": optimizer.state_dict(), "lr": 0.1, "l2": 1e-4}
    # A checkpoint is read as one, whatever else is in it.
    assert br.explain(state, model, num_data=N).groups[0].weight_decay == 0.1
    saved = {"optimizer": optimizer.state_dict(), "learning_rate": 3.0, "weight_decay": 0.7, "num_train_epochs": 3}
    assert br.explain(saved, model, num_data=N).groups[0].weight_decay == 0.1
    strangers = [
        Namespace(opt="adam", lr=0.1, epochs=3),
        Namespace(optim="sgd", learning_rate=0.1, weight_decay=5e-4, momentum=0.9),
        {"opt": {"a": 1}, "weight_decay": 0.1},
        {"l1": {"weight": torch.zeros(2)}, "fc": {}},
        {},
    ]
    for given in strangers:
        with pytest.raises(br.InvalidArgumentError, match=r"training settings|settings of Hugging"):
            br.explain(given, model, num_data=N)
    both = {"learning_rate": 0.1, "weight_decay": 0.01, "num_train_epochs": 3, "l1": 0.1}
    assert "Read as Hugging Face training arguments" in str(br.explain(both, model, num_data=N))
    assert "its default" in str(br.explain(both, model, num_data=N))


def test_the_trainers_own_decay_and_rate_come_before_optim_args():
    args = "weight_decay=0.5,lr=3,momentum=0.9,name=x,a=1e,b=-"
    for optim in ("sgd", "adamw_torch"):
        found = br.explain(hugging_face(optim=optim, optim_args=args), num_data=N)
        assert found.groups[0].weight_decay == 0.01


def test_timms_factory_may_decay_everything():
    for flag in ("filter_bias_and_bn", "weight_decay_exclude_1d"):
        found = br.explain({"opt": "sgd", "weight_decay": 0.1, flag: False}, Block(), num_data=N)
        assert len(found.groups) == 1
        assert "biases-decayed" in identifiers(found)


def test_a_clip_and_a_momentum_that_change_nothing_are_not_told():
    quiet = [
        {"opt": "adamw", "weight_decay": 0.1, "clip_grad": 1.0, "clip_mode": "agc"},
        {"opt": "sgdw", "weight_decay": 0.0},
        {"opt": "sgdw", "weight_decay": 0.1, "momentum": 0.0},
    ]
    for given in quiet:
        assert not {"clip-before-decay", "decoupled-momentum"} & set(identifiers(br.explain(given, num_data=N)))
    with pytest.raises(br.InvalidArgumentError, match="momentum: expected a number below 1"):
        br.explain({"opt": "sgdw", "weight_decay": 0.1, "momentum": 1.0}, num_data=N)


def test_a_clip_counts_by_the_share_of_what_is_decayed():
    model = nn.Sequential(nn.Linear(30, 30, bias=False), nn.Linear(30, 1, bias=False))
    groups = [{"params": [model[0].weight], "weight_decay": 0.0}, {"params": [model[1].weight], "weight_decay": 0.1}]
    model(torch.randn(4, 30)).sum().backward()
    found = br.explain(torch.optim.SGD(groups, lr=0.1), model, num_data=N, clip_norm=1e-3)
    importance = next(f.importance for f in found.findings if f.identifier == "clip-before-decay")
    assert 0 < importance <= 30 / 930


# -- what is shown -----------------------------------------------------------------------------------------------


def test_what_is_no_settings():
    for given in ("adamw", {"optimizer": "sgd"}, 3, SimpleNamespace(optim="sgd"), nn.Linear(1, 1)):
        with pytest.raises(br.InvalidArgumentError, match=r"optimizer: expected|checkpoint: expected"):
            br.explain(given, nn.Linear(1, 1), num_data=N)
    with pytest.raises(br.InvalidArgumentError, match="weight_decay: expected a number, got 'much'"):
        br.explain(hugging_face(weight_decay="much"), num_data=N)


def test_findings_come_in_the_order_of_what_they_change():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 2))
    weights = [p for p in model.parameters() if p.ndim > 1]
    with torch.no_grad():
        for w in weights:
            w.mul_(5.0)
    optimizer = torch.optim.ASGD(model.parameters(), weight_decay=1e-3, lambd=1e-4)
    found = br.explain(optimizer, model, num_data=N)
    ranks = [(f.severity, f.importance) for f in found.findings]
    assert ranks == sorted(ranks, key=lambda rank: (rank[0] != "warning", -rank[1]))
    by_name = {f.identifier: f.importance for f in found.findings}
    assert by_name["hidden-lambd"] == pytest.approx(1e-4 / 1.1e-3)
    squares = {p.ndim: 0.0 for p in model.parameters()}
    for p in model.parameters():
        squares[p.ndim] += float(p.detach().square().sum())
    assert by_name["biases-decayed"] == pytest.approx(squares[1] / sum(squares.values()), rel=1e-6)
    assert all(0.0 <= f.importance <= 1.0 for f in found.findings)
    # A few biases matter less than a width that is far off; most of the penalty on them matters more.
    narrow = torch.optim.SGD(model.parameters(), weight_decay=1.0)
    assert identifiers(br.explain(narrow, model, num_data=N))[:2] == ["width", "biases-decayed"]
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.02 if p.ndim > 1 else 3.0)
    fitting = torch.optim.SGD(model.parameters(), weight_decay=5e-2)
    assert identifiers(br.explain(fitting, model, num_data=N))[0] == "biases-decayed"


def test_a_bias_counts_by_its_own_decay():
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(1.0)
    groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias], "weight_decay": 0.3}]
    found = br.explain(torch.optim.SGD(groups), model, num_data=20)
    share = next(f.importance for f in found.findings if f.identifier == "biases-decayed")
    assert share == pytest.approx(0.6 / (0.6 + 0.4))


def test_the_share_of_a_group_weighs_its_finding():
    model = nn.Sequential(nn.Linear(30, 30, bias=False), nn.Linear(30, 1, bias=False))
    groups = [{"params": [model[0].weight], "weight_decay": 0.0}, {"params": [model[1].weight], "weight_decay": 0.1}]
    found = br.explain(torch.optim.AdamW(groups), model, num_data=N)
    hit = next(f for f in found.findings if f.identifier == "decoupled-decay")
    assert hit.importance == pytest.approx(30 / 930)


def test_it_is_shown_four_ways(capsys):
    model = nn.Linear(3, 1)
    found = br.explain(torch.optim.SGD(model.parameters(), weight_decay=5e-4), model, num_data=N)
    found.show()
    assert capsys.readouterr().out == f"{found}\n"  # no terminal: plain
    assert repr(found) == str(found)
    page = found._repr_html_()
    assert page.count("<li>") == len(found.findings)
    assert "<strong>warning</strong>" in page
    data = json.loads(found.to_json())
    assert data["findings"][0]["identifier"] == found.findings[0].identifier
    free = br.explain(torch.optim.SGD(model.parameters()), model, num_data=N)
    assert json.loads(free.to_json())["groups"][0]["std"] == "inf"
    table = br.ModelPrior(model, br.Gaussian(0.1)).describe(num_data=N)
    assert repr(table) == str(table)
    assert json.loads(table.to_json())["rows"][0]["prior"].startswith("Gaussian")


def test_a_terminal_gets_colours(monkeypatch, capsys):
    model = nn.Linear(3, 1)
    found = br.explain(torch.optim.SGD(model.parameters(), weight_decay=5e-4), model, num_data=N)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    found.show()
    out = capsys.readouterr().out
    assert "\x1b[1;31mwarning" in out
    assert "[biases-decayed]" in out


def test_nothing_is_changed():
    model = Block()
    before = copy.deepcopy(model.state_dict())
    br.explain(hugging_face(), model, num_data=N)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_the_width_is_measured_from_the_centre_of_an_attached_prior():
    model = nn.Linear(30, 30)
    prior = br.ModelPrior(model, br.Gaussian.centered_at(model, scale=1e-3))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, num_data=N)
    assert "width" not in identifiers(br.explain(optimizer, model, num_data=N))
    with torch.no_grad():
        model.weight.add_(0.01)
    found = br.explain(optimizer, model, num_data=N)
    assert found.findings[0].identifier == "width"
    assert "rms 0.01 about their centre is 10.0 prior stds" in found.findings[0].text
    assert found.groups[0].offset_rms == pytest.approx(0.01, rel=1e-4)


def test_every_finding_is_a_row_of_the_page_and_the_reverse():
    package = Path(inspect.getfile(br)).parent
    page = package.parent / "docs" / "explain.md"
    if not page.is_file():
        pytest.skip("the documentation is not beside the package")
    made = set()
    for path in (package / "explaining").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}: an identifier by name"
                made.add(node.args[0].value)
    rows = page.read_text(encoding="utf-8").partition("## Findings")[2].partition("\n\nWeights")[0]
    assert made == set(IDENTIFIERS)
    assert made == set(re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\|([^|]*)\|", rows, re.M))))


# -- the run that settings say ---------------------------------------------------------------------------------------

FINE_TUNE = {"optim": "adamw_torch", "learning_rate": 3e-4, "weight_decay": 0.1, "per_device_train_batch_size": 4}


@pytest.mark.parametrize("kind", ["constant", "constant_with_warmup", "linear", "cosine"])
@pytest.mark.parametrize(
    ("more", "steps", "rising"),
    [
        ({"max_steps": 500, "warmup_steps": 30}, 500, 30),
        ({"num_train_epochs": 2, "gradient_accumulation_steps": 3, "warmup_ratio": 0.1}, 168, 17),
        ({"num_train_epochs": 1.5, "warmup_steps": 0.05}, 375, 19),
        ({}, 750, 0),
    ],
)
def test_hugging_face_arguments_bring_their_run(kind, more, steps, rising):
    get_scheduler = pytest.importorskip("transformers").get_scheduler
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=3e-4)
    scheduler, total = get_scheduler(kind, optimizer, num_warmup_steps=rising, num_training_steps=steps), 0.0
    for _ in range(steps):
        total += 0.1 * optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
    given = {**FINE_TUNE, "lr_scheduler_type": kind, **more}
    found = br.explain(given, nn.Linear(2, 1), num_data=1000).groups[0].horizon
    assert found.steps == steps
    assert found.decay_sum == pytest.approx(total, rel=1e-12)


def test_what_is_said_besides_comes_before_the_settings():
    given, model = {**FINE_TUNE, "num_train_epochs": 2}, nn.Linear(2, 1)
    assert br.explain(given, model, num_data=1000).groups[0].horizon.steps == 500
    assert br.explain(given, model, num_data=1000, steps=70).groups[0].horizon.steps == 70
    assert br.explain(given, model, num_data=1000, batch_size=10).groups[0].horizon.steps == 200
    flat = br.explain(given, model, num_data=1000, schedule="constant").groups[0].horizon
    assert flat.decay_sum == pytest.approx(500 * 3e-5)
    rising = br.explain(given, model, num_data=1000, schedule="constant", warmup=99).groups[0].horizon
    assert rising.decay_sum == pytest.approx(451 * 3e-5)
    with pytest.raises(br.InvalidArgumentError, match="warmup: the settings have a schedule of their own"):
        br.explain(given, model, num_data=1000, warmup=99)
    # Epochs of no number of examples are no steps; a few settings by hand are no run.
    assert br.explain(given, model, num_data=br.LossScale.sum()).groups[0].horizon is None
    by_hand = {"optim": "adamw_torch", "learning_rate": 3e-4, "weight_decay": 0.1}
    assert br.explain(by_hand, model, num_data=1000).groups[0].horizon is None


def test_a_schedule_that_is_not_read_is_said():
    for given in (
        {**FINE_TUNE, "lr_scheduler_type": "polynomial"},
        {**FINE_TUNE, "lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 2}},
        {"opt": "adamw", "lr": 0.1, "weight_decay": 0.1, "epochs": 3, "batch_size": 4, "sched": "step"},
    ):
        explanation = br.explain(given, nn.Linear(2, 1), num_data=1000)
        assert "schedule-not-read" in {f.identifier for f in explanation.findings}
        assert explanation.groups[0].horizon is None
        assert br.explain(given, nn.Linear(2, 1), num_data=1000, steps=10).groups[0].horizon.steps == 10


def test_training_arguments_themselves_bring_their_run(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    given = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "weight_decay": 0.1, "learning_rate": 1e-3}
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **given)
    assert br.explain(arguments, nn.Linear(2, 1), num_data=1000).groups[0].horizon.steps == 500


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"warmup_epochs": 3, "warmup_lr": 1e-4}, {"cooldown_epochs": 4, "min_lr": 1e-3}])
def test_timms_arguments_bring_their_run(more):
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    put_in_place()
    from timm import scheduler

    given = {"lr": 0.1, "epochs": 12, "batch_size": 10, "sched": "cosine", "opt": "adamw", "weight_decay": 0.1, **more}
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=0.1)
    none = {"min_lr": 0.0, "warmup_lr": 0.0, "warmup_epochs": 0, "cooldown_epochs": 0}
    made, epochs = scheduler.create_scheduler_v2(optimizer, sched="cosine", num_epochs=12, **{**none, **more})
    total = 0.0
    for epoch in range(epochs):
        made.step(epoch)
        # 105 examples in batches of 10, the last of which is left out.
        total += 10 * 0.1 * optimizer.param_groups[0]["lr"]
    found = br.explain(given, nn.Linear(2, 1), num_data=105).groups[0].horizon
    assert found.steps == 10 * epochs
    assert found.decay_sum == pytest.approx(total, rel=1e-12)
