"""Reference weights: a module, a state dict, a file or a directory, read into named tensors."""

from bayesreg.references.files import read_tensor_file
from bayesreg.references.names import Rename, plain_names
from bayesreg.references.reference import Reference, Storage, load_reference, read_reference

__all__ = ["Reference", "Rename", "Storage", "load_reference", "plain_names", "read_reference", "read_tensor_file"]
