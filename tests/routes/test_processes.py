"""DDP, FSDP2, HSDP and Accelerate with two processes end where one process does: the prior counts once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.processes import free_port

#: What plain sums of the log-prior gave on each process, relative to the truth.
NAIVE: dict[str, list[dict[str, float]]] = {"fsdp": [], "hsdp": []}
SCRIPT = Path(__file__).with_name("train_in_processes.py")


def run(kind, folder):
    output = folder / kind
    command = [str(SCRIPT), kind, str(output)]
    several = ["--nproc-per-node", "2", "--master-port", free_port()]
    if kind == "accelerate":
        # Its --cpu starts one process only; --multi_gpu starts several, and the script then asks for the CPU.
        flags = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
        flags += ["--dynamo_backend", "no", "--main_process_port", free_port()]
        command = [sys.executable, "-m", "accelerate.commands.launch", *flags, *command]
    elif kind == "one":
        command = [sys.executable, *command]
    else:
        command = [sys.executable, "-m", "torch.distributed.run", *several, *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = ("0",) if kind == "one" else ("0", "1")
    for rank in ranks if kind in NAIVE else ():
        NAIVE[kind].append(json.loads((folder / f"{kind}.naive.{rank}").read_text()))
    return [json.loads(output.with_suffix(f".{rank}").read_text()) for rank in ranks]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return run("one", tmp_path_factory.mktemp("one"))[0]


def gap(first, second):
    return float((torch.tensor(first["weights"]) - torch.tensor(second["weights"])).abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp", "hsdp"])
def test_two_processes_find_the_map_of_one(kind, one, tmp_path):
    """Float64, uneven n, sharded or not: the same weights, and at the end a residual of 1e-9."""
    for found in run(kind, tmp_path):
        for case, got in found.items():
            assert gap(one[case], got) < 1e-8, (kind, case)
            if case == "loss":
                continue
            if case.endswith("-600"):
                assert got["residual"] < 1e-9, (kind, case)
            # Values are summed over shards, once: not the local share, not one copy per replica.
            for value in (got["log_prob"], got["logged"]):
                assert value == pytest.approx(got["expected_log_prob"], rel=1e-12), (kind, case)
            assert got["log_prior_at_start"] == pytest.approx(one[case]["log_prior_at_start"], rel=1e-12)
            assert got["routes"] == one[case]["routes"]
    for kind_naive, rows in NAIVE.items():
        if kind_naive == kind == "fsdp":
            # trap sharded-log-prior: .item() of a sharded sum is this process's share, without a word.
            assert all(0.2 < found["item"] < 0.8 and found["item"] == pytest.approx(found["local"]) for found in rows)
            assert all(found["reduced over all"] == pytest.approx(1.0) for found in rows)
        if kind_naive == kind == "hsdp":
            # trap replicated-log-prior: a sum over all processes counts replicas.
            assert all(found["reduced over all"] == pytest.approx(2.0) for found in rows)


@pytest.mark.slow
def test_one_process_converges_and_every_route_is_met(one):
    """What the comparison above rests on: the runs end at a MAP that is not zero."""
    converged = {case: got for case, got in one.items() if case.endswith("-600")}
    assert len(converged) == 4
    assert all(got["residual"] < 1e-9 and max(map(abs, got["weights"])) > 0.3 for got in converged.values())
    routes = {route for case, got in one.items() if case != "loss" for route in got["routes"]}
    assert routes == {"native", "native + centre", "gradient", "proximal"}


@pytest.mark.slow
def test_accelerate_launch(one, tmp_path):
    expected = {name: one[f"{name}-sgd-True-40"] for name in ("isotropic", "centred", "laplace")}
    for found in run("accelerate", tmp_path):
        for name, reference in expected.items():
            assert gap(reference, found[f"accelerate-{name}"]) < 1e-8, name
