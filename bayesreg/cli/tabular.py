"""Data for `bayesreg fit`: CSV, NPZ or a data set that scikit-learn ships."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from bayesreg._support.optional import require
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
    """

    features: Matrix
    target: npt.NDArray[np.generic]
    names: list[str]
    task: Task
    classes: list[str]


def load_tabular(source: str, target: str | None = None, task: Task | None = None) -> Tabular:
    """Load a data set.

    Args:
        source: The name of a bundled set, or the path of a `.csv` (with a header) or `.npz` file (arrays X and y).
        target: Target column of a CSV; default the last one.
        task: What kind of target it is; default by looking at it (text or at most 20 whole numbers: classes).

    Returns:
        The data.

    Raises:
        DataError: If it cannot be used; the message names row and column.
        ImportError: If a bundled set is named and scikit-learn is not installed.
    """
    path = Path(source)
    if source in BUNDLED:
        require("sklearn", "sklearn", "bundled data sets")
        import sklearn.datasets

        bunch = getattr(sklearn.datasets, f"load_{source}")()
        return _checked(
            np.asarray(bunch.data, dtype=np.float64), bunch.target, list(bunch.feature_names), task or BUNDLED[source]
        )
    if path.suffix == ".csv":
        features, labels, names = _read_csv(path, target)
        return _checked(features, labels, names, task)
    if path.suffix == ".npz":
        return _checked(*_read_npz(path), task)
    raise DataError(
        f"data: expected a .csv or .npz file or one of {', '.join(BUNDLED)}, got {source!r}{nearest(source, BUNDLED)}"
    )


def _read_csv(path: Path, target: str | None) -> tuple[Matrix, npt.NDArray[np.generic], list[str]]:
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
    if len(set(header)) != len(header):
        raise DataError(f"{path}: expected different column names, got {header}.")
    column = target if target is not None else header[-1]
    if column not in header:
        raise DataError(f"{path}: expected a target column {column!r}, got {header}{nearest(column, header)}")
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
    return features, np.asarray(labels), names


def _number(path: Path, line: int, name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(
            f"{path}, line {line}, column {name!r}: expected a number, got {text!r}; encode text columns as numbers."
        ) from None


def _read_npz(path: Path) -> tuple[Matrix, npt.NDArray[np.generic], list[str]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    try:
        # Opened here, so that it is closed whatever numpy makes of it.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if not {"X", "y"} <= set(file.files):
                raise DataError(f"{path}: expected arrays X and y, got {', '.join(file.files)}.")
            features, labels = file["X"], file["y"]
    except (OSError, ValueError, EOFError, TypeError, IndexError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable NPZ file of plain arrays ({error}).") from error
    if features.ndim != 2 or labels.ndim != 1 or len(features) != len(labels) or features.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: expected numbers X of shape (n, d) and y of shape (n,), got {features.dtype} {features.shape} "
            f"and {labels.shape}."
        )
    return features.astype(np.float64), labels, [f"x{i}" for i in range(features.shape[1])]


def _checked(features: Matrix, labels: npt.NDArray[np.generic], names: list[str], task: Task | None) -> Tabular:
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
    if task is None:
        whole = numeric is not None and bool((numeric == np.round(numeric)).all())
        few = len(np.unique(labels)) <= 20
        task = "classification" if numeric is None or (whole and few) else "regression"
    if task == "regression":
        if numeric is None:
            raise DataError(f"data: regression needs a numeric target, got text such as {str(labels[0])!r}.")
        return Tabular(features, numeric, names, task, [])
    classes, index = np.unique(labels if numeric is None else numeric, return_inverse=True)
    if len(classes) > max(20, len(labels) // 2):
        raise DataError(
            f"data: {len(classes)} classes among {len(labels)} rows: this target looks like a number, not a class; use "
            f"--task regression."
        )
    if len(classes) < 2:
        raise DataError(f"data: classification needs at least two classes, got only {str(classes[0])!r}.")
    return Tabular(features, index, names, task, [_class_name(c) for c in classes])


def _class_name(value: np.generic) -> str:
    return str(int(value)) if isinstance(value, np.floating) and value == int(value) else str(value)


def _as_numbers(labels: npt.NDArray[np.generic]) -> Matrix | None:
    try:
        return labels.astype(np.float64)
    except ValueError:
        return None
