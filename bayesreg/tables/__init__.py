"""Tables as people have them: files of text and numbers with gaps, and what makes features of them."""

from bayesreg.tables.encoder import Encoder
from bayesreg.tables.kinds import Column, Kind, kind_of_column
from bayesreg.tables.read import read_table
from bayesreg.tables.table import Table

__all__ = ["Column", "Encoder", "Kind", "Table", "kind_of_column", "read_table"]
