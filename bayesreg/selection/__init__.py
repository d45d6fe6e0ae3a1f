"""From names and selectors to parameters: tied, compiled, wrapped and frozen ones handled once, here."""

from bayesreg.selection.parameter import ParameterInfo as ParameterInfo
from bayesreg.selection.roles import Role as Role
from bayesreg.selection.roles import biases as biases
from bayesreg.selection.roles import embeddings as embeddings
from bayesreg.selection.roles import kernels as kernels
from bayesreg.selection.roles import norms as norms
from bayesreg.selection.roles import role_of as role_of
from bayesreg.selection.roles import vectors as vectors
from bayesreg.selection.selectors import Selection as Selection
from bayesreg.selection.selectors import Selector as Selector
from bayesreg.selection.selectors import SelectorLike as SelectorLike
from bayesreg.selection.selectors import any_of as any_of
from bayesreg.selection.selectors import as_selector as as_selector
from bayesreg.selection.selectors import selected as selected
from bayesreg.selection.selectors import where as where
from bayesreg.selection.walk import buffers_of as buffers_of
from bayesreg.selection.walk import canonical_tensors as canonical_tensors
from bayesreg.selection.walk import parameters_of as parameters_of

__all__ = [
    "ParameterInfo",
    "Role",
    "Selection",
    "Selector",
    "SelectorLike",
    "any_of",
    "as_selector",
    "biases",
    "buffers_of",
    "canonical_tensors",
    "embeddings",
    "kernels",
    "norms",
    "parameters_of",
    "role_of",
    "selected",
    "vectors",
    "where",
]
