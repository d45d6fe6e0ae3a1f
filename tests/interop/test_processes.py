"""Two processes end where one does, in each framework: the prior counts once, also after a resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.interop.common import PRIORS, Net, by_hand, gap
from tests.processes import free_port

pytestmark = pytest.mark.slow
SCRIPT = str(Path(__file__).with_name("train_in_processes.py"))


def run(framework, kind, folder):
    several = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    output, shared = folder / kind, folder / f"{kind}.checkpoints"
    command = [sys.executable, *([] if kind == "one" else several), SCRIPT, framework, kind, str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd()), "SHARED_FOLDER": str(shared)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(Path(f"{output}.{rank}").read_text()) for rank in ((0,) if kind == "one" else (0, 1))]
    as_tensors = [
        {case: [torch.tensor(w, dtype=torch.float64) for w in weights] for case, weights in one.items()}
        for one in found
    ]
    return as_tensors[0] if kind == "one" else as_tensors


@pytest.mark.parametrize(
    ("framework", "kind"),
    [(one, kind) for one in ("lightning", "transformers") for kind in ("ddp", "sharded")] + [("skorch", "ddp")],
)
def test_two_processes_end_where_one_does(framework, kind, tmp_path):
    pytest.importorskip(framework, reason=f"{framework} is not installed: pip install 'bayesreg[{framework}]'")
    one = run(framework, "one", tmp_path)
    for found in run(framework, kind, tmp_path):
        assert found.keys() == one.keys()
        for case, weights in found.items():
            assert gap(weights, one[case]) < 1e-12, case
    for kind_of_prior in PRIORS:
        for limit in (None, 0.1):
            expected = by_hand(PRIORS[kind_of_prior](), clip=limit)
            assert gap(one[f"{kind_of_prior} {limit}"], expected) < 1e-12
            assert gap(expected, [p.detach() for p in Net().parameters()]) > 1e-2
