"""Every trap of the documentation is real without bayesreg, and answered with it; no identifier is without a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests import traps

PAGE = Path(__file__).parent.parent / "docs" / "traps.md"

#: Traps that need two processes, and the test that holds them.
IN_PROCESSES = {
    "sharded-log-prior": "test_two_processes_find_the_map_of_one",
    "replicated-log-prior": "test_two_processes_find_the_map_of_one",
}
#: How near "right" is, where it is not exact: a share of 368 weights; zeros are counted.
TOLERANCE = {"prox-first-step": 0.02}


def rows():
    """Return the page's rows by identifier."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {re.match(r"\| `([\w-]+)` \|", line)[1]: line for line in lines}


def test_every_identifier_on_the_page_has_a_test_and_the_reverse():
    assert len({one.identifier for one in traps.TRAPS}) == len(traps.TRAPS)
    assert set(rows()) == {one.identifier for one in traps.TRAPS} | set(IN_PROCESSES)
    processes = (Path(__file__).parent / "routes" / "test_processes.py").read_text()
    for identifier, test in IN_PROCESSES.items():
        assert f"def {test}(" in processes
        assert f"trap {identifier}" in processes


@pytest.mark.slow
@pytest.mark.parametrize("one", traps.TRAPS, ids=lambda one: one.identifier)
def test_trap(one):
    if one.identifier == "centre-rounding" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor, or torch on it, rounds λθ and λθ₀ alike: it does not fuse multiply and add")
    found = one.measure()
    if one.identifier == "scale-invariant":
        # Tripled weights, the same function: there is no belief about it to read.
        assert found.without < 1e-3
    else:
        assert abs(found.without - found.right) > 0.05, "the plain attempt is right: not a trap"
    if found.with_ is None:
        assert found.raised
    else:
        assert found.with_ == pytest.approx(found.right, abs=TOLERANCE.get(one.identifier, 1e-5))
    assert traps.row(one, found) == rows()[one.identifier], "docs/traps.md is old: python -m tests.traps --write"
