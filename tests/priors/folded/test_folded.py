"""MCP, SCAD and L0: improper penalties through the contract, their prox by brute force, and what they are for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.testing import PriorContract
from tests.sampling import thinned


class TestMCP(PriorContract):
    proper = False
    pulls_far_out = False
    per_element = ("strength",)

    def make(self, scale):
        return br.MCP(strength=1.0 / scale, gamma=3.1 * scale**2)


class TestSteepMCP(PriorContract):
    """With a centre, and so concave that every step of the tests is beyond gamma."""

    proper = False
    pulls_far_out = False
    centre = 2.0
    per_element = ("strength",)

    def make(self, scale):
        return br.MCP(strength=30.0 / scale, gamma=1e-4 * scale**2, loc=2.0)


class TestSCAD(PriorContract):
    proper = False
    pulls_far_out = False
    per_element = ("strength",)

    def make(self, scale):
        return br.SCAD(strength=2.0 / scale, gamma=3.7, knee=0.9 * scale)


class TestL0(PriorContract):
    proper = False
    pulls_far_out = False
    per_element = ("strength",)

    def make(self, scale):
        return br.L0(strength=0.7)


def brute_prox(penalty, v, step):
    """Search a grid that contains 0 and the point itself."""
    grid = torch.cat([torch.linspace(-6.0, 6.0, 240_001, dtype=torch.float64), torch.tensor([0.0, v]).double()])
    return grid[((grid - v).square() / (2 * step) + penalty(grid)).argmin()].item()


@pytest.mark.parametrize("prior", [
    br.MCP(1.0, 2.0), br.MCP(1.0, 0.3), br.SCAD(1.0), br.SCAD(0.8, 2.2, knee=0.5), br.L0(0.6),
], ids=repr)  # fmt: skip
@pytest.mark.parametrize("step", thinned([0.05, 0.5, 1.0, 1.9, 2.5, 8.0], 3))
def test_prox_is_the_global_minimum_for_every_step(prior, step):
    points = torch.linspace(-5.0, 5.0, 41, dtype=torch.float64) + 1e-3
    found = prior.prox(points, step)

    def objective(x, v):
        return ((x - v).square() / (2 * step) + prior.penalty(x)).item()

    for v, x in zip(points, found, strict=True):
        best = brute_prox(prior.offset_penalty, v.item(), step)
        assert objective(x[None], v) <= objective(torch.tensor([best], dtype=torch.float64), v) + 1e-12


def reference_mcp(w, a, g):
    w = abs(w)
    return a * w - w**2 / (2 * g) if w <= a * g else g * a**2 / 2


def reference_scad(w, a, g, k):
    w = abs(w)
    if w <= k:
        return a * w
    return a * (2 * g * k * w - w**2 - k**2) / (2 * (g - 1) * k) if w <= g * k else a * k * (g + 1) / 2


@pytest.mark.parametrize("w", [0.0, 0.1, 0.49, 0.5, 0.51, 1.0, 1.84, 1.86, 2.0, 7.0, -1.2])
def test_penalties_are_the_published_ones(w):
    value = torch.tensor([w], dtype=torch.float64)
    assert br.MCP(1.3, 0.9).penalty(value).item() == pytest.approx(reference_mcp(w, 1.3, 0.9), rel=1e-13)
    assert br.SCAD(1.3, 3.7, knee=0.5).penalty(value).item() == pytest.approx(
        reference_scad(w, 1.3, 3.7, 0.5), rel=1e-13
    )
    assert br.SCAD(1.3).penalty(value).item() == pytest.approx(reference_scad(w, 1.3, 3.7, 1.3), rel=1e-13)
    assert br.L0(1.3).penalty(value).item() == (1.3 if w else 0.0)


def test_the_limits_are_l1_and_l0():
    value = torch.linspace(-3, 3, 13, dtype=torch.float64)
    assert br.MCP(2.0, 1e9).penalty(value).item() == pytest.approx(br.Laplace(0.5).penalty(value).item(), rel=1e-6)
    assert br.SCAD(2.0, 3.7, knee=1e9).penalty(value).item() == pytest.approx(2 * value.abs().sum().item(), rel=1e-9)
    gamma = 1e-9
    steep = br.MCP(math.sqrt(2 * 0.7 / gamma), gamma)
    assert steep.penalty(value).item() == pytest.approx(br.L0(0.7).penalty(value).item(), rel=1e-9)
    assert torch.allclose(steep.prox(value, 0.4), br.L0(0.7).prox(value, 0.4))


def test_large_weights_are_not_shrunk_where_l1_shrinks_them():
    # Orthonormal design: each coefficient by itself, x = prox(y).
    y = torch.tensor([4.0, -2.5, 0.6, 0.1], dtype=torch.float64)
    assert br.Laplace(1.0).prox(y, 1.0).tolist() == pytest.approx([3.0, -1.5, 0.0, 0.0])
    for prior in (br.MCP(1.0, 1.5), br.SCAD(1.0, 2.2), br.L0(0.5)):
        assert prior.prox(y, 1.0).tolist() == pytest.approx([4.0, -2.5, 0.0, 0.0])


@pytest.mark.parametrize("prior", [br.MCP(2.0, 0.5), br.SCAD(2.0, 3.7, knee=0.3), br.L0(1.0)], ids=repr)
def test_routes_reach_a_sparse_stationary_point(prior):
    torch.manual_seed(0)
    X = torch.randn(80, 12, dtype=torch.float64)
    truth = torch.zeros(12, dtype=torch.float64)
    truth[:3] = torch.tensor([2.0, -1.5, 1.0])
    y = X @ truth + 0.3 * torch.randn(80, dtype=torch.float64)
    model = nn.Linear(12, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    rules = br.ModelPrior(model, {"*": prior})
    optimizer = torch.optim.SGD(rules.param_groups(), lr=0.05)
    handle = br.attach(optimizer, rules, num_data=80)
    assert "proximal" in str(handle.describe())
    for _ in range(800):
        optimizer.zero_grad()
        (0.5 * (X @ model.weight[0] - y).square().mean() / 0.09).backward()
        optimizer.step()
    weight = model.weight.detach()[0]
    support = weight != 0
    assert support[:3].all()
    residual = X.T @ (X @ weight - y) / 0.09
    assert prior.subdiff_distance(weight, residual).max() < 1e-6
    if isinstance(prior, br.L0):
        # What is kept is not shrunk: the least-squares coefficients of the support.
        refit = torch.linalg.lstsq(X[:, support], y[:, None]).solution[:, 0]
        assert torch.allclose(weight[support], refit, atol=1e-6)


def test_what_needs_a_density_refuses():
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    prior = br.ModelPrior(model, br.MCP(1.0, 2.0))
    assert prior.sample_() == ["weight", "bias"]
    assert torch.equal(model.weight, before)
    assert "improper" in prior["weight"].describe()
    with pytest.raises(br.NotEquivalentError, match="leaves large ones alone"):
        br.SCAD(1.0).weight_decay(100)
    for make, message in (
        (lambda: br.MCP(0.0, 1.0), "strength: expected a value > 0"),
        (lambda: br.MCP(1.0, -1.0), "gamma: expected a value > 0"),
        (lambda: br.SCAD(1.0, 1.0), "gamma: expected a value > 1"),
        (lambda: br.L0(-2.0), "strength: expected a value > 0"),
    ):
        with pytest.raises(br.InvalidArgumentError, match=message):
            make()
