"""Runs that survive: their whole state in files, and back from them to the bit."""

from bayesreg.trainer.checkpoint.folder import RunFolder
from bayesreg.trainer.checkpoint.randomness import Randomness
from bayesreg.trainer.checkpoint.tree import pack, unpack

__all__ = ["Randomness", "RunFolder", "pack", "unpack"]
