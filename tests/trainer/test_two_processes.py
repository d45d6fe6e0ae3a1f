"""Two processes end where one does: the prior is counted once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.processes import free_port

SCRIPT = """
import json, os, sys, torch, bayesreg as br
from functools import partial
from torch import nn

world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
generator = torch.Generator().manual_seed(1)
X = torch.randn(100, 4, generator=generator, dtype=torch.float64)
y = torch.randint(0, 3, (100,), generator=generator)
found = []
for clip in (None, 0.3):
    for prior in (br.Gaussian(0.5), br.Gaussian(0.5, loc=0.2), br.Laplace(0.5)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        trainer = br.MAPTrainer(
            model, prior, br.likelihoods.Categorical(), optimizer=partial(torch.optim.SGD, lr=0.2, momentum=0.9),
            batch_size=100 // world, max_epochs=20, cpu=True, clip_norm=clip,
        )
        result = trainer.fit((X, y))
        weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).tolist()
        found.append({"weights": weights, "nll": result.mean_nll, "running": result.history[-1]["running_nll"]})


def fitted(data, likelihood, outputs, **how):
    torch.manual_seed(0)
    model = nn.Linear(4, outputs).double()
    trainer = br.MAPTrainer(
        model, br.Gaussian(0.5), likelihood, optimizer=partial(torch.optim.SGD, lr=0.05), batch_size=100 // world,
        cpu=True, **{"max_epochs": 20, **how},
    )
    result = trainer.fit(data, resume="checkpoint" in how)
    weights = [*model.parameters(), *likelihood.parameters()]
    found.append({"weights": torch.cat([p.detach().reshape(-1) for p in weights]).tolist(), "nll": result.mean_nll,
                  "running": result.history[-1]["running_nll"]})


# A noise that is learned, weights in both readings, and a run in two parts.
fitted((X, X[:, 0]), br.likelihoods.Gaussian("learned"), 1)
weight = torch.rand(100, generator=generator, dtype=torch.float64)
for reading in ("counts", "relative"):
    fitted((X, y, weight), br.likelihoods.Categorical(), 3, sample_weight=2, weights_are=reading)
for epochs in (7, 20):
    fitted((X, y), br.likelihoods.Categorical(), 3, max_epochs=epochs, checkpoint=sys.argv[1] + ".run")
fitted((X, y), br.likelihoods.Categorical(), 3)
assert found[-1]["weights"] == found[-2]["weights"]
if rank == 0:
    open(sys.argv[1], "w").write(json.dumps(found))
if world > 1:
    # A process that leaves first takes the connection down under the other one, which then aborts.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    for name, command in (("one", [sys.executable]), ("two", torchrun)):
        done = subprocess.run(
            [*command, str(script), str(tmp_path / name)], capture_output=True, text=True, cwd=Path.cwd(), timeout=240
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one", "two"))
    for first, second in zip(one, two, strict=True):
        weights = torch.tensor(first["weights"]), torch.tensor(second["weights"])
        assert torch.allclose(*weights, rtol=0, atol=1e-7)
        assert first["nll"] == pytest.approx(second["nll"], rel=1e-9)
        assert first["running"] == pytest.approx(second["running"], rel=1e-9)
