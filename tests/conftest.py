"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

# Two workers with two threads each would fight over two cores; the tensors here are small.
torch.set_num_threads(1)


@pytest.fixture
def data_folder() -> Path:
    """The folder of real data sets and pretrained networks; tests that need it skip without it."""
    folder = os.environ.get("BAYESREG_DATA")
    if not folder:
        pytest.skip("set BAYESREG_DATA to the folder of data sets to run this test")
    return Path(folder)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")
