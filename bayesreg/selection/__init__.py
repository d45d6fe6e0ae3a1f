"""From names and selectors to parameters: tied, compiled, wrapped and frozen ones handled once, here."""

from bayesreg.selection.parameter import ParameterInfo as ParameterInfo
from bayesreg.selection.selectors import Selection as Selection
from bayesreg.selection.selectors import Selector as Selector
from bayesreg.selection.selectors import SelectorLike as SelectorLike
from bayesreg.selection.selectors import any_of as any_of
from bayesreg.selection.selectors import as_selector as as_selector
from bayesreg.selection.selectors import biases as biases
from bayesreg.selection.selectors import embeddings as embeddings
from bayesreg.selection.selectors import norms as norms
from bayesreg.selection.selectors import selected as selected
from bayesreg.selection.selectors import where as where
from bayesreg.selection.walk import buffers_of as buffers_of
from bayesreg.selection.walk import canonical_tensors as canonical_tensors
from bayesreg.selection.walk import parameters_of as parameters_of

__all__ = [
    "ParameterInfo",
    "Selection",
    "Selector",
    "SelectorLike",
    "any_of",
    "as_selector",
    "biases",
    "buffers_of",
    "canonical_tensors",
    "embeddings",
    "norms",
    "parameters_of",
    "selected",
    "where",
]
