"""Run by test_processes: train a MAP in one process, under DDP, FSDP2 or HSDP, and write what came out.

Usage: python train_in_processes.py KIND OUTPUT, under torchrun or accelerate launch for more than one process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

import bayesreg as br

N = 101  # odd: the processes hold different numbers of examples
CONVERGED = 600
WORLD, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))


def data():
    g = torch.Generator().manual_seed(1)
    X = torch.randn(N, 4, generator=g, dtype=torch.float64)
    y = (X @ torch.randn(4, 3, generator=g, dtype=torch.float64)).argmax(1)
    return X[RANK::WORLD], y[RANK::WORLD]


class Shift(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.ones(1, 5))

    def forward(self, value):
        return value + self.weight


def network(seed=0):
    # Sizes that two processes cannot share evenly, and a normalisation of one row that one of them does not hold.
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), Shift(), nn.Linear(5, 3)).double()


def rules(name):
    if name == "isotropic":
        return {"*": br.Gaussian(0.4)}
    if name == "centred":
        return {"*": br.Gaussian.centered_at(network(7), 0.2)}
    if name == "diagonal":
        widths = torch.linspace(0.3, 0.8, 20, dtype=torch.float64).reshape(5, 4)
        return {"0.weight": br.Gaussian(widths), "3.weight": br.Gaussian(torch.full((5,), 0.5)), "*": br.Gaussian(0.5)}
    if name == "groups":
        return {
            "0.weight": br.GroupLaplace(4.0, "row", loc=0.1),
            "3.weight": br.ElasticNet(2.0, 3.0),
            "*": br.Logistic(0.4),
        }
    return {"0.weight": br.Laplace(0.3, loc=0.0), "*": br.Gaussian(0.6)}


def wrapped(kind, model):
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    if kind in ("fsdp", "hsdp"):
        shape, names = ((2, 1), ("replicate", "shard")) if kind == "hsdp" else ((2,), ("shard",))
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
        for layer in (model[0], model[3]):
            fully_shard(layer, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    return model


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def train(kind, prior_name, optimizer_name, prior_first, steps):
    model = network()
    prior = br.ModelPrior(model, rules(prior_name)) if prior_first else None
    net = wrapped(kind, model)
    if prior is None:
        prior = br.ModelPrior(net, rules(prior_name))
    clip = optimizer_name == "clipped"
    groups = prior.param_groups()
    if optimizer_name == "adam":
        optimizer = torch.optim.AdamW(groups, lr=0.02, weight_decay=0.0)
    else:
        optimizer = torch.optim.SGD(groups, lr=0.5, momentum=0.9)
    handle = br.attach(optimizer, prior, num_data=N, before_clip=clip)
    X, y = data()
    start = float(prior.log_prob())
    for _ in range(steps):
        optimizer.zero_grad()
        # DDP and FSDP average over processes: the mean over all examples, whoever holds them.
        (F.cross_entropy(net(X), y, reduction="sum") * WORLD / N).backward()
        if clip:
            handle.apply_()
            norm = whole(nn.utils.clip_grad_norm_(net.parameters(), 0.05))
            handle.clipped(norm, 0.05)
        optimizer.step()
    optimizer.zero_grad()
    (F.cross_entropy(net(X), y, reduction="sum") * WORLD / N).backward()
    weights = [whole(p.detach()) for p in net.parameters()]
    slopes = [whole(p.grad.detach()) for p in net.parameters()]
    # The certificate in full tensors, in one process's terms.
    copy = network()
    certificate = br.ModelPrior(copy, rules(prior_name))
    with torch.no_grad():
        for parameter, value in zip(copy.parameters(), weights, strict=True):
            parameter.copy_(value)
    residual = max(
        float(entry.prior.subdiff_distance(entry.parameter, slope, 1 / N).max())
        for entry, slope in zip(certificate, slopes, strict=True)
    )
    return {
        "weights": torch.cat([w.reshape(-1) for w in weights]).tolist(),
        "residual": residual,
        "log_prior_at_start": start,
        "log_prob": float(prior.log_prob()),
        "logged": handle.log()["log_prior"],
        "expected_log_prob": float(certificate.log_prob()),
        "routes": sorted({row[2] for row in handle.describe().rows}),
    }


def by_accelerate(prior_name):
    """A loop of Accelerate's: it wraps model and optimizer, and moves each process to its share of the data."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == WORLD, "accelerate launch did not start the processes"
    model = network()
    prior = br.ModelPrior(model, rules(prior_name))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.5, momentum=0.9)
    net, optimizer = accelerator.prepare(model, optimizer)
    br.attach(optimizer, prior, num_data=N)
    X, y = data()
    for _ in range(40):
        optimizer.zero_grad()
        accelerator.backward(F.cross_entropy(net(X), y, reduction="sum") * WORLD / N)
        optimizer.step()
    return {"weights": torch.cat([p.detach().reshape(-1) for p in net.parameters()]).tolist()}


def naive_log_prior(kind):
    """What a plain sum over parameters gives as −log p, relative to the truth: the traps of sharded weights."""
    model = network()
    true = sum(float(p.detach().square().sum()) for p in model.parameters())
    net = wrapped(kind, model)
    share = sum(p.to_local().detach().square().sum() for p in net.parameters())
    item = sum(p.detach().square().sum().item() for p in net.parameters())
    everywhere = share.clone()
    dist.all_reduce(everywhere)
    return {"item": item / true, "local": float(share) / true, "reduced over all": float(everywhere) / true}


def loss_route(kind):
    """The penalty in the loss, by autograd, on whole or sharded weights."""
    model = network()
    net = wrapped(kind, model)
    prior = br.ModelPrior(net, rules("diagonal"))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.3)
    handle = br.attach(optimizer, prior, num_data=N, route="loss")
    X, y = data()
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(X), y, reduction="sum") * WORLD / N
        loss.backward()
        handle.penalty().backward()
        optimizer.step()
    return {"weights": torch.cat([whole(p.detach()).reshape(-1) for p in net.parameters()]).tolist()}


#: Prior, optimizer, whether the prior is made before the model is wrapped, steps.
CASES = [
    ("isotropic", "sgd", False, CONVERGED), ("centred", "sgd", True, CONVERGED), ("diagonal", "sgd", True, CONVERGED),
    ("laplace", "sgd", True, CONVERGED), ("isotropic", "sgd", True, 40), ("centred", "sgd", True, 40),
    ("laplace", "sgd", True, 40), ("diagonal", "sgd", False, 40), ("centred", "adam", False, 40),
    ("laplace", "adam", True, 40), ("diagonal", "clipped", True, 40), ("laplace", "clipped", True, 40),
    ("groups", "sgd", True, 40), ("groups", "adam", False, 40),
]  # fmt: skip


def main():
    kind, output = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    if kind == "accelerate":
        # First: it starts the process group itself.
        found = {f"accelerate-{name}": by_accelerate(name) for name in ("isotropic", "centred", "laplace")}
        output.with_suffix(f".{RANK}").write_text(json.dumps(found))
        dist.barrier()
        dist.destroy_process_group()
        return
    if WORLD > 1:
        dist.init_process_group("gloo")
    # Sharded steps are slow on CPUs: to the optimum only with the native and the proximal route, and not under HSDP.
    far = {"fsdp": ("isotropic", "laplace"), "hsdp": ()}.get(kind, ("isotropic", "centred", "diagonal", "laplace"))
    cases = [case for case in CASES if case[3] < CONVERGED or case[0] in far]
    found = {"-".join(map(str, case)): train(kind, *case) for case in cases}
    found["loss"] = loss_route(kind)
    if kind in ("fsdp", "hsdp"):
        output.with_suffix(f".naive.{RANK}").write_text(json.dumps(naive_log_prior(kind)))
    output.with_suffix(f".{RANK}").write_text(json.dumps(found))
    if WORLD > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
