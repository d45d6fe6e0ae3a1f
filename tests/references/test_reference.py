"""Every way of giving reference weights: what they become, what is noted, and every mismatch at once."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bayesreg as br


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def mapped(path):
    """Return whether this process has a file mapped."""
    with open("/proc/self/maps") as maps:
        return any(str(path) in line for line in maps)


def same(reference, state):
    return set(reference) == set(state) and all(torch.equal(reference[n], t) for n, t in state.items())


# -- directories ---------------------------------------------------------------------------------------


def directory(path, state, form):
    """Write a Hugging Face directory: one file or two shards, safetensors or torch."""
    names = sorted(state)
    parts = [names] if form.startswith("one") else [names[:2], names[2:]]
    suffix = "safetensors" if form.endswith("safetensors") else "bin"
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    weight_map = {}
    for index, part in enumerate(parts, 1):
        file = f"{stem}.{suffix}" if len(parts) == 1 else f"{stem}-{index:05d}-of-00002.{suffix}"
        chosen = {name: state[name].contiguous() for name in part}
        save_file(chosen, path / file) if suffix == "safetensors" else torch.save(chosen, path / file)
        weight_map |= dict.fromkeys(part, file)
    if len(parts) > 1:
        (path / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (path / "config.json").write_text("{}")
    return path


@pytest.mark.parametrize("form", ["one safetensors", "one torch", "sharded safetensors", "sharded torch"])
def test_hugging_face_directories(tmp_path, form):
    state = net().state_dict()
    path = directory(tmp_path, state, form)
    assert same(br.load_reference(path), state)
    assert same(br.load_reference(path, storage="memory_map"), state)


def test_broken_directories_say_what_is_wrong(tmp_path):
    def refused(message):
        with pytest.raises(br.PriorFileError, match=message):
            br.load_reference(tmp_path)

    refused("found nothing")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    refused("an adapter is no whole model, its base model is the reference")
    directory(tmp_path, net().state_dict(), "sharded safetensors")
    shard = tmp_path / "model-00002-of-00002.safetensors"
    data = shard.read_bytes()
    shard.unlink()
    refused(r"these shards are missing: model-00002-of-00002\.safetensors")
    shard.write_bytes(data[:50])
    refused("corrupt or truncated")
    save_file({"other": torch.zeros(1)}, shard)
    refused(r"the shards lack tensors that it lists: 2\.bias, 2\.weight")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"0.bias": "../secret.safetensors"}}))
    refused(r"expected files beside it, got \.\./secret\.safetensors")
    for text in ("{", "[]", '{"weight_map": 3}'):
        index.write_text(text)
        refused("not a readable index of shards")


# -- names ---------------------------------------------------------------------------------------------


def test_renaming_by_names_globs_and_patterns():
    state = {"a.0.w": torch.zeros(1), "a.1.w": torch.ones(1), "fc.w": torch.full((1,), 2.0), "n": torch.full((1,), 3.0)}
    rename = {
        re.compile(r"a\.(\d+)\."): r"blocks.\1.",
        "fc.*": None,
        "n": ("wte", "head"),
    }
    reference = br.load_reference(state, rename=rename)
    assert sorted(reference) == ["blocks.0.w", "blocks.1.w", "head", "wte"]
    assert reference["blocks.1.w"].item() == 1.0
    assert reference["head"] is reference["wte"]
    assert reference.notes == (
        "renamed: a.0.w -> blocks.0.w; a.1.w -> blocks.1.w; n -> wte and head",
        "left out: fc.w",
    )
    assert sorted(br.load_reference(state, rename={"a.*": "*", "*": "bert.*"})) == ["0.w", "1.w", "bert.fc.w", "bert.n"]
    # Backslashes and brackets of a name are plain characters.
    assert sorted(br.load_reference({"w[0]": torch.zeros(1)}, rename={"w[0]": r"v\1"})) == [r"v\1"]


def test_renaming_that_does_not_fit():
    state = {"a.w": torch.zeros(1), "b.w": torch.zeros(1)}
    with pytest.raises(br.ReferenceMismatchError) as caught:
        br.load_reference(state, rename={"a.*": "c.*", "b.*": "c.*", "encodr.*": "e.*"})
    assert "a.w and b.w both become c.w" in str(caught.value)
    assert "'encodr.*' matches no tensor that an earlier rule left" in str(caught.value)
    for rename, message in [
        ({"a.*": "c"}, r"expected as many \* on both sides, got 'c'"),
        ({"a.w": 3}, "expected a name, several, or None to leave the tensor out, got 3"),
        ({3: "a"}, "expected a mapping from names, globs or compiled patterns, got the key 3"),
        ("a", "rename: expected a mapping, got str"),
    ]:
        with pytest.raises(br.InvalidArgumentError, match=message):
            br.load_reference(state, rename=rename)


def test_the_renaming_that_would_fit_is_named():
    body = net()
    whole = nn.ModuleDict({"bert": net()})
    with pytest.raises(br.ReferenceMismatchError, match=r"with rename=\{'\*': 'bert\.\*'\} 2 of 2 missing names"):
        br.ModelPrior(whole, br.Gaussian.centered_at(body, 0.1))
    with pytest.raises(br.ReferenceMismatchError, match=r"with rename=\{'bert\.\*': '\*'\} 2 of 2 missing names"):
        br.ModelPrior(body, br.Gaussian.centered_at(whole, 0.1))
    # One prefix in place of another, and a head besides.
    other = nn.ModuleDict({"encoder": net(), "head": nn.Linear(2, 3)})
    for call in (br.transfer.load_into, lambda m, r: br.transfer.l2_sp(m, r, body_scale=0.1, covered="all")):
        with pytest.raises(br.ReferenceMismatchError, match=r"with rename=\{'bert\.\*': 'encoder\.\*'\} 4 of 6"):
            call(other, whole)
    br.ModelPrior(whole, br.Gaussian.centered_at(body, 0.1, rename={"*": "bert.*"}))
    br.ModelPrior(body, br.Gaussian.centered_at(whole, 0.1, rename={"bert.*": "*"}))


# -- where it is kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["w.safetensors", "w.pt"])
def test_a_memory_mapped_centre_is_the_file_and_equals_a_copy(tmp_path, form):
    model, path = nn.Linear(64, 64), tmp_path / form
    state = nn.Linear(64, 64).state_dict()
    save_file(state, path) if form.endswith("safetensors") else torch.save(state, path)
    copied = br.ModelPrior(model, {"*": br.Gaussian.centered_at(path, 0.1)})
    assert not mapped(path)
    shared = br.ModelPrior(model, {"*": br.Gaussian.centered_at(path, 0.1, storage="memory_map")})
    assert mapped(path)
    assert torch.equal(copied.log_prob(), shared.log_prob())
    assert torch.equal(shared["weight"].centre(), state["weight"])
    assert "memory-mapped: the file must not change" in str(shared.describe())
    # Training writes nothing into the file.
    before = path.read_bytes()
    trainer = br.MAPTrainer(model, shared, br.likelihoods.Gaussian(1.0), max_epochs=1, progress=False)
    trainer.fit((torch.randn(8, 64), torch.randn(8, 64)))
    assert path.read_bytes() == before


def test_a_shared_reference_is_not_copied_for_each_prior(tmp_path):
    save_file(net().state_dict(), tmp_path / "w.safetensors")
    reference = br.load_reference(tmp_path / "w.safetensors", storage="memory_map")
    rules = {"0.*": br.Laplace.centered_at(reference, 0.1), "*": br.Gaussian.centered_at(reference, 0.1)}
    prior = br.ModelPrior(net(), rules)
    for name in reference:
        assert prior[name].loc.data_ptr() == reference[name].data_ptr()


@pytest.mark.parametrize("family", [br.Gaussian, br.Laplace, br.StudentT])
def test_bfloat16_is_half_the_memory_and_exact_to_its_precision(family):
    arguments = {"df": 4.0, "scale": 0.1} if family is br.StudentT else {"scale": 0.1}
    pretrained, model = nn.Linear(50, 40), nn.Linear(50, 40)
    prior = br.ModelPrior(model, {"*": family.centered_at(pretrained, **arguments, storage="bfloat16")})
    loc = prior["weight"].loc
    assert loc.dtype == torch.bfloat16
    assert loc.untyped_storage().nbytes() == 2 * 50 * 40
    weight = pretrained.weight.detach()
    assert ((loc.float() - weight).abs() <= weight.abs() / 256).all()
    # What is computed is exactly the density about the rounded centre, in float32.
    rounded = {name: tensor.bfloat16().float() for name, tensor in pretrained.state_dict().items()}
    plain = br.ModelPrior(model, {"*": family.centered_at(rounded, **arguments)})
    assert torch.equal(prior.log_prob(), plain.log_prob())
    assert "rounded by at most one part in 256" in str(prior.describe())
    trained = []
    for chosen in (prior, plain):
        torch.manual_seed(0)
        copy = nn.Linear(50, 40)
        for one, other in zip(copy.parameters(), model.parameters(), strict=True):
            one.data.copy_(other.data)
        held = br.ModelPrior(copy, {"*": family.centered_at({n: chosen[n].loc for n in rounded}, **arguments)})
        optimizer = torch.optim.SGD(copy.parameters(), lr=0.01, momentum=0.9)
        br.attach(optimizer, held, num_data=100)
        for _ in range(5):
            optimizer.zero_grad()
            copy(torch.ones(3, 50)).square().mean().backward()
            optimizer.step()
        trained.append(copy.weight.detach())
    assert torch.equal(*trained)


def test_bfloat16_survives_a_file(tmp_path):
    model, pretrained = net(), net()
    prior = br.ModelPrior(model, {"*": br.Gaussian.centered_at(pretrained, 0.1, storage="bfloat16")})
    prior.save(tmp_path / "p.safetensors")
    again = br.ModelPrior.load(tmp_path / "p.safetensors", model)
    assert again["0.weight"].loc.dtype == torch.bfloat16
    assert torch.equal(again.log_prob(), prior.log_prob())
    assert str(again.describe()) == str(prior.describe())


def test_values_that_bfloat16_holds_are_called_exact():
    exact = nn.Linear(2, 1).bfloat16().float()
    prior = br.ModelPrior(nn.Linear(2, 1), {"*": br.Gaussian.centered_at(exact, 0.1, storage="bfloat16")})
    assert "kept in bfloat16: all values fit exactly" in str(prior.describe())


@pytest.mark.parametrize("storage", ["copy", "bfloat16"])
def test_tensors_in_other_orders_of_memory(storage):
    base = torch.randn(6, 4, 3, 3)
    for tensor in (base.to(memory_format=torch.channels_last), base.mT, base[:, ::2], base[:1].expand(5, 4, 3, 3)):
        kept = br.load_reference({"w": tensor}, storage=storage)["w"]
        assert torch.equal(kept.float(), tensor if storage == "copy" else tensor.bfloat16().float())
    bad = base[:, ::2].clone().mT
    bad[0, 0, 0, 0] = float("nan")
    with pytest.raises(br.ReferenceMismatchError, match="w has 1 of 108 elements NaN"):
        br.load_reference({"w": bad}, storage=storage)


def test_storage_that_cannot_be(tmp_path):
    with pytest.raises(br.InvalidArgumentError, match="expected the path of a file or directory, got a Sequential"):
        br.load_reference(net(), storage="memory_map")
    with pytest.raises(br.InvalidArgumentError, match=r"storage: expected one of copy, .* got 'bfloat61'; did"):
        br.load_reference(net(), storage="bfloat61")
    with pytest.raises(br.InvalidArgumentError, match="extra: expected 'raise' or 'ignore', got 'skip'"):
        br.load_reference(net(), extra="skip")
    with pytest.raises(br.ReferenceMismatchError, match="too large for bfloat16"):
        br.load_reference({"w": torch.tensor([3.4e38])}, storage="bfloat16")
    torch.save(net().state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(br.PriorFileError, match=r"format from before 1\.6, which cannot be memory-mapped"):
        br.load_reference(tmp_path / "old.pt", storage="memory_map")


# -- bad weights -----------------------------------------------------------------------------------------


def test_every_tensor_without_finite_values_is_listed():
    state = {f"{i}.w": torch.tensor([0.0, float("nan") if i % 2 else float("inf")]) for i in range(8)}
    state["m"] = torch.empty(3, device="meta")
    with pytest.raises(br.ReferenceMismatchError) as caught:
        br.load_reference(state)
    assert all(f"{i}.w has 1 of 2 elements NaN or infinite" in str(caught.value) for i in range(8))
    assert "m is on the meta device and has no values" in str(caught.value)
    assert list(br.load_reference(state | {"ok": torch.ones(1)}, rename=dict.fromkeys(state))) == ["ok"]


def test_every_mismatch_with_a_model_is_listed_at_once():
    state = net().state_dict()
    state["0.weight"] = torch.zeros(5, 3)
    state["0.bias"] = torch.zeros(4, dtype=torch.int64)
    del state["2.weight"]
    state["9.weight"] = torch.zeros(1)
    with pytest.raises(br.ReferenceMismatchError) as caught:
        br.ModelPrior(net(), {"*": br.Gaussian.centered_at(state, 0.1)})
    for words in (
        "0.weight has shape (5, 3), expected (4, 3)",
        "0.bias has dtype int64, expected a floating one (float32)",
        "missing 2.weight",
        "extra 9.weight, which the model does not have",
    ):
        assert words in str(caught.value)


def test_tied_weights_with_two_values_in_the_reference():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte = nn.Embedding(5, 3)
            self.head = nn.Linear(3, 5, bias=False)
            self.head.weight = self.wte.weight

    state = {"wte.weight": torch.zeros(5, 3), "head.weight": torch.ones(5, 3)}
    with pytest.raises(br.ReferenceMismatchError, match=r"one tied parameter of the model, with different values"):
        br.ModelPrior(Tied(), br.Gaussian.centered_at(state, 0.1))
    prior = br.ModelPrior(Tied(), br.Gaussian.centered_at(state, 0.1, rename={"wte.weight": None}))
    assert prior["wte.weight"].loc.eq(1.0).all()
    # An untied model from a reference that holds the shared weight once.
    untied = nn.ModuleDict({"wte": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    rename = {"wte.weight": ("wte.weight", "head.weight")}
    prior = br.ModelPrior(untied, br.Gaussian.centered_at({"wte.weight": torch.ones(5, 3)}, 0.1, rename=rename))
    assert prior["head.weight"].loc.data_ptr() == prior["wte.weight"].loc.data_ptr()


def test_narrower_references_are_called_so():
    prior = br.ModelPrior(net(), br.Gaussian.centered_at(net().half(), 0.1))
    assert "held as float16, narrower than the parameters: exact to that precision" in str(prior.describe())


def test_a_model_as_its_own_reference_is_warned_of():
    model = net()
    prior = br.ModelPrior(model, {"2.*": br.Gaussian(1.0), "*": br.Gaussian.centered_at(model, 0.1)})
    assert "it is the model's own weights: a layer that was not pretrained is pulled" in str(prior.describe())
    other = br.ModelPrior(net(), {"2.*": br.Gaussian(1.0), "*": br.Gaussian.centered_at(model, 0.1)})
    assert "own weights" not in str(other.describe())


def test_a_model_on_the_meta_device_keeps_the_values_of_its_centre():
    with torch.device("meta"):
        model = net()
    pretrained = net()
    prior = br.ModelPrior(model, {"*": br.Gaussian.centered_at(pretrained, 0.1)})
    model.to_empty(device="cpu")
    model.load_state_dict(pretrained.state_dict())
    assert prior.penalty().item() == 0.0
