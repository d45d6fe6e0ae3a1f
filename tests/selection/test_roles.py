"""What a single prior for a whole model is on: matrices and kernels, told by shape, module and name."""

import copy

import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.errors import CoverageError, InvalidArgumentError
from bayesreg.selection import parameters_of, role_of


class LlamaRMSNorm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))


class LayerNormChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(1, 3, 1, 1)), nn.Parameter(torch.zeros(1, 3, 1, 1))


class NormedLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.gain = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3))


class Own(nn.Module):
    """One of everything that people write by hand."""

    def __init__(self):
        super().__init__()
        self.lin, self.act, self.conv = nn.Linear(4, 1), nn.PReLU(4), nn.Conv2d(1, 1, (1, 3))
        self.norm, self.channels, self.normed = LlamaRMSNorm(4), LayerNormChannels(), NormedLinear()
        self.logit_scale, self.resweight = nn.Parameter(torch.tensor(2.66)), nn.Parameter(torch.zeros(1))
        self.cls_token, self.gamma = nn.Parameter(torch.zeros(1, 1, 4)), nn.Parameter(torch.ones(1, 4))
        self.column, self.row = nn.Parameter(torch.zeros(5, 1)), nn.Parameter(torch.zeros(1, 5))
        self.A_log = nn.Parameter(torch.zeros(4, 2))
        self.b, self.b1, self.bias2 = (nn.Parameter(torch.zeros(2)) for _ in range(3))
        self.biases = nn.ParameterList([nn.Parameter(torch.ones(2))])
        self.named = nn.ParameterDict({"bias": nn.Parameter(torch.ones(2)), "w": nn.Parameter(torch.ones(2, 2))})
        self.rel = nn.ModuleDict({"table": nn.Embedding(5, 2), "debias": nn.Linear(2, 2)})

    def no_weight_decay(self):
        return {"table.weight"}


WANTED = {
    "lin.weight": "weight", "lin.bias": "bias", "act.weight": "vector", "conv.weight": "weight", "conv.bias": "bias",
    "norm.weight": "norm", "channels.weight": "norm", "channels.bias": "bias", "normed.weight": "weight",
    "normed.gain": "vector", "logit_scale": "vector", "resweight": "vector", "cls_token": "vector", "gamma": "vector",
    "column": "weight", "row": "weight", "A_log": "vector", "b": "bias", "b1": "bias", "bias2": "bias",
    "biases.0": "bias", "named.bias": "bias", "named.w": "weight", "rel.table.weight": "vector",
    "rel.debias.weight": "weight", "rel.debias.bias": "bias",
}  # fmt: skip


def test_every_kind_of_parameter_by_its_shape_module_and_name():
    assert {info.name: role_of(info) for info in parameters_of(Own())} == WANTED


def test_a_single_prior_is_on_matrices_and_kernels_and_the_rest_is_listed():
    prior = br.ModelPrior(Own(), br.Gaussian(1.0))
    on = {entry.name for entry in prior if entry.prior.family == "Gaussian"}
    assert on == {name for name, role in WANTED.items() if role in ("weight", "embedding")}
    table = str(prior.describe())
    assert "vectors and scalars" in table
    assert "matrices and kernels" in table
    per_parameter = {row[0]: row for row in prior.describe(per_parameter=True).rows}
    assert set(per_parameter) == set(WANTED)
    assert per_parameter["logit_scale"][-1] == "vectors and scalars"


def test_values_play_no_part():
    model = Own()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn_like(parameter))
    assert [role_of(i) for i in parameters_of(model)] == [role_of(i) for i in parameters_of(other)]


def test_a_model_without_a_matrix_that_is_trained_is_refused():
    class Scalars(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope, self.bias = nn.Parameter(torch.ones(5)), nn.Parameter(torch.zeros(()))

    with pytest.raises(CoverageError, match=r"none is trained: slope \(vector or scalar\), bias \(bias\)"):
        br.ModelPrior(Scalars(), br.Gaussian(1.0))
    assert br.ModelPrior(Scalars(), {"*": br.Gaussian(1.0)})["slope"].family == "Gaussian"
    only_biases = nn.Linear(3, 2)
    only_biases.weight.requires_grad_(False)
    with pytest.raises(CoverageError, match="none is trained: bias"):
        br.ModelPrior(only_biases, br.Gaussian(1.0))


def test_rules_choose_kernels_too():
    prior = br.ModelPrior(Own(), {br.kernels: br.Laplace(0.1), "*": br.Flat()})
    assert prior["lin.weight"].family == "Laplace"
    assert prior["logit_scale"].family == "Flat"


def test_explain_names_the_same_roles():
    model = Own()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-2)
    roles = br.explain(optimizer, model, num_data=100).groups[0].roles
    counted = list(WANTED.values())
    assert roles == {role: counted.count(role) for role in dict.fromkeys(counted)}


def test_fans_are_read_as_the_layer_stores_them():
    class Conv1D(nn.Module):  # that of GPT-2: (inputs, outputs)
        def __init__(self, outputs, inputs):
            super().__init__()
            self.nf = outputs
            self.weight = nn.Parameter(torch.zeros(inputs, outputs))

    model = nn.ModuleDict({
        "one": Conv1D(7, 3), "up": nn.ConvTranspose2d(3, 5, 2), "down": nn.Conv2d(3, 5, 2), "lin": nn.Linear(3, 5),
    })  # fmt: skip
    prior = br.ModelPrior(model, br.FanInGaussian.neal())
    variances = {name: float(prior[f"{name}.weight"].variance()) for name in model}
    assert variances == pytest.approx({"one": 1 / 3, "up": 1 / 12, "down": 1 / 12, "lin": 1 / 3})


def test_a_fan_that_cannot_be_known_is_refused():
    model = nn.ParameterDict({"experts": nn.Parameter(torch.zeros(4, 3, 2))})
    with pytest.raises(InvalidArgumentError, match=r"parameter 'experts': FanInGaussian reads inputs and outputs off"):
        br.ModelPrior(model, br.FanInGaussian.he())
