"""Run folders: a trained model with its prior, its likelihood and what is known of them, written and read back."""

from bayesreg.runs.load import load_run
from bayesreg.runs.network import Standardize, Unstandardize, build_network, imported, standardise
from bayesreg.runs.run import Run
from bayesreg.runs.save import is_run, save_run, write_run

__all__ = [
    "Run",
    "Standardize",
    "Unstandardize",
    "build_network",
    "imported",
    "is_run",
    "load_run",
    "save_run",
    "standardise",
    "write_run",
]
