"""The examples of docs/frameworks.md, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bayesreg as br
from tests.interop.common import Net, data

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"


def examples(heading):
    """Return the code blocks of a section."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return re.findall(r"```python\n(.*?)```", section.group(1), re.DOTALL)


def run(code, **names):
    given = {"br": br, "torch": torch, **names}
    exec(compile(code, str(PAGE), "exec"), given)
    return given


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForSequenceClassification(BertConfig(**sizes, intermediate_size=8, max_position_embeddings=8))


def in_transformers(folder):
    from transformers import TrainingArguments

    args = TrainingArguments(
        output_dir=str(folder), max_steps=3, report_to=[], disable_tqdm=True, use_cpu=True, save_strategy="no",
        label_names=["labels"],
    )  # fmt: skip
    rows = [{"input_ids": [1, 2, 3 + i % 9], "labels": i % 2} for i in range(12)]
    return {"model": bert(), "arguments": args, "dataset": rows}


@pytest.mark.parametrize("index", [0, 1])
def test_hugging_face_and_peft(index, tmp_path):
    pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    made = run(examples("Hugging Face")[index], peft=peft, **in_transformers(tmp_path))["trainer"]
    assert made.prior_handle.loss_scale.value == pytest.approx(1 / 12)
    assert made.model_prior.penalty() > 0.0


def test_trl(tmp_path):
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    from tests.interop.test_trl import TEXTS, model, tokenizer

    class WithTokens(trl.SFTTrainer):
        """It looks the tokens up by the name of a model, which this one has not."""

        def __init__(self, *args, **keywords):
            super().__init__(*args, processing_class=tokenizer(), **keywords)

    args = trl.SFTConfig(output_dir=str(tmp_path), max_steps=2, report_to=[], use_cpu=True, bf16=False)
    names = {"language_model": model().float(), "sft_arguments": args, "texts": Dataset.from_dict({"text": TEXTS})}
    fake = type("trl", (), {"SFTTrainer": WithTokens})
    made = run(examples("Hugging Face")[2], trl=fake, **names)["trainer"]
    assert made.prior_handle.loss_scale.value < 1 / 20


def test_lightning(tmp_path, monkeypatch):
    # It writes its checkpoints where it is called.
    monkeypatch.chdir(tmp_path)
    lightning = pytest.importorskip("lightning.pytorch")
    from tests.interop.test_lightning import Module

    loader = DataLoader(TensorDataset(*data()), batch_size=20)
    made = run(examples("Lightning")[0], lightning=lightning, module=Module(), loader=loader)["prior"]
    assert made.handle.loss_scale.value == pytest.approx(1 / 60)
    assert made.model_prior.penalty() > 0.0


def test_skorch():
    skorch = pytest.importorskip("skorch")
    X, y = (one.numpy() for one in data())
    net = run(examples("skorch")[0], skorch=skorch, Net=Net, X=X, y=y)["net"]
    # A fifth was held out.
    assert dict(net.callbacks_)["prior"].handle_.loss_scale.value == pytest.approx(1 / 48)


def test_the_readmes(tmp_path):
    pytest.importorskip("transformers")
    (code,) = re.findall(r"```py\n(.*?)```", (PAGE.parents[1] / "README.md").read_text("utf-8"), re.DOTALL)
    made = run(code, **in_transformers(tmp_path))["trainer"]
    made.train()
    assert made.model_prior.penalty() > 0.0


def test_no_example_is_left_out():
    assert [len(examples(name)) for name in ("Hugging Face", "Lightning", "skorch")] == [3, 1, 1]
    assert isinstance(Net(), nn.Module)
