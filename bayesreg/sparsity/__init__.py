"""Exact zeros as one needs them: how many, the strength that gives nothing else, and all strengths between."""

from bayesreg.sparsity.compact import Compacted, compact
from bayesreg.sparsity.null import null_strength
from bayesreg.sparsity.path import Path, PathPoint, regularization_path
from bayesreg.sparsity.refit import refit
from bayesreg.sparsity.report import zeros
from bayesreg.sparsity.strength import with_strength

__all__ = [
    "Compacted",
    "Path",
    "PathPoint",
    "compact",
    "null_strength",
    "refit",
    "regularization_path",
    "with_strength",
    "zeros",
]
