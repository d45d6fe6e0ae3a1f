"""The examples of the trainer, from end to end; shorter than they are for people."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

import bayesreg as br

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def example(name):
    path = EXAMPLES / f"{name}.py"
    if not path.is_file():
        pytest.skip("the examples are not beside the tests")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_language_model_is_trained_stopped_and_goes_on(tmp_path, monkeypatch):
    module = example("language_model")
    ours, others = module.text()
    monkeypatch.setattr(module, "text", lambda: (ours[:160], others[:40]))
    monkeypatch.setattr(module, "LAYERS", 6)
    whole, result = module.train(6, tmp_path / "whole", progress=False)
    assert len(whole.model.layers) == 6
    assert whole.model.head.weight is whole.model.embedding.weight
    # Every byte that is not masked is one of n, however long the lines are.
    assert result.num_data == sum(min(len(line.encode()) + 1, module.LENGTH) for line in ours[:160])
    assert result.loss_scale.value == pytest.approx(1 / result.num_data)
    assert result.history[-1]["val_nll"] < result.history[0]["val_nll"]
    # The log-prior counts the tied tensor once.
    distinct = {id(p): p for p in whole.model.parameters()}
    assert sum(entry.parameter.numel() for entry in whole.prior) == sum(p.numel() for p in distinct.values())

    class Stops(br.callbacks.Callback):
        def on_step(self, training):
            if training.step == 4:
                raise KeyboardInterrupt

    made = br.MAPTrainer.__init__

    def stopping(self, *args, **kwargs):
        made(self, *args, **{**kwargs, "callbacks": Stops(), "checkpoint_every": 1})

    with monkeypatch.context() as patch:
        patch.setattr(br.MAPTrainer, "__init__", stopping)
        with pytest.raises(KeyboardInterrupt):
            module.train(6, tmp_path / "parts", progress=False)
    again, _ = module.train(6, tmp_path / "parts", progress=False)
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_a_weighted_table_goes_through(capsys):
    example("weighted_table").main()
    out = capsys.readouterr().out
    assert re.search(r"counts +: n = 514, weight_decay 0\.0216", out)
    assert re.search(r"relative +: n = 398, weight_decay 0\.0279", out)
    accuracies = [float(found) for found in re.findall(r"accuracy (0\.\d+)", out)]
    assert min(accuracies) > 0.9
    assert "The first test rows: " in out
