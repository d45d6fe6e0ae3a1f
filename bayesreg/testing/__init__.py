"""Tests to inherit: what a family of your own must pass. Needs pytest and SciPy (`pip install bayesreg[test]`)."""

from bayesreg.testing.contract import PriorContract

__all__ = ["PriorContract"]
