"""Selectors and the names of parameters under wrappers."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import AveragedModel

import bayesreg as br
from bayesreg.selection import as_selector, canonical_tensors, parameters_of


def names(model, rule):
    selector = as_selector(rule)
    return [info.name for info in parameters_of(model) if selector(info)]


@pytest.fixture
def model():
    return nn.Sequential(
        nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3), nn.Sequential(nn.Linear(3, 3, bias=False), nn.GELU())
    )


def test_globs_cross_dots(model):
    assert names(model, "*.weight") == ["0.weight", "1.weight", "2.weight", "3.0.weight"]
    assert names(model, "3.*") == ["3.0.weight"]
    assert names(model, "[12].bias") == ["1.bias", "2.bias"]


def test_biases_norms_and_embeddings(model):
    assert names(model, br.biases) == ["1.bias", "2.bias"]
    assert names(model, br.norms) == ["2.weight", "2.bias"]
    assert names(model, br.embeddings) == ["0.weight"]


def test_boolean_algebra(model):
    assert names(model, br.norms & br.biases) == ["2.bias"]
    assert names(model, ~(br.norms | br.biases)) == ["0.weight", "1.weight", "3.0.weight"]
    assert names(model, br.norms | "3.*") == ["2.weight", "2.bias", "3.0.weight"]
    assert names(model, nn.Embedding | br.norms) == ["0.weight", "2.weight", "2.bias"]
    assert names(model, "1.*" & ~br.biases) == ["1.weight"]
    assert repr(~(br.norms | br.biases) & "1.*") == "~(norms | biases) & '1.*'"


def test_module_types_select_everything_inside(model):
    assert names(model, nn.Linear) == ["1.weight", "1.bias", "3.0.weight"]
    assert names(model, nn.Linear | nn.LayerNorm) == ["1.weight", "1.bias", "2.weight", "2.bias", "3.0.weight"]
    assert names(nn.MultiheadAttention(4, 2), nn.MultiheadAttention) == [
        "in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias",
    ]  # fmt: skip


def test_predicates(model):
    assert names(model, lambda info: info.parameter.ndim == 1) == ["1.bias", "2.weight", "2.bias"]
    wide = br.where(lambda info: info.parameter.numel() > 10, "wide")
    assert names(model, wide) == ["0.weight", "1.weight"]
    assert repr(wide | br.biases) == "wide | biases"


@pytest.mark.parametrize("rule", [3, None, int, int | str])
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(br.InvalidArgumentError, match="rule: expected a glob such as"):
        as_selector(rule)


NORMS = sorted(
    name
    for name, cls in vars(nn).items()
    if inspect.isclass(cls) and issubclass(cls, nn.Module) and "Norm" in name and "Lazy" not in name
)


@pytest.mark.parametrize("name", NORMS)
def test_every_normalisation_layer_of_torch_is_a_norm(name):
    cls = getattr(nn, name)
    arguments = {"GroupNorm": (2, 4), "LayerNorm": (4,), "RMSNorm": (4,)}.get(name, (4,))
    keywords = {"affine": True} if "InstanceNorm" in name else {}
    layer = cls(*arguments, **keywords)
    own = [n for n, _ in layer.named_parameters()]
    assert own or name in ("LocalResponseNorm", "CrossMapLRN2d")
    assert names(layer, br.norms) == own


def test_biases_by_attribute_not_by_module_name():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.debias = nn.Linear(2, 2, bias=False)
            self.relative_attention_bias = nn.Embedding(3, 2)
            self.q_bias = nn.Parameter(torch.zeros(2))

    assert names(Odd(), br.biases) == ["q_bias"]
    lstm = nn.LSTM(2, 3)
    assert names(lstm, br.biases) == ["bias_ih_l0", "bias_hh_l0"]
    assert names(nn.MultiheadAttention(4, 2, add_bias_kv=True), br.biases) == [
        "in_proj_bias", "bias_k", "bias_v", "out_proj.bias",
    ]  # fmt: skip


class _Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Sequential(nn.Linear(3, 2))

    def forward(self, x):
        return self.b(self.a(x))


PLAIN = ["a.weight", "a.bias", "b.0.weight", "b.0.bias"]


def compiled_inside(model):
    model.b = torch.compile(model.b)
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: m,
        torch.compile,
        compiled_inside,
        AveragedModel,
        nn.DataParallel,
        lambda m: AveragedModel(torch.compile(m)),
    ],
)
def test_names_are_those_of_the_plain_model(wrap):
    wrapped = wrap(_Bare())
    assert [info.name for info in parameters_of(wrapped)] == PLAIN
    assert {id(info.parameter) for info in parameters_of(wrapped)} == {id(p) for p in wrapped.parameters()}


def test_names_through_ddp_and_fsdp(tmp_path):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        ddp = nn.parallel.DistributedDataParallel(_Bare())
        assert [info.name for info in parameters_of(ddp)] == PLAIN
        from torch.distributed.fsdp import fully_shard

        sharded = _Bare()
        fully_shard(sharded.a)
        fully_shard(sharded)
        assert [info.name for info in parameters_of(sharded)] == PLAIN
    finally:
        dist.destroy_process_group()


def test_an_attribute_called_module_is_not_a_wrapper():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 2)

    assert [info.name for info in parameters_of(Holder())] == ["module.weight", "module.bias"]


def test_weight_norm_keeps_the_name_of_the_weight():
    model = nn.Sequential(weight_norm(nn.Linear(3, 2)))
    infos = parameters_of(model)
    assert [info.name for info in infos] == ["0.bias", "0.weight.original0", "0.weight.original1"]
    assert names(model, "*.weight") == ["0.weight.original0", "0.weight.original1"]


def test_a_parametrized_tensor_goes_by_its_plain_name():
    class Double(nn.Module):
        def forward(self, x):
            return 2 * x

    model = nn.Linear(2, 2)
    nn.utils.parametrize.register_parametrization(model, "weight", Double())
    assert sorted(info.name for info in parameters_of(model)) == ["bias", "weight"]


def test_tied_weights_are_one_parameter_with_all_names():
    model = nn.ModuleDict({"in": nn.Embedding(4, 3), "out": nn.Linear(3, 4, bias=False)})
    model["out"].weight = model["in"].weight
    (info,) = parameters_of(model)
    assert info.names == ("in.weight", "out.weight")
    assert names(model, "out.*") == ["in.weight"]
    assert names(model, br.embeddings) == ["in.weight"]
    assert set(canonical_tensors(model)) == {"in.weight", "out.weight"}


@pytest.mark.parametrize("first", ["head", "table"])
def test_tied_weights_are_selected_by_the_type_of_either_owner(first):
    parts = {"head": nn.Linear(3, 4, bias=False), "table": nn.Embedding(4, 3)}
    model = nn.ModuleDict({key: parts[key] for key in (first, *(set(parts) - {first}))})
    model["head"].weight = model["table"].weight
    assert len(names(model, br.embeddings)) == 1
    assert len(names(model, nn.Linear)) == 1


def test_parameters_are_looked_up_afresh():
    model = nn.Linear(2, 2)
    (weight, _) = parameters_of(model)
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    assert weight.parameter is model.weight
