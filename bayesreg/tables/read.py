"""Columns of text from files: CSV and Parquet."""

from __future__ import annotations

import csv
from pathlib import Path

from bayesreg._support.optional import require
from bayesreg.errors import DataError, nearest
from bayesreg.tables.decimals import with_points
from bayesreg.tables.table import MISSING, NUMBER, Table, few, text_of

__all__ = ["read_table", "require_column"]

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_PICKLES = {".pkl", ".pickle", ".p", ".joblib"}


def read_table(
    path: Path,
    target: str | None = None,
    header: bool | None = None,
    sep: str | None = None,
    decimal: str | None = None,
) -> Table:
    """Read a file.

    Args:
        path: A `.csv` (or `.tsv`) or `.parquet` file.
        target: A column whose text tells a header from a row of data; default the last.
        header: Whether a CSV begins with names; None: it does, and a first line of numbers is asked about.
        sep: What separates the columns of a CSV; default a comma, and a tab in `.tsv`.
        decimal: The decimal sign of a CSV's numbers: "." (default) or ",".

    Returns:
        The table.

    Raises:
        DataError: If it cannot be read; the message names line and column.
        ImportError: If it is Parquet and pyarrow is not installed.
    """
    ending = path.suffix.lower()
    if ending in _PICKLES:
        raise DataError(
            f"{path}: a pickle runs code when it is read, so it is not; write the table with to_csv() or to_parquet()."
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if ending == ".parquet":
        given = {"--header": header, "--sep": sep, "--decimal": decimal}
        if named := next((option for option, value in given.items() if value is not None), None):
            raise DataError(f"{named}: is for a CSV file, and {path} is none.")
        return _parquet(path)
    if decimal not in (None, ".", ","):
        raise DataError(f"--decimal: expected '.' or ',', got {decimal!r}.")
    found = _csv(path, target, header, sep or ("\t" if ending == ".tsv" else ","))
    return with_points(found) if decimal == "," else found


def _parquet(path: Path) -> Table:
    require("pyarrow", "parquet", "Parquet files")
    import pyarrow
    import pyarrow.parquet

    try:
        read = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}).") from error
    names = [str(name) for name in read.column_names]
    _check_once(path, names)
    columns = []
    for name, column in zip(names, read.columns, strict=True):
        if pyarrow.types.is_nested(column.type) or pyarrow.types.is_binary(column.type):
            raise DataError(f"{path}, column {name!r}: expected numbers, text or dates, got {column.type}.")
        columns.append([text_of(value) for value in column.to_pylist()])
    return Table(path, names, columns, list(range(1, read.num_rows + 1)))


def _csv(path: Path, target: str | None, named: bool | None, sep: str) -> Table:
    if len(sep) != 1:
        raise DataError(f"--sep: expected one character, such as ';', got {sep!r}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=sep)
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: not a readable CSV file in UTF-8 ({error}); a spreadsheet saves it as 'CSV UTF-8'."
        ) from error
    if len(rows) < 2:
        raise DataError(f"{path}: expected a header and at least one row, got {len(rows)} lines.")
    names = [name.strip() for name in rows[0][1]]
    if len(names) == 1 and (mark := next((mark for mark in ";\t|" if mark in names[0]), None)):
        shown = "a tab, --sep $'\\t'" if mark == "\t" else f"--sep '{mark}'"
        by = _SEPARATORS.get(sep, repr(sep))
        raise DataError(f"{path}: expected columns separated by {by}, got the header {names[0]!r}; say {shown}.")
    if named is not False:
        column = target if target in names else names[-1]
        others = {row[names.index(column)].strip() for _, row in rows[1:] if len(row) == len(names)}
        _check_names(path, names, column, others, told=named is True)
        rows = rows[1:]
    else:
        names = [f"x{index}" for index in range(len(names))]
    for number, row in rows:
        if len(row) != len(names):
            raise DataError(f"{path}, line {number}: expected {len(names)} values, got {len(row)}.")
    columns = [
        ["" if text.strip().lower() in MISSING else text.strip() for text in column]
        for column in zip(*(row for _, row in rows), strict=True)
    ]
    return Table(path, names, columns, [number for number, _ in rows])


def _check_names(path: Path, header: list[str], target: str, labels: set[str], *, told: bool) -> None:
    """Refuse a first line that is no header: a row of data would be lost, and be the names of columns."""
    features = [name for name in header if name != target]
    # Columns that pandas numbered are names, if not the target's text is a label too: a row of data looks so as well.
    counted = features == [str(index) for index in range(len(features))] and len(features) > 1
    numbered = counted and (target == str(len(features)) or not (NUMBER.fullmatch(target) or target in labels))
    if features and not told and all(NUMBER.fullmatch(name) for name in features) and not numbered:
        raise DataError(
            f"{path}, line 1: expected the names of the columns, got numbers ({few(header)}); if they are names "
            f"(years), say --header; if they are a row of data, --no-header, and the columns are x0, x1, ..."
        )
    if "" in header:
        raise DataError(
            f"{path}, line 1: column {header.index('') + 1} has no name; give it one, or leave it out (an index that "
            f"pandas wrote is left out by to_csv(index=False))."
        )
    _check_once(path, header)


def _check_once(path: Path, names: list[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(
            f"{path}, line 1: expected different column names, got {twice[0]!r} {names.count(twice[0])} times."
        )


def require_column(table: Table, name: str, option: str) -> None:
    """Raise unless a table has a column.

    Args:
        table: The table.
        name: Of the column.
        option: That named it, for the message.

    Raises:
        DataError: If it has none.
    """
    if name not in table.names:
        raise DataError(f"{table.path}: {option}: expected a column {name!r}, got {few(table.names)}"
                        f"{nearest(name, table.names)}")  # fmt: skip
