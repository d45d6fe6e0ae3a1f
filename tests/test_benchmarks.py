"""Every benchmark that the pages name begins: numbers come from commands that run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "benchmarks"
# What most of them need to fit their first model; then they are stopped.
SECONDS = 12
if not ROOT.is_dir():
    pytest.skip("the benchmarks are in a clone only", allow_module_level=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.glob("[a-z]*.py")))
def test_a_benchmark_begins(name, tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / name)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return
    missing = re.search(r"No module named '((?!bayesreg|_)\w+)|pip install '?(bayesreg\[\w+)", said)
    if missing is not None:
        pytest.skip(f"it needs {missing[1] or missing[2]}")
    if "BAYESREG_DATA" in said:
        pytest.skip("it needs BAYESREG_DATA")
    assert process.returncode == 0, said[-2000:]
