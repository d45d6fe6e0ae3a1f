"""State dicts from files of others: what is not of the form that torch writes is refused by its place."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import bayesreg as br


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
