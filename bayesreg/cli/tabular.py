"""Data for `bayesreg fit`: CSV, NPZ or a data set that scikit-learn ships."""

from __future__ import annotations

import csv
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bayesreg._support.optional import require
from bayesreg._text import printable
from bayesreg.errors import DataError, nearest

__all__ = ["BUNDLED", "Tabular", "load_tabular"]

Task = Literal["classification", "regression"]
Matrix = npt.NDArray[np.float64]

BUNDLED: dict[str, Task] = {
    "breast_cancer": "classification",
    "diabetes": "regression",
    "digits": "classification",
    "iris": "classification",
    "wine": "classification",
}

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.ASCII | re.IGNORECASE)

_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


@dataclass(frozen=True)
class Tabular:
    """Features and target, checked.

    Attributes:
        features: (n, d).
        target: (n,): class indices or real numbers.
        names: The d feature names.
        task: What kind of target it is.
        classes: Class labels by index; empty for regression.
        why: How the task was decided.
    """

    features: Matrix
    target: npt.NDArray[np.generic]
    names: list[str]
    task: Task
    classes: list[str]
    why: str

    @property
    def words(self) -> str:
        """The task and why, as a sentence."""
        if self.task == "regression":
            return f"regression ({self.why})."
        names = printable(", ".join(self.classes[:6])) + (", ..." if len(self.classes) > 6 else "")
        return f"classification into {len(self.classes)} classes, {names} ({self.why})."


def load_tabular(
    source: str, target: str | None = None, task: Task | None = None, header: bool | None = None
) -> Tabular:
    """Load a data set.

    Args:
        source: The name of a bundled set, or the path of a `.csv` or `.npz` file (arrays X and y).
        target: Target column of a CSV; default the last one.
        task: What kind of target it is; default by looking at it (text or at most 20 whole numbers: classes).
        header: Whether the first line of a CSV has names; without, columns are x0, x1, ... Default: names, and a first
            line of numbers is asked about.

    Returns:
        The data.

    Raises:
        DataError: If it cannot be used; the message names row and column.
        ImportError: If a bundled set is named and scikit-learn is not installed.
    """
    path = Path(source)
    ending = path.suffix.lower()
    if (target is not None or header is not None) and ending != ".csv":
        option = "--target" if target is not None else "--header" if header else "--no-header"
        raise DataError(f"{option}: is for a CSV file, and {source} is none; leave it out.")
    if source in BUNDLED:
        require("sklearn", "sklearn", "bundled data sets")
        import sklearn.datasets

        bunch = getattr(sklearn.datasets, f"load_{source}")()
        features, names = np.asarray(bunch.data, dtype=np.float64), list(bunch.feature_names)
        # Whole numbers that are known to be measurements.
        known = None if task or BUNDLED[source] == "classification" else BUNDLED[source]
        return _checked(features, bunch.target, names, task or known, "" if task else "as that data set is")
    if ending == ".csv":
        features, labels, names = _read_csv(path, target, header)
        return _checked(features, labels, names, task)
    if ending == ".npz":
        return _checked(*_read_npz(path), task)
    raise DataError(
        f"data: expected a .csv or .npz file or one of {', '.join(BUNDLED)}, got {source!r}{nearest(source, BUNDLED)}"
    )


def _read_csv(path: Path, target: str | None, named: bool | None) -> tuple[Matrix, npt.NDArray[np.generic], list[str]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file in UTF-8 ({error}).") from error
    if len(rows) < 2:
        raise DataError(f"{path}: expected a header and at least one row, got {len(rows)} lines.")
    header = [name.strip() for name in rows[0][1]]
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise DataError(f"{path}: expected columns separated by commas, got the header {header[0]!r}.")
    if named is not False:
        column = target if target in header else header[-1]
        others = {row[header.index(column)].strip() for _, row in rows[1:] if len(row) == len(header)}
        _check_names(path, header, column, others, told=named is True)
    else:
        header = [f"x{index}" for index in range(len(header))]
        rows.insert(0, (0, header))
    column = target if target is not None else header[-1]
    if column not in header:
        raise DataError(f"{path}: expected a target column {column!r}, got {_few(header)}{nearest(column, header)}")
    where = header.index(column)
    features = np.empty((len(rows) - 1, len(header) - 1))
    labels = []
    for index, (number, row) in enumerate(rows[1:]):
        if len(row) != len(header):
            raise DataError(f"{path}, line {number}: expected {len(header)} values, got {len(row)}.")
        for name, text in zip(header, row, strict=True):
            if text.strip().lower() in _MISSING:
                raise DataError(
                    f"{path}, line {number}, column {name!r}: missing value; drop the row or impute it first."
                )
        labels.append(row[where].strip())
        features[index] = [
            _number(path, number, name, text)
            for place, (name, text) in enumerate(zip(header, row, strict=True))
            if place != where
        ]
    names = [name for name in header if name != column]
    _check_labels(path, rows[1][0], labels)
    return features, np.asarray(labels), names


def _check_names(path: Path, header: list[str], target: str, labels: set[str], *, told: bool) -> None:
    """Refuse a first line that is no header: a row of data would be lost, and be the names of columns."""
    features = [name for name in header if name != target]
    # Columns that pandas numbered are names, if not the target's text is a label too: a row of data looks so as well.
    counted = features == [str(index) for index in range(len(features))] and len(features) > 1
    numbered = counted and (target == str(len(features)) or not (_NUMBER.fullmatch(target) or target in labels))
    if features and not told and all(_NUMBER.fullmatch(name) for name in features) and not numbered:
        raise DataError(
            f"{path}, line 1: expected the names of the columns, got numbers ({_few(header)}); if they are names "
            f"(years), say --header; if they are a row of data, --no-header, and the columns are x0, x1, ..."
        )
    if "" in header:
        raise DataError(
            f"{path}, line 1: column {header.index('') + 1} has no name; give it one, or leave it out (an index that "
            f"pandas wrote is left out by to_csv(index=False))."
        )
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataError(
            f"{path}, line 1: expected different column names, got {twice[0]!r} {header.count(twice[0])} times."
        )


def _check_labels(path: Path, line: int, labels: list[str]) -> None:
    """Refuse a target of numbers whose first is a text: that row is a header."""
    if not _NUMBER.fullmatch(labels[0]) and len(labels) > 2 and all(map(_NUMBER.fullmatch, labels[1:])):
        raise DataError(
            f"{path}, line {line}: the target is {labels[0]!r}, and a number in all other rows: is this line the names "
            f"of the columns? Then it is the first of the file, without --no-header."
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f", ... ({len(names)})" if len(names) > 6 else "")


def _number(path: Path, line: int, name: str, text: str) -> float:
    # float() reads 1_000 and digits of other scripts too, which are slips more often than numbers.
    if not _NUMBER.fullmatch(text.strip()):
        raise DataError(
            f"{path}, line {line}, column {name!r}: expected a number, got {text!r}; encode text columns as numbers."
        )
    return float(text)


def _read_npz(path: Path) -> tuple[Matrix, npt.NDArray[np.generic], list[str]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    try:
        # Opened here, so that it is closed whatever numpy makes of it.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if not {"X", "y"} <= set(file.files):
                raise DataError(f"{path}: expected arrays X and y, got {', '.join(file.files)}.")
            features, labels = file["X"], file["y"]
    except MemoryError as error:
        raise DataError(f"{path}: the arrays that it states do not fit into memory ({error}).") from error
    # What numpy and zipfile raise of damaged bytes; SyntaxError and KeyError come from its header of Python literals.
    except (
        OSError, ValueError, EOFError, TypeError, IndexError, KeyError, SyntaxError, NotImplementedError,
        RuntimeError, OverflowError, struct.error, zlib.error, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise DataError(f"{path}: not a readable NPZ file of plain arrays ({error}).") from error
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


def _checked(
    features: Matrix, labels: npt.NDArray[np.generic], names: list[str], task: Task | None, why: str = ""
) -> Tabular:
    if features.shape[1] == 0:
        raise DataError("data: expected at least one feature column besides the target, got none.")
    if not np.isfinite(features).all():
        row, column = np.argwhere(~np.isfinite(features))[0]
        raise DataError(f"data: row {row + 1}, column {names[column]!r} is NaN or infinite; drop or impute it first.")
    if len(labels) < 2:
        raise DataError(f"data: expected at least two rows, got {len(labels)}.")
    numeric = _as_numbers(labels)
    if numeric is not None and not np.isfinite(numeric).all():
        raise DataError("data: the target holds NaN or infinity; drop those rows first.")
    for name, column in zip(names, features.T, strict=True):
        _check_size(name, column)
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
        return Tabular(features, numeric, names, task, [], why)
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
    return Tabular(features, index, names, task, [_class_name(c) for c in classes], why)


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
    if labels.dtype.kind == "U" and not all(_NUMBER.fullmatch(label.strip()) for label in map(str, labels)):
        return None
    try:
        return labels.astype(np.float64)
    except ValueError:
        return None
