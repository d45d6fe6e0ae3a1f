"""The README's Python runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    if not README.is_file():
        pytest.skip("the README is not beside the tests")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    prior = names["prior"]
    assert float(prior.penalty().detach()) > 0.0
    assert names["regressor"].score(names["X"][:, 1:], names["X"][:, 0]) > 0.5


def test_it_is_short_and_leads_to_every_page():
    """A door: what is behind it is on the pages."""
    if not README.is_file():
        pytest.skip("the README is not beside the tests")
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 110
    linked = re.findall(r"\]\((docs/[^)#]+)\)", text)
    assert all((README.parent / page).is_file() for page in linked)
    assert len(set(linked)) >= 15
