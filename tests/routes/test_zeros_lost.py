"""Exact zeros that something moves off zero between steps are said; those that stay are not."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

import bayesreg as br

X = torch.randn(50, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X[:, :2].sum(1, keepdim=True)


class Lookahead(Optimizer):
    """Averages with slow weights at every fifth step."""

    def __init__(self, inner):
        super().__init__([p for group in inner.param_groups for p in group["params"]], {})
        self.inner, self.taken = inner, 0
        self.slow = {p: p.detach().clone() for p in self.param_groups[0]["params"]}

    @torch.no_grad()
    def step(self, closure=None):
        self.inner.step()
        self.taken += 1
        if self.taken % 5 == 0:
            for p, slow in self.slow.items():
                p.copy_(slow.lerp_(p, 0.5))


def run(make, prior=None, *, steps=40, between=lambda model: None):
    torch.manual_seed(0)
    model = nn.Linear(12, 1, bias=False).double()
    optimizer = make(model)
    br.attach(optimizer, br.ModelPrior(model, prior or br.Laplace(0.05)), num_data=50)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (model(X) - Y).square().mean()).backward()
        optimizer.step()
        between(model)
    return model


def plain(model):
    return SGD(model.parameters(), lr=0.1)


def averaged(model):
    return Lookahead(plain(model))


def test_an_average_that_moves_zeros_is_said_once():
    with pytest.warns(br.ZerosLostWarning, match="zeros-lost: weight has weights .* exactly on 0") as said:
        run(averaged)
    # The step inside Lookahead's.
    assert [one.filename for one in said] == [__file__]


def test_about_a_centre_too():
    with pytest.warns(br.ZerosLostWarning, match="exactly on their centre"):
        run(averaged, br.Laplace(0.05, loc=torch.full((1, 12), 0.3)))


@pytest.mark.parametrize("prior", [br.Laplace(0.05), br.Laplace(50.0), br.Gaussian(0.05)])
def test_zeros_that_stay_are_not_spoken_of(prior):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = run(plain, copy.deepcopy(prior))
    assert bool((model.weight == 0).any()) == (prior.family == "Laplace" and float(prior.scale) < 1)


def test_a_smooth_prior_may_be_averaged():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(averaged, br.Gaussian(0.05))


def test_weights_that_are_loaded_once_are_no_average():
    loaded = []

    def once(model):
        if len(loaded) == 20:
            model.load_state_dict({"weight": torch.ones_like(model.weight)})
        loaded.append(1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(plain, between=once)


def test_once_is_not_enough():
    """Weights may be set by hand once, as when they are loaded."""
    moved = []

    def nudge(model):
        zeros = model.weight == 0
        if not moved and bool(zeros.any()):
            with torch.no_grad():
                model.weight[zeros] = 1e-3
            moved.append(True)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(plain, between=nudge)
    assert moved
