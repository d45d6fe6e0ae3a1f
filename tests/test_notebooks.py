"""Each notebook is a pair, text and executed; the pictures are in it. CI executes the text anew."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PAIRS = sorted(NOTEBOOKS.glob("*.py"))


def cells_of(script):
    """Split a percent script into (kind, source)."""
    body = script.split("# ---\n", 2)[2]
    parts = re.split(r"^# %%(.*)\n", body, flags=re.M)[1:]
    found = []
    for tag, text in zip(parts[::2], parts[1::2], strict=True):
        if "[markdown]" in tag:
            found.append((
                "markdown",
                "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines()).strip(),
            ))
        else:
            found.append(("code", text.strip()))
    return found


@pytest.mark.skipif(not PAIRS, reason="the notebooks are not beside the tests")
@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_executed_half_is_of_the_text(path):
    executed = json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    theirs = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in executed]
    assert theirs == cells_of(path.read_text(encoding="utf-8"))
    outputs = [output for cell in executed if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    counts = [cell["execution_count"] for cell in executed if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    text = path.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert "/tmp/" not in text
    assert "Warning" not in text


@pytest.mark.skipif(not PAIRS, reason="the notebooks are not beside the tests")
@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_a_cell_is_a_step(path):
    lengths = [
        sum(bool(line.strip()) for line in source.splitlines())
        for kind, source in cells_of(path.read_text(encoding="utf-8"))
        if kind == "code"
    ]
    assert max(lengths) <= 25


@pytest.mark.skipif(not PAIRS, reason="the notebooks are not beside the tests")
@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_it_says_first_for_whom_it_is(path):
    title, first = cells_of(path.read_text(encoding="utf-8"))[0][1].split("\n\n")[:2]
    assert title.startswith("# ")
    assert first.startswith("For ")
