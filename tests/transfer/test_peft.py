"""lora_prior on PEFT's own layers, in a small transformer built here."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import bayesreg as br

peft = pytest.importorskip("peft", reason="needs peft: pip install 'bayesreg[test]'")
transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'bayesreg[test]'")

lora_prior = br.transfer.lora_prior
HEAD = br.Gaussian(1.0)


def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, num_labels=2
    )
    return transformers.BertForSequenceClassification(config)


def gpt():
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    )


def adapted(model=None, kind=None, move=True, **keywords):
    """Return a PEFT model whose adapters have moved."""
    if kind is None:
        keywords = {"r": 3, "lora_alpha": 6, "target_modules": ["query", "value"], "task_type": "SEQ_CLS", **keywords}
        kind = peft.LoraConfig(**keywords)
    with warnings.catch_warnings():
        # Its own, about transformers' coming renames.
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(bert() if model is None else model, kind)
    if move:
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_" in name and "magnitude" not in name:
                    parameter.add_(
                        0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
                    )
    return wrapped


def explicit(model, scale, adapter="default"):
    """Return the penalty of the updates that PEFT itself would merge."""
    total = torch.zeros(())
    for module in model.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer) and adapter in module.scaling:
            total = total + 0.5 * (module.get_delta_weight(adapter) / scale).square().sum()
    return total


def factors(model):
    return {n: p for n, p in model.named_parameters() if p.requires_grad and "lora_" in n and "magnitude" not in n}


def of_adapters(prior):
    """Return the penalty of the adapters alone, and its gradients."""
    return prior.penalty() - sum(e.prior.penalty(e.parameter) for e, p in prior.active() if isinstance(p, br.Gaussian))


@pytest.mark.parametrize("keywords", [
    {},
    {"use_rslora": True},
    {"use_dora": True},
    {"bias": "lora_only"},
    {"init_lora_weights": "pissa"},
    {"rank_pattern": {"query": 5}, "alpha_pattern": {"value": 20}},
    {"target_modules": ["word_embeddings", "query", "dense"]},
], ids=lambda k: next(iter(k), "lora"))  # fmt: skip
def test_value_and_gradients_are_those_of_the_updates_that_peft_merges(keywords):
    model = adapted(**keywords)
    prior = lora_prior(model, 0.05, head=HEAD)
    assert [e.name for e, p in prior.active() if isinstance(p, br.Gaussian)] == [
        "base_model.model.classifier.modules_to_save.default.weight"
    ]
    mine, expected = of_adapters(prior), explicit(model, 0.05)
    assert mine.item() == pytest.approx(expected.item(), rel=1e-4)
    held = list(factors(model).values())
    found, wanted = (torch.autograd.grad(value, held) for value in (mine, expected))
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def test_transposed_weights_take_their_scales_transposed():
    model = adapted(gpt(), target_modules=["c_attn", "wte"], task_type="CAUSAL_LM")
    names = {"transformer.h.0.attn.c_attn.weight": (16, 48), "transformer.wte.weight": (50, 16)}
    each = {name: 0.05 + torch.rand(shape) for name, shape in names.items()}
    prior = lora_prior(model, {**each, "transformer.ln_f.weight": torch.ones(16)})
    base = model.get_base_model().transformer
    expected = explicit(base.h[0].attn.c_attn, each["transformer.h.0.attn.c_attn.weight"])
    expected = expected + explicit(base.wte, each["transformer.wte.weight"])
    assert prior.penalty().item() == pytest.approx(expected.item(), rel=1e-4)


def test_convolutions():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.point = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)

        def forward(self, x):
            return self.point(self.conv(x))

    model = adapted(Net(), peft.LoraConfig(r=2, lora_alpha=3, target_modules=["conv", "point"]))
    assert lora_prior(model, 0.1).penalty().item() == pytest.approx(explicit(model, 0.1).item(), rel=1e-4)
    width = 0.05 + torch.rand(6, 3, 3, 3)
    expected = explicit(model.base_model.model.conv, width) + explicit(model.base_model.model.point, 0.1)
    found = lora_prior(model, {"conv.weight": width, "*": 0.1}).penalty()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_pissa_is_centred_where_it_starts():
    model = adapted(init_lora_weights="pissa", move=False)
    prior = lora_prior(model, 0.05, head=HEAD, reference=model)
    assert of_adapters(prior).item() == 0.0
    start = [m.get_delta_weight("default") for m in model.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    with torch.no_grad():
        for parameter in factors(model).values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    now = [m.get_delta_weight("default") for m in model.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    expected = sum(0.5 * ((a - b) / 0.05).square().sum() for a, b in zip(now, start, strict=True))
    assert of_adapters(prior).item() == pytest.approx(expected.item(), rel=1e-4)
    assert "have an update already" in lora_prior(model, 0.05, head=HEAD).notes[0]


def test_a_saved_adapter_is_a_centre(tmp_path):
    model = adapted()
    model.save_pretrained(tmp_path)
    assert of_adapters(lora_prior(model, 0.05, head=HEAD, reference=tmp_path)).item() == pytest.approx(0.0, abs=1e-6)
    file = tmp_path / "adapter_model.safetensors"
    assert of_adapters(lora_prior(model, 0.05, head=HEAD, reference=file)).item() == pytest.approx(0.0, abs=1e-6)


def test_only_the_active_adapter_counts():
    model = adapted()
    model.add_adapter("other", peft.LoraConfig(r=2, lora_alpha=7, target_modules=["query", "key"], task_type="SEQ_CLS"))
    model.set_adapter("other")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "other" in name and "lora" in name:
                parameter.normal_()
    prior = lora_prior(model, 0.05, head=HEAD)
    assert {e.name for e, p in prior.active() if p.family == "AdapterGaussian"} == set(factors(model))
    assert of_adapters(prior).item() == pytest.approx(explicit(model, 0.05, "other").item(), rel=1e-4)


def test_a_training_run_stays_nearer_to_the_pretrained_weights():
    tokens, labels = torch.randint(0, 50, (32, 8)), torch.randint(0, 2, (32,))
    moved = {}
    for scale in (1e-3, 1e3):
        model = adapted(move=False)
        prior = lora_prior(model, scale, head=HEAD)
        optimizer = torch.optim.AdamW(prior.param_groups(), lr=5e-3, weight_decay=0.0)
        handle = br.attach(optimizer, prior, num_data=32)
        for _ in range(25):
            optimizer.zero_grad()
            model(input_ids=tokens, labels=labels).loss.backward()
            optimizer.step()
        moved[scale] = explicit(model, 1.0).item()
        assert handle.log()["penalty"] == pytest.approx(prior.penalty().item(), rel=1e-4)
    assert moved[1e-3] < 0.1 * moved[1e3]


def test_a_file_gives_the_prior_back(tmp_path):
    model = adapted()
    prior = lora_prior(model, 0.05, head=HEAD)
    prior.save(tmp_path / "prior.safetensors")
    assert torch.equal(br.ModelPrior.load(tmp_path / "prior.safetensors", model).penalty(), prior.penalty())


@pytest.mark.parametrize(("make", "message"), [
    (lambda: adapted(kind=peft.AdaLoraConfig(target_modules=["query"], task_type="SEQ_CLS", total_step=10)),
     "AdaLoRA has a diagonal between"),
    (lambda: adapted(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), peft.LoraConfig(r=2, target_modules=["0"])),
     "convolution has 2 groups"),
])  # fmt: skip
def test_updates_of_another_form_are_refused(make, message):
    with pytest.raises(br.UnsupportedError, match=message):
        lora_prior(make(), 0.1, head=HEAD)


def test_other_adapters_are_not_mistaken():
    model = adapted(kind=peft.LoHaConfig(target_modules=["query"], task_type="SEQ_CLS"), move=False)
    with pytest.raises(br.UnsupportedError, match=r"expected LoRA adapters, got others .*hada"):
        lora_prior(model, 0.1, head=HEAD)


def test_frozen_adapters_are_told_from_none(tmp_path):
    adapted().save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(bert(), tmp_path)
    with pytest.raises(br.InvalidArgumentError, match=r"8 frozen factors .* is_trainable=True"):
        lora_prior(loaded, 0.1, head=HEAD)
    with pytest.raises(br.InvalidArgumentError, match="add them first"):
        lora_prior(bert(), 0.1, head=HEAD)


def test_two_adapters_on_one_weight_are_refused():
    model = adapted(nn.Sequential(nn.Linear(4, 4)), peft.LoraConfig(r=2, target_modules=["0"]))
    model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["0"]))
    model.base_model.set_adapter(["default", "other"])
    with pytest.raises(br.UnsupportedError, match="several adapters of this weight are trained"):
        lora_prior(model, 0.1)


@pytest.mark.parametrize("keywords", [
    {"lora_alpha": 2},
    {"use_rslora": True},
    {"alpha_pattern": {"value": 20}},
    {"r": 5},
    {"target_modules": ["query", "word_embeddings"]},
], ids=lambda k: next(iter(k)))  # fmt: skip
def test_a_saved_adapter_keeps_its_own_scaling(keywords, tmp_path):
    earlier, later = adapted(**keywords), adapted(target_modules=["query", "value", "word_embeddings"])
    earlier.save_pretrained(tmp_path)

    def updates(model):
        layers = {n: m for n, m in model.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
        return {n: m.get_delta_weight("default") for n, m in layers.items()}

    before = updates(earlier)
    expected = sum(0.5 * ((u - before.get(n, 0.0)) / 0.05).square().sum().item() for n, u in updates(later).items())
    prior = lora_prior(later, 0.05, head=HEAD, reference=tmp_path)
    assert of_adapters(prior).item() == pytest.approx(expected, rel=1e-4)
    assert of_adapters(lora_prior(later, 0.05, head=HEAD, reference=earlier)).item() == pytest.approx(
        expected, rel=1e-4
    )
    assert any("about 0 there" in note for note in prior.notes)


def test_attention_in_one_weight_goes_by_its_name():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.mha = nn.MultiheadAttention(8, 2)

        def forward(self, x):
            return self.mha(x, x, x)[0]

    model = adapted(Net(), peft.LoraConfig(r=2, lora_alpha=3, target_modules=["mha"]))
    each = 0.05 + torch.rand(24, 8)
    layer = model.base_model.model.mha
    expected = 0.5 * (layer.get_delta_weight("default") / each).square().sum()
    expected = expected + 0.5 * (layer.base_layer.out_proj.get_delta_weight("default") / 0.1).square().sum()
    prior = lora_prior(model, {"mha.in_proj_weight": each, "mha.out_proj.weight": 0.1})
    assert prior.penalty().item() == pytest.approx(expected.item(), rel=1e-4)
