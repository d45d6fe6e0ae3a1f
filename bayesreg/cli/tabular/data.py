"""Data for `bayesreg fit`: CSV, Parquet, NPZ or a data set that scikit-learn ships."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bayesreg._support.optional import require
from bayesreg._text import printable
from bayesreg.cli.tabular.columns import chosen_kinds
from bayesreg.errors import DataError, nearest
from bayesreg.tables import Encoder, Table, read_table
from bayesreg.tables.decimals import require_points
from bayesreg.tables.read import require_column
from bayesreg.tables.table import NUMBER

__all__ = ["BUNDLED", "Encoded", "Rows", "Tabular", "load_tabular", "read_npz_features"]

Task = Literal["classification", "regression"]
Matrix = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

BUNDLED: dict[str, Task] = {
    "breast_cancer": "classification",
    "diabetes": "regression",
    "digits": "classification",
    "iris": "classification",
    "wine": "classification",
}

_FILES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Encoded:
    """Features of a data set, as they were learned from some of its rows.

    Attributes:
        names: Of the features.
        measured: Which of them are measured, and to be standardised; the others are 0 or 1.
        encoder: What makes them of columns; None where they are numbers as they are.
        matrix: (n, features), of all rows.
        notes: What is to be said of rows that were not learned from.
    """

    names: list[str]
    measured: list[bool]
    encoder: Encoder | None
    matrix: Matrix
    notes: list[str]


@dataclass(frozen=True)
class Tabular:
    """A data set: columns, or numbers, and a target that was checked.

    Attributes:
        target: (n,): class indices or real numbers.
        target_name: What it is called.
        task: What kind of target it is.
        classes: Class labels by index; empty for regression.
        why: How the task was decided.
        notes: What was left out, in sentences.
        matrix: (n, d) numbers, or None.
        names: Their names.
        table: Columns, where there is no matrix.
        kinds: Of the columns that are features: "number" or "text".
    """

    target: npt.NDArray[np.generic]
    target_name: str
    task: Task
    classes: list[str]
    why: str
    notes: list[str]
    matrix: Matrix | None = None
    names: tuple[str, ...] = ()
    table: Table | None = None
    kinds: dict[str, str] | None = None

    def __len__(self) -> int:
        return len(self.target)

    def encoded(self, learned: Rows) -> Encoded:
        """Return the features of all rows, with categories and medians of some.

        Args:
            learned: The rows to learn from.
        """
        if self.table is None or self.kinds is None:
            assert self.matrix is not None
            return Encoded(list(self.names), [True] * len(self.names), None, self.matrix, [])
        encoder = Encoder.of(_rows(self.table, learned), self.kinds)
        matrix, notes = encoder.encode(self.table)
        return Encoded(encoder.names, encoder.measured, encoder, matrix, notes)

    @property
    def words(self) -> str:
        """The task and why, as a sentence."""
        if self.task == "regression":
            return f"regression ({self.why})."
        names = printable(", ".join(self.classes[:6])) + (", ..." if len(self.classes) > 6 else "")
        return f"classification into {len(self.classes)} classes, {names} ({self.why})."


def _rows(table: Table, rows: Sequence[int] | Rows) -> Table:
    columns = [[column[row] for row in rows] for column in table.columns]
    return Table(table.path, table.names, columns, [table.lines[row] for row in rows])


def load_tabular(
    source: str,
    target: str | None = None,
    task: Task | None = None,
    header: bool | None = None,
    *,
    sep: str | None = None,
    decimal: str | None = None,
    features: Sequence[str] | None = None,
    drop: Sequence[str] = (),
) -> Tabular:
    """Load a data set.

    Args:
        source: The name of a bundled set, or the path of a `.csv`, `.tsv`, `.parquet` or `.npz` file (arrays X and y).
        target: Target column of a table; default the last one.
        task: What kind of target it is; default by looking at it (text or at most 20 whole numbers: classes).
        header: Whether the first line of a CSV has names; without, columns are x0, x1, ... Default: names, and a first
            line of numbers is asked about.
        sep: What separates the columns of a CSV.
        decimal: The decimal sign of its numbers.
        features: The columns to use; default all that can be used.
        drop: Columns to leave out.

    Returns:
        The data.

    Raises:
        DataError: If it cannot be used; the message names row and column.
        ImportError: If a bundled set is named and scikit-learn is not installed, or it is Parquet without pyarrow.
    """
    path = Path(source)
    ending = path.suffix.lower()
    options = {
        "--target": target, "--header" if header else "--no-header": header, "--sep": sep, "--decimal": decimal,
        "--features": features, "--drop": drop or None,
    }  # fmt: skip
    given = [option for option, value in options.items() if value is not None]
    if given and ending not in _FILES:
        raise DataError(f"{given[0]}: is for a table with columns, and {source} is none; leave it out.")
    if source in BUNDLED:
        require("sklearn", "sklearn", "bundled data sets")
        import sklearn.datasets

        bunch = getattr(sklearn.datasets, f"load_{source}")()
        matrix, names = np.asarray(bunch.data, dtype=np.float64), list(bunch.feature_names)
        # Whole numbers that are known to be measurements.
        known = None if task or BUNDLED[source] == "classification" else BUNDLED[source]
        found = _numbers(matrix, bunch.target, names, task or known, "" if task else "as that data set is")
        return replace(found, classes=list(map(str, bunch.target_names))) if found.classes else found
    if ending == ".npz":
        return _numbers(*_read_npz(path), task)
    if ending in (*_FILES, ".pkl", ".pickle", ".joblib"):
        return _of_table(read_table(path, target, header, sep, decimal), target, task, features, drop)
    raise DataError(
        f"data: expected a .csv, .parquet or .npz file or one of {', '.join(BUNDLED)}, got {source!r}"
        f"{nearest(source, BUNDLED)}"
    )


def _of_table(
    table: Table, target: str | None, task: Task | None, features: Sequence[str] | None, drop: Sequence[str]
) -> Tabular:
    column = target if target is not None else table.names[-1]
    require_column(table, column, "--target")
    labels = table.column(column)
    kept = [row for row, label in enumerate(labels) if label]
    notes = []
    if len(kept) < len(labels):
        notes.append(f"{len(labels) - len(kept)} rows without a {column!r} are left out.")
        table, labels = _rows(table, kept), [labels[row] for row in kept]
    if not labels:
        raise DataError(f"{table.path}: the target column {column!r} has no value.")
    _require_rows(len(labels))
    _check_labels(table, labels)
    if task != "classification":
        require_points(table, column)
    kinds, left_out = chosen_kinds(table, column, features, drop)
    notes += left_out
    values, task, classes, why = _checked_target(np.asarray(labels), task)
    return Tabular(values, column, task, classes, why, notes, table=table, kinds=kinds)


def _check_labels(table: Table, labels: list[str]) -> None:
    """Refuse a target of numbers whose first is a text: that row is a header."""
    if not NUMBER.fullmatch(labels[0]) and len(labels) > 2 and all(map(NUMBER.fullmatch, labels[1:])):
        raise DataError(
            f"{table.path}, line {table.lines[0]}: the target is {labels[0]!r}, and a number in all other rows: is "
            f"this line the names of the columns? Then it is the first of the file, without --no-header."
        )


def _require_rows(count: int) -> None:
    if count < 2:
        raise DataError(f"data: expected at least two rows, got {count}.")


def _numbers(
    matrix: Matrix, labels: npt.NDArray[np.generic], names: list[str], task: Task | None, why: str = ""
) -> Tabular:
    if matrix.shape[1] == 0:
        raise DataError("data: expected at least one feature column besides the target, got none.")
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise DataError(f"data: row {row + 1}, column {names[column]!r} is NaN or infinite; drop or impute it first.")
    for name, values in zip(names, matrix.T, strict=True):
        _check_size(name, values)
    target, task, classes, why = _checked_target(labels, task, why)
    return Tabular(target, "target", task, classes, why, [], matrix=matrix, names=tuple(names))


def _read_npz(path: Path) -> tuple[Matrix, npt.NDArray[np.generic], list[str]]:
    features, labels = _arrays(path, "X", "y")
    if features.ndim != 2 or labels.ndim != 1 or len(features) != len(labels) or features.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: expected numbers X of shape (n, d) and y of shape (n,), got {features.dtype} {features.shape} "
            f"and {labels.shape}."
        )
    if labels.dtype.kind not in "biufUS":
        raise DataError(
            f"{path}: expected y of real numbers or text, got {labels.dtype}; encode it as numbers or text."
        )
    return features.astype(np.float64), labels, [f"x{i}" for i in range(features.shape[1])]


def read_npz_features(path: Path) -> Matrix:
    """Return the array X of a file.

    Args:
        path: The `.npz` file.

    Returns:
        (n, d).

    Raises:
        DataError: If it has none, or is damaged.
    """
    (features,) = _arrays(path, "X")
    if features.ndim != 2 or features.dtype.kind not in "biuf" or not np.isfinite(features.astype(np.float64)).all():
        raise DataError(f"{path}: expected finite numbers X of shape (n, d), got {features.dtype} {features.shape}.")
    return np.asarray(features, dtype=np.float64)


def _arrays(path: Path, *names: str) -> list[npt.NDArray[Any]]:
    """Return arrays of a file by name, refusing what is none."""
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    try:
        # Opened here, so that it is closed whatever numpy makes of it.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if not set(names) <= set(file.files):
                raise DataError(f"{path}: expected arrays {' and '.join(names)}, got {', '.join(file.files)}.")
            return [file[name] for name in names]
    except MemoryError as error:
        raise DataError(f"{path}: the arrays that it states do not fit into memory ({error}).") from error
    # What numpy and zipfile raise of damaged bytes; SyntaxError and KeyError come from its header of Python literals.
    except (
        OSError, ValueError, EOFError, TypeError, IndexError, KeyError, SyntaxError, NotImplementedError,
        RuntimeError, OverflowError, struct.error, zlib.error, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise DataError(f"{path}: not a readable NPZ file of plain arrays ({error}).") from error


def _checked_target(
    labels: npt.NDArray[np.generic], task: Task | None, why: str = ""
) -> tuple[npt.NDArray[np.generic], Task, list[str], str]:
    """Return targets, the task, the classes and how the task was decided."""
    _require_rows(len(labels))
    numeric = _as_numbers(labels)
    if numeric is not None and not np.isfinite(numeric).all():
        raise DataError("data: the target holds NaN or infinity; drop those rows first.")
    # Whole numbers as they are: beyond 2^53 a float holds no longer each.
    exact = numeric is None or labels.dtype.kind in "iu"
    values: npt.NDArray[Any] = labels if exact or numeric is None else numeric
    classes, index = np.unique(values, return_inverse=True)
    if task is None:
        task, seen = _task_of(numeric, len(classes))
        why = why or seen
    elif not why:
        why = "as asked for"
    if task == "regression":
        if numeric is None:
            raise DataError(f"data: regression needs a numeric target, got text such as {str(labels[0])!r}.")
        _check_size("target", numeric)
        return numeric, task, [], why
    if len(classes) > max(20, len(labels) // 2):
        raise DataError(
            f"data: {len(classes)} classes among {len(labels)} rows: this target looks like a number, not a class; use "
            f"--task regression."
        )
    spelt = len(np.unique(labels)) if labels.dtype.kind == "U" else len(classes)
    if spelt > len(classes):
        raise DataError(
            f"data: {spelt} labels, some of which are one number spelt in several ways (00123 and 123, 1 and 1.0); "
            f"spell each class in one way, or say --task regression if they are numbers."
        )
    if len(classes) < 2:
        raise DataError(f"data: classification needs at least two classes, got only {str(classes[0])!r}.")
    return index, task, [_class_name(c) for c in classes], why


def _task_of(numeric: Matrix | None, classes: int) -> tuple[Task, str]:
    if numeric is None:
        return "classification", "the target is text"
    if not bool((numeric == np.round(numeric)).all()):
        return "regression", "the target is of numbers with fractions"
    if classes <= 20:
        return (
            "classification",
            f"the target is of {classes} whole numbers; --task regression if they measure something",
        )
    return "regression", f"the target is of {classes} different whole numbers; --task classification if they are names"


def _check_size(name: str, column: Matrix) -> None:
    largest = float(np.abs(column).max())
    if largest > 1e150:
        raise DataError(
            f"data: column {name!r} has a value of size {largest:.3g}, whose square is no number; use another unit."
        )


def _class_name(value: np.generic) -> str:
    if isinstance(value, np.bytes_):
        return value.decode("utf-8", "backslashreplace")
    return str(int(value)) if isinstance(value, np.floating) and value == int(value) else str(value)


def _as_numbers(labels: npt.NDArray[np.generic]) -> Matrix | None:
    if labels.dtype.kind == "U" and not all(NUMBER.fullmatch(label.strip()) for label in map(str, labels)):
        return None
    try:
        return labels.astype(np.float64)
    except ValueError:
        return None
