"""New rows as the features that a run was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesreg.cli.tabular.data import read_npz_features
from bayesreg.errors import DataError
from bayesreg.runs import Run
from bayesreg.tables import read_table
from bayesreg.tables.kinds import numbers_in
from bayesreg.tables.read import require_column

__all__ = ["features_of"]


def features_of(
    run: Run, path: Path, header: bool | None, sep: str | None, keep: Sequence[str] = (), decimal: str | None = None
) -> tuple[npt.NDArray[np.float64], list[str], list[list[str]]]:
    """Return the features of a file, what is to be said of it, and columns as they are.

    Args:
        run: The run.
        path: The file; other columns than those that were trained on play no part.
        header: Whether a CSV begins with names.
        sep: What separates its columns.
        keep: Columns to return too, trained on or not.
        decimal: The decimal sign of its numbers.

    Returns:
        (n, features), notes, and the columns of `keep`.

    Raises:
        DataError: If a column is missing, or a value cannot be used.
    """
    if path.suffix.lower() == ".npz":
        if run.columns is not None:
            raise DataError(f"{path}: the run was trained on the columns of a table; expected a .csv or .parquet file.")
        matrix = read_npz_features(path)
        if matrix.shape[1] != len(run.feature_names):
            raise DataError(f"{path}: expected X of {len(run.feature_names)} features, got {matrix.shape[1]}.")
        if keep:
            raise DataError(f"{path}: --keep: its features have no names; expected a .csv or .parquet file.")
        return matrix, [], []
    table = read_table(path, header=header, sep=sep, decimal=decimal)
    for name in keep:
        require_column(table, name, "--keep")
    kept = [table.column(name) for name in keep]
    if run.columns is not None:
        return *run.columns.encode(table), kept
    missing = [name for name in run.feature_names if name not in table.names]
    if missing:
        raise DataError(f"{path}: expected the columns that were trained on, and {missing[0]!r} is missing.")
    columns: list[Any] = [numbers_in(table, name) for name in run.feature_names]
    matrix = np.array(columns, dtype=np.float64).T
    if np.isnan(matrix).any():
        row, column = np.argwhere(np.isnan(matrix))[0]
        raise DataError(f"{path}, line {table.lines[row]}, column {run.feature_names[column]!r}: missing value.")
    return matrix, [], kept
