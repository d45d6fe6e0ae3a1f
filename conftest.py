"""For all tests and the examples in docstrings: a seed; what needs a framework that is missing is not collected."""

from __future__ import annotations

import importlib.util

import pytest
import torch

collect_ignore = [
    f"bayesreg/interop/{name}.py"
    for name in ("lightning", "skorch", "transformers")
    if importlib.util.find_spec(name) is None
]


@pytest.fixture(autouse=True)
def seeded():
    """Every test and every example draws the same numbers, alone or in any order."""
    torch.manual_seed(0)
