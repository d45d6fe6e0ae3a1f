"""Optimizers that are not torch's, and wrappers around one: tried before they are trusted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bayesreg as br
from tests.routes.common import one_weight, sgd


class MatricesOnly(torch.optim.Optimizer):
    """Coupled decay, but on matrices only, and not in groups that say otherwise."""

    def __init__(self, params, lr=0.1, weight_decay=0.0, decouple=False):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "decouple": decouple})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if group["decouple"]:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                decay = group["weight_decay"] * p if p.ndim > 1 and not group["decouple"] else 0.0
                p.sub_(group["lr"] * (p.grad.sign() * 0.5 * p.grad.abs() + p.grad * 0.5 + decay))


class HiddenDecay(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, wd=0.1):
        super().__init__(params, {"lr": lr, "wd": wd, "seen": torch.zeros(1)})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["seen"] += 1
            for p in group["params"]:
                p.sub_(group["lr"] * (p.grad + group["wd"] * p))


class Wrapper(torch.optim.Optimizer):
    def __init__(self, params, base):
        super().__init__(params, {})
        self.base_optimizer = base
        self.param_groups = base.param_groups

    def step(self, closure=None):
        return self.base_optimizer.step(closure)


def test_what_a_toy_cannot_show_is_not_trusted():
    model = nn.Linear(2, 2)
    prior = br.ModelPrior(model, {"*": br.Gaussian(1.0)})
    handle = br.attach(MatricesOnly(model.parameters()), prior, num_data=10)
    assert {row[2] for row in handle.describe().rows} == {"gradient"}
    optimizer = MatricesOnly(model.parameters(), weight_decay=0.1)
    assert br.explain(optimizer, model, num_data=10).groups[0].decay == "other"


def test_decay_under_another_name_is_refused():
    model, prior = one_weight()
    optimizer = HiddenDecay(model.parameters())
    with pytest.raises(br.InvalidArgumentError, match=r"moves weights whose gradient is zero.*under another name"):
        br.attach(optimizer, prior, num_data=10)
    found = br.explain(optimizer, model, num_data=10)
    assert found.groups[0].std is None
    assert [f.identifier for f in found.findings] == ["unknown-decay"]
    # Looking did not touch what the group holds.
    assert optimizer.param_groups[0]["seen"].item() == 0.0
    br.attach(HiddenDecay(model.parameters(), wd=0.0), prior, num_data=10)


def test_a_wrapper_that_is_no_optimizer_is_seen_through():
    class Lightning:
        """Copies the attributes of what it wraps, as Lightning's does."""

        def __init__(self, optimizer):
            self.__dict__ = dict(optimizer.__dict__)
            self._optimizer = optimizer

        def step(self, closure):
            return self._optimizer.step(closure=closure)

    model, prior = one_weight()
    wrapped = Lightning(sgd(model))
    br.attach(wrapped, prior, num_data=10)

    def closure():
        model.weight.grad = torch.zeros_like(model.weight)

    wrapped.step(closure)
    assert model.weight.item() == pytest.approx(0.99)
    assert br.explain(wrapped, model, num_data=10).groups[0].decay == "prior"
    br.detach(wrapped)


def test_wrappers_are_seen_through():
    model, prior = one_weight()
    wrapped = Wrapper(model.parameters(), sgd(model, weight_decay=0.1))
    with pytest.raises(br.InvalidArgumentError, match=r"SGD param group 0 already has weight_decay=0\.1"):
        br.attach(wrapped, prior, num_data=10)
    wrapped = Wrapper(model.parameters(), sgd(model))
    br.attach(wrapped, prior, num_data=10)
    wrapped.step()
    assert model.weight.item() == pytest.approx(0.99)
