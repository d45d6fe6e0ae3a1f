"""Centred ridge and logistic regression against a closed form and SciPy, through every way of giving the centre."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import optimize
from sklearn.datasets import load_breast_cancer, load_diabetes
from torch import nn

import bayesreg as br
from tests.sampling import thinned


def from_file(save, name, storage="copy"):
    def give(module, folder):
        save(module.state_dict(), folder / name)
        return br.load_reference(folder / name, storage=storage)

    return give


def from_shards(module, folder):
    state = module.state_dict()
    for name, tensor in state.items():
        save_file({name: tensor}, folder / f"{name}.safetensors")
    index = {"weight_map": {name: f"{name}.safetensors" for name in state}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def prefixed(state, path):
    torch.save({"state_dict": {f"module._orig_mod.{name}": t for name, t in state.items()}, "epoch": 3}, path)


WAYS = {
    "module": lambda module, _: module,
    "compiled module": lambda module, _: torch.compile(module),
    "state dict": lambda module, _: module.state_dict(),
    "safetensors": from_file(save_file, "w.safetensors"),
    "safetensors, mapped": from_file(save_file, "w.safetensors", "memory_map"),
    "pt": from_file(torch.save, "w.pt"),
    "pt, mapped": from_file(torch.save, "w.pt", "memory_map"),
    "checkpoint": from_file(prefixed, "w.th"),
    "directory": lambda module, folder: (save_file(module.state_dict(), folder / "model.safetensors"), folder)[1],
    "shards": from_shards,
    "bfloat16": lambda module, _: br.load_reference(module, storage="bfloat16"),
    "renamed": lambda module, _: br.load_reference(
        {f"old.{name}": tensor for name, tensor in module.state_dict().items()}, rename={"old.*": "*"}
    ),
}


def centre_of(way, module):
    """Return the centre's values: those of the module, except where the storage rounds them."""
    values = [tensor.detach() for tensor in module.parameters()]
    return [(v.bfloat16().double() if way == "bfloat16" else v).numpy() for v in values]


def solve(model, give, likelihood, data):
    """Train in the three ways a prior can be written: centered_at, loc=, and a published method."""
    weights = []
    for make in (
        lambda reference: br.ModelPrior(model, {"*": br.Gaussian.centered_at(reference, 0.3)}),
        lambda reference: br.ModelPrior(model, {"*": br.Gaussian(0.3).with_loc(br.load_reference(reference))}),
        lambda reference: br.transfer.l2_sp(model, reference, body_scale=0.3, covered="all"),
    ):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        trainer = br.MAPTrainer(model, make(give), likelihood, optimizer="lbfgs", tolerance=1e-11, progress=False)
        assert trainer.fit(data).converged
        weights.append([parameter.detach().clone().numpy() for parameter in model.parameters()])
    return weights


@pytest.mark.parametrize("way", WAYS)
def test_centred_ridge(way, tmp_path):
    X, y = load_diabetes(return_X_y=True)
    X, y = X / X.std(0), (y - y.mean()) / y.std()
    pretrained = nn.Linear(10, 1).double()
    noise = 0.7
    w0, b0 = centre_of(way, pretrained)
    design, start = np.c_[X, np.ones(len(X))], np.r_[w0[0], b0]
    precision = design.T @ design / noise**2 + np.eye(11) / 0.3**2
    exact = start + np.linalg.solve(precision, design.T @ (y - design @ start) / noise**2)
    likelihood, data = br.likelihoods.Gaussian(noise), (torch.as_tensor(X), torch.as_tensor(y)[:, None])
    for weight, bias in solve(nn.Linear(10, 1).double(), WAYS[way](pretrained, tmp_path), likelihood, data):
        assert np.abs(np.r_[weight[0], bias] - exact).max() < 1e-8


@pytest.mark.parametrize("way", thinned(WAYS, 4))
def test_centred_logistic_regression(way, tmp_path):
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    pretrained = nn.Linear(30, 1).double()
    w0, b0 = centre_of(way, pretrained)
    design, start, sign = np.c_[X, np.ones(len(X))], np.r_[w0[0], b0], 2.0 * y - 1.0

    def objective(w):
        return np.logaddexp(0.0, -sign * (design @ w)).sum() + 0.5 * ((w - start) ** 2).sum() / 0.3**2

    def slope(w):
        pull = -sign / (1.0 + np.exp(sign * (design @ w)))
        return design.T @ pull + (w - start) / 0.3**2

    def hessian(w):
        p = 1.0 / (1.0 + np.exp(-(design @ w)))
        return (design * (p * (1.0 - p))[:, None]).T @ design + np.eye(31) / 0.3**2

    near = optimize.minimize(objective, start, jac=slope, hess=hessian, method="trust-exact")
    # The objective's rounding stops a minimiser early; the root of its gradient is known to all digits.
    found = optimize.root(slope, near.x, jac=hessian, tol=1e-14)
    assert np.abs(slope(found.x)).max() < 1e-10
    data = (torch.as_tensor(X), torch.as_tensor(y).double()[:, None])
    for weight, bias in solve(
        nn.Linear(30, 1).double(), WAYS[way](pretrained, tmp_path), br.likelihoods.Bernoulli(), data
    ):
        assert np.abs(np.r_[weight[0], bias] - found.x).max() < 1e-8
