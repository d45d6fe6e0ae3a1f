"""Weights in front of a normalisation: what is found is true when measured, and what is not invariant is not named."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from bayesreg.explaining.groups.scale_free import scale_free_weights
from bayesreg.selection import parameters_of


class Block(nn.Module):
    def __init__(self, channels, bias):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias), nn.BatchNorm2d(channels)

    def forward(self, value):
        return F.relu(value + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(value))))))


class ResNet(nn.Module):
    """Registered in another order than it runs, and with a branch on data that no tracer can follow."""

    def __init__(self, bias=False, branch=False):
        super().__init__()
        self.branch = branch
        self.head = nn.Linear(4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(Block(4, bias), nn.Sequential(nn.Conv2d(4, 4, 1), nn.InstanceNorm2d(4), nn.ReLU()))
        self.stem = nn.Conv2d(2, 4, 3)

    def forward(self, value):
        value = self.blocks(self.norm(self.stem(value))).mean((2, 3))
        if self.branch and value.sum() > 1e9:
            value = value + 1
        return self.head(value)


class Shared(nn.Module):
    """One layer read by a norm and, elsewhere, without."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.head = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)

    def forward(self, value):
        return self.head(self.norm(self.layer(value)) + self.layer(value))


def images():
    return torch.randn(16, 2, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def rows(features=6):
    return torch.randn(64, features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def invariant(model, info, inputs):
    """Measure whether three times the weight gives the same output."""
    with torch.no_grad():
        before = model(inputs)
        info.parameter.mul_(3.0)
        after = model(inputs)
        info.parameter.div_(3.0)
    return torch.allclose(before, after, rtol=0, atol=1e-8)


CASES = {
    "resnet": (ResNet, images),
    "resnet with biases": (lambda: ResNet(bias=True), images),
    "linear, batch norm": (lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)), rows),
    "layer norm, no bias": (lambda: nn.Sequential(nn.Linear(6, 8, bias=False), nn.LayerNorm(8), nn.Linear(8, 2)), rows),
    "layer norm, bias": (lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2)), rows),
    "activation between": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 2)), rows),
    "read twice": (Shared, rows),
    "no norm": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), rows),
}


@pytest.mark.parametrize("case", CASES)
def test_found_exactly_where_the_output_does_not_change(case):
    build, inputs = CASES[case]
    torch.manual_seed(1)
    model = build().double()
    found = scale_free_weights(model)
    x = inputs()
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-12
    layers = [i for i in parameters_of(model) if isinstance(i.module, nn.Linear | nn.Conv2d)]
    candidates = [info for info in layers if info.attribute == "weight"]
    measured = {info.name for info in candidates if invariant(model, info, x)}
    assert set(found) == measured


def test_what_cannot_be_traced_is_found_where_order_tells():
    found = scale_free_weights(ResNet(branch=True))
    assert {"blocks.0.conv1.weight", "blocks.0.conv2.weight", "blocks.1.0.weight"} == set(found)
    assert found["blocks.0.conv1.weight"] == "blocks.0.bn1"


def test_frozen_norms_do_not_count():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    model[1].eval()
    assert scale_free_weights(model) == {}
    model.eval()
    assert scale_free_weights(model) == {"0.weight": "1"}


@pytest.mark.slow
def test_looking_leaves_the_model_alone():
    class Counting(nn.Module):
        calls = 0

        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
            self.last = None

        def forward(self, value):
            self.last = self.layer(value)
            return self.norm(self.last)

    model = Counting()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert scale_free_weights(model) == {"layer.weight": "norm"}
    assert model.last is None
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert scale_free_weights(torch.compile(model)) == {"layer.weight": "norm"}


def test_the_finding_names_them_only_if_they_are_decayed():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    decayed = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    found = [f for f in br.explain(decayed, model, num_data=100).findings if f.identifier == "scale-invariant"]
    assert (
        "1 decayed weight stands in front of a normalisation that removes the scale (0.weight before 1)"
        in found[0].text
    )
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    assert not [f for f in br.explain(plain, model, num_data=100).findings if f.identifier == "scale-invariant"]
    br.attach(plain, br.ModelPrior(model, br.Gaussian(0.3)), num_data=100)
    assert [f for f in br.explain(plain, model, num_data=100).findings if f.identifier == "scale-invariant"]


def test_a_weight_that_is_read_past_its_layer_is_not_named():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)

        def forward(self, value):
            return self.norm(self.layer(value)) + F.linear(value, self.layer.weight)

    assert scale_free_weights(Reads()) == {}


def test_the_order_of_a_sequential_with_its_own_forward_says_nothing():
    class Own(nn.Sequential):
        def forward(self, value):
            if value.sum() > 0:
                return self[1](value)
            return self[0](value)

    assert scale_free_weights(Own(nn.Linear(3, 3), nn.BatchNorm1d(3))) == {}
