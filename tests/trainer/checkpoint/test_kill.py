"""A training that is killed at any moment goes on to the same weights."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


def run(name, kills, folder):
    command = [sys.executable, "-m", "tests.trainer.checkpoint.kill", name, str(kills), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and fork")
@pytest.mark.parametrize("name", ["plain", "accumulated", "fp16-scaled", "kinked"])
def test_killed_twenty_times_it_ends_as_if_it_never_was(tmp_path, name):
    told = run(name, 20, tmp_path)
    assert told.returncode == 0, told.stderr
    assert int(re.search(r": (\d+) kills, the same weights", told.stdout)[1]) >= 20
