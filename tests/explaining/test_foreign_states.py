"""State dicts from files of others: what is not of the form that torch writes is refused by its place."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.explaining.groups.layout import laid_out
from tests.versions import adam_flag


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(state=None), "expected a mapping as state, got NoneType"),
        (lambda s: s.update(state={0: []}), "state of 0: expected a mapping, got list"),
        (lambda s: s["state"][0].update(step="x"), "state of 0: step: expected a number >= 0, got str 'x'"),
        (lambda s: s["state"][0].update(exp_avg_sq=torch.ones(4, 3).long()), "exp_avg_sq: expected real numbers, got"),
        (lambda s: s.update(param_groups=[]), "has no param groups"),
        (lambda s: s.update(param_groups=[3]), r"param_groups\[0\]: expected a mapping, got int"),
        (lambda s: s["param_groups"][0].pop("params"), "params: expected a list of numbers, got NoneType None"),
        (lambda s: s["param_groups"][0].update(weight_decay="x"), "weight_decay: expected a number >= 0, got str 'x'"),
        (lambda s: s["param_groups"][0].update(weight_decay=-1), "weight_decay: expected a number >= 0, got int -1"),
        (lambda s: s["param_groups"][0].update(lr=1j), "lr: expected a number >= 0, got complex 1j"),
        (lambda s: s["param_groups"][0].update(lr=torch.ones(2)), "lr: expected a number >= 0, got Tensor"),
        (lambda s: s["param_groups"][0].update(lr=math.inf), "lr: expected a number >= 0, got float inf"),
        (
            lambda s: s["param_groups"][0].update(decoupled_weight_decay=torch.ones(2)),
            "decoupled_weight_decay: expected True, False or None, got Tensor",
        ),
        (lambda s: s["param_groups"][0].update(betas=None), "betas: expected two numbers, got NoneType None"),
        (lambda s: s["param_groups"][0].update(betas=(0.9, 1.0)), "betas: expected numbers below 1"),
        (lambda s: s["param_groups"][0].update(param_names=["a"]), "param_names: expected 4 names, got list"),
    ],
)
def test_a_state_of_another_form_is_refused_by_its_place(change, message):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    br.explain(state, num_data=10, optimizer_class="adamw")
    change(state)
    with pytest.raises(br.InvalidArgumentError, match=message):
        br.explain(state, num_data=10, optimizer_class="adamw")


# -- names in several groups -------------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.inner = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.norm(self.inner(self.embed(x))))


def checkpoint(model, groups):
    """As nanoGPT writes it: what has two axes is decayed, the rest is not."""
    optimizer = torch.optim.AdamW(groups(model), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.arange(5)).square().mean().backward()
        optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def by_axes(model):
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


@adam_flag
def test_a_checkpoint_of_two_groups_has_its_names_and_weights(tmp_path):
    torch.manual_seed(0)
    model = Tied()
    torch.save(checkpoint(model, by_axes), tmp_path / "ckpt.pt")
    found = br.explain(torch.load(tmp_path / "ckpt.pt", weights_only=True), num_data=100)
    assert [g.parameters for g in found.groups] == [
        ("embed.weight", "inner.weight"),
        ("inner.bias", "norm.weight", "norm.bias"),
    ]
    live = br.explain(checkpoint(model, by_axes)["optimizer"], model, num_data=100)
    assert [g.parameters for g in live.groups] == [g.parameters for g in found.groups]
    assert found.groups[0].implied.matched is not None
    assert found.groups[0].weights_rms == pytest.approx(
        math.sqrt(sum(float(p.detach().square().sum()) for p in (model.embed.weight, model.inner.weight)) / 44),
        rel=0.01,
    )


@adam_flag
def test_where_shapes_leave_two_answers_there_are_no_names():
    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

        def forward(self, x):
            return self.second(self.first(nn.functional.one_hot(x % 4, 4).float()))

    model = Twins()

    def apart(model):
        return [{"params": [model.second.weight], "weight_decay": 0.1}, {"params": [model.first.weight]}]

    found = br.explain(checkpoint(model, apart), num_data=100)
    assert [g.parameters for g in found.groups] == [("#0",), ("#1",)]


@pytest.mark.parametrize("seed", range(20))
def test_a_layout_is_found_where_it_is_the_only_one(seed):
    """Against all ways to share the parameters out, tried one by one."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [((2, 3), (3,), (3, 3))[i] for i in torch.randint(3, (7,), generator=generator).tolist()]
    owner = torch.randint(2, (7,), generator=generator).tolist()
    groups = [[shape for shape, of in zip(shapes, owner, strict=True) if of == g] for g in range(2)]
    ways = [
        way
        for way in itertools.product(range(2), repeat=7)
        if [[s for s, of in zip(shapes, way, strict=True) if of == g] for g in range(2)] == groups
    ]
    found = laid_out(groups, shapes)
    assert (found is not None) == (len(ways) == 1)
    if found is not None:
        assert found == [[i for i in range(7) if owner[i] == g] for g in range(2)]


def test_a_layout_of_other_shapes_is_none():
    assert laid_out([[(2,)], [(3,)]], [(2,), (4,)]) is None
    assert laid_out([[(2,)], []], [(2,), (4,)]) is None
    assert laid_out([[(2,), None], [(3,)]], [(2,), (3,), (4,)]) == [[0, 2], [1]]


class IVON(torch.optim.Optimizer):
    """The group of IVON 0.1.3, which takes gradients as a context ends."""

    def __init__(self, params, lr=0.1, ess=100.0, weight_decay=1e-4, hess_init=1.0):
        super().__init__(params, {"lr": lr, "ess": ess, "weight_decay": weight_decay, "hess_init": hess_init})

    def step(self, closure=None):
        raise RuntimeError("no gradients were taken in sampled_params")


def test_the_decay_of_ivon_is_a_gaussian_of_its_own_number_of_examples():
    """Of Shen et al. (2024), algorithm 1: the prior's precision is ess · δ."""
    model = nn.Linear(3, 1, bias=False)
    found = br.explain(IVON(model.parameters(), ess=2000.0, weight_decay=1e-3), model, num_data=1000)
    assert found.groups[0].variance == pytest.approx(1.0 / (2000.0 * 1e-3))
    assert "by ess=2000" in found.groups[0].prior
    assert "unknown-decay" not in {f.identifier for f in found.findings}
    flat = br.explain(IVON(model.parameters(), weight_decay=0.0), model, num_data=1000)
    assert math.isinf(flat.groups[0].variance)
