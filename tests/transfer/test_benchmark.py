"""The transfer benchmark runs, goes on where it was stopped, and chooses by the data that it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# All but "learned prior, Fisher whole", whose fits take a second each.
METHODS = ("no prior, pretrained start", "standard prior", "pretrained-centred prior", "learned prior, Fisher diagonal")
SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "transfer.py"


@pytest.fixture
def run(data_folder, tmp_path):
    if not SCRIPT.is_file():
        pytest.skip("the benchmarks are not beside the tests")

    def call(*options, name="summary"):
        command = [
            sys.executable, str(SCRIPT), "--tasks", "sentences", "--sizes", "10", "--seeds", "2", "--processes", "1",
            "--methods", *METHODS, "--out", str(tmp_path / "out"), "--json", str(tmp_path / f"{name}.json"), *options,
        ]  # fmt: skip
        environment = {**os.environ, "BAYESREG_DATA": str(data_folder), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        return done, tmp_path / "out" / "fits.jsonl", tmp_path / f"{name}.json"

    return call


@pytest.mark.slow
def test_the_three_ways_of_choosing_and_resuming(run):
    done, fits, summary = run()
    assert done.returncode == 0, done.stderr[-2000:]
    check_choices(fits, summary)
    first = json.loads(summary.read_text())["tasks"]
    lines = fits.read_text().splitlines()
    # Interrupted in the middle of a line.
    fits.write_text("\n".join([*lines[:-3], lines[-3][:40]]))
    done, _, again = run(name="again")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "3 of 3 jobs" in done.stdout
    assert json.loads(again.read_text())["tasks"] == first
    done, *_ = run("--folds", "2")
    assert done.returncode == 1
    assert "holds results of another protocol" in done.stderr


def check_choices(fits, summary):
    jobs = {tuple(r["job"]): r["rows"] for r in map(json.loads, fits.read_text().splitlines()[1:])}
    content = json.loads(summary.read_text())["tasks"]["sentences"]
    method = "pretrained-centred prior"
    rehearsed = [rows for job, rows in jobs.items() if job[1] == "rehearsal" and job[4] == method]
    assert len(rehearsed) == 5
    means = [sum(rows[k]["test"]["nll"] for rows in rehearsed) for k in range(12)]
    assert content["rule"][method]["10"] == rehearsed[0][means.index(min(means))]["setting"]
    for seed in (0, 1):
        rows = jobs["sentences", "target", 10, seed, method]
        chosen = {cell["way"]: cell for cell in content["cells"] if cell["method"] == method}
        assert chosen["oracle"]["nll"][seed] == pytest.approx(min(row["test"]["nll"] for row in rows), abs=1e-6)
        assert chosen["split"]["settings"][seed] == min(rows, key=lambda row: row["split"]["nll"])["setting"]
        assert chosen["rule"]["settings"][seed] == content["rule"][method]["10"]
