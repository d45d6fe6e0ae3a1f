"""Arrays, tensors and tables in memory, as one large batch that is indexed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesreg.data.batch import Batch, BatchFormat
from bayesreg.errors import DataError, nearest
from bayesreg.likelihoods import Likelihood

__all__ = ["Arrays", "as_arrays", "as_inputs", "dtype_of", "feature_columns", "in_order", "is_table"]


class Arrays(Dataset[Batch]):
    """Inputs and targets in memory, indexed a batch at a time.

    Args:
        inputs: A tensor, several in a tuple, or a mapping of tensors; first dimension the examples.
        targets: The same number of examples.
        weights: (n,), or None.

    Raises:
        DataError: If the lengths differ, there is no example, or a value is NaN or infinite.
    """

    def __init__(self, inputs: Any, targets: Tensor, weights: Tensor | None = None) -> None:
        named = [*parts("inputs", inputs), ("targets", targets), *parts("sample weights", weights)]
        for name, tensor in named:
            if tensor.ndim == 0 or targets.ndim == 0 or len(tensor) != len(targets):
                raise DataError(
                    f"data: expected as many targets as inputs, got {name} of shape {tuple(tensor.shape)} and targets "
                    f"of shape {tuple(targets.shape)}."
                )
        if len(targets) == 0:
            raise DataError("data: expected at least one example, got none.")
        for name, tensor in named:
            _require_finite(name, tensor)
        self.inputs, self.targets, self.weights = inputs, targets, weights

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: Any) -> Batch:
        weights = None if self.weights is None else self.weights[index]
        return Batch(_at(self.inputs, index), self.targets[index], weights)

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return a whole batch at once, which the loader passes on as it is."""
        return self[torch.as_tensor(indices)]


def parts(name: str, inputs: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of inputs with what to call them."""
    if isinstance(inputs, Mapping):
        yield from ((f"{name} {key!r}", value) for key, value in inputs.items())
    elif isinstance(inputs, tuple | list):
        yield from ((f"{name} {index}", value) for index, value in enumerate(inputs))
    elif inputs is not None:
        yield name, inputs


def _at(inputs: Any, index: Any) -> Any:
    if isinstance(inputs, Tensor):
        return inputs[index]
    if isinstance(inputs, Mapping):
        return {key: value[index] for key, value in inputs.items()}
    return tuple(value[index] for value in inputs)


def dtype_of(model: nn.Module) -> torch.dtype:
    """Return the dtype of a model's parameters, torch's default where it has none that are real."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())


def is_table(data: Any) -> bool:
    """Return whether this is a pandas DataFrame, or a table that answers as one."""
    return hasattr(data, "columns") and hasattr(data, "to_numpy") and hasattr(data, "drop")


def as_arrays(data: Any, dtype: torch.dtype, likelihood: Likelihood, form: BatchFormat) -> Arrays:
    """Return arrays, tensors or a table in memory as examples.

    Args:
        data: (inputs, targets) or more entries, a mapping of arrays, or a table with the target among its columns.
        dtype: That of the model's parameters; real inputs are cast to it.
        likelihood: Says of what kind targets must be.
        form: Which of them is the target, which the weights.

    Returns:
        The examples.

    Raises:
        DataError: If they cannot be used.
    """
    if isinstance(data, tuple | list | Mapping) and not data:
        raise DataError(f"data: expected a pair (inputs, targets), got an empty {type(data).__name__}.")
    if is_table(data):
        batch = _of_table(data, form)
    elif isinstance(data, Mapping):
        batch = form({key: _tensor(repr(key), value) for key, value in data.items()}, "data")
    else:
        # Beside (inputs, targets) the inputs are several or a mapping only where they are told apart from a matrix.
        names = ("inputs", "targets") if len(data) == 2 else tuple(f"entry {index}" for index in range(len(data)))
        batch = form(tuple(_tensors(name, value) for name, value in zip(names, data, strict=True)), "data")
    inputs = _cast(batch.inputs, dtype)
    targets = batch.target
    if likelihood.target_kind == "real" or (likelihood.target_kind == "any" and targets.is_floating_point()):
        targets = targets.to(dtype)
    elif likelihood.target_kind == "integer":
        # Class probabilities are targets too, one row per example.
        if targets.is_floating_point() and targets.ndim == 1:
            raise DataError(f"data: {likelihood.describe()} expects integer targets, got dtype {targets.dtype}.")
        targets = targets.to(dtype) if targets.is_floating_point() else targets.long()
    return Arrays(inputs, targets, None if batch.weight is None else batch.weight.to(torch.float64))


def as_inputs(data: Any, dtype: torch.dtype) -> Any:
    """Return inputs alone as a model takes them: a tensor, several in a tuple, or a mapping of tensors.

    Args:
        data: An array, tensor or table, or several in a tuple or a mapping.
        dtype: Real ones are cast to it.

    Returns:
        The inputs.

    Raises:
        DataError: If they cannot be used.
    """
    inputs = _cast(_tensors("inputs", data), dtype)
    for name, tensor in parts("inputs", inputs):
        _require_finite(name, tensor)
    return inputs


def _require_finite(name: str, tensor: Tensor) -> None:
    if tensor.is_meta:
        raise DataError(f"data: expected values, got {name} of shape {tuple(tensor.shape)} on the meta device.")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise DataError(f"data: {name} hold NaN or infinity; drop or impute missing values first.")


def _cast(inputs: Any, dtype: torch.dtype) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.to(dtype) if inputs.is_floating_point() else inputs
    if isinstance(inputs, Mapping):
        return {key: _cast(value, dtype) for key, value in inputs.items()}
    return tuple(_cast(value, dtype) for value in inputs)


def _of_table(table: Any, form: BatchFormat) -> Batch:
    columns = list(table.columns)
    _require_once(columns)
    for name, column in (("target", form.target), ("sample_weight", form.sample_weight)):
        if (column is None and name == "target") or (column is not None and column not in columns):
            given = "nothing" if column is None else repr(column)
            hint = nearest(str(column), map(str, columns)) if column is not None else ""
            raise DataError(
                f"data: expected one of the table's columns as {name}=, got {given}{hint}; MAPTrainer(..., "
                f"target='price'), or fit((table, targets))."
            )
    weight = None if form.sample_weight is None else _tensor("sample weights", table[form.sample_weight])
    rest = table.drop(columns=[c for c in (form.target, form.sample_weight) if c is not None])
    if not len(rest.columns):
        raise DataError("data: expected columns of features beside the target, got none.")
    named: dict[str, Any] = {"inputs": _tensor("inputs", rest), "target": _tensor("targets", table[form.target])}
    read = BatchFormat("target", None if weight is None else "weight")
    batch = read(named if weight is None else {**named, "weight": weight})
    return Batch(batch.inputs["inputs"], batch.target, batch.weight)


def _tensors(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tensor(f"{name} {key!r}", one) for key, one in value.items()}
    # A list of lists of numbers is a matrix; arrays side by side are several inputs.
    if isinstance(value, tuple | list) and value and all(hasattr(one, "shape") and len(one.shape) for one in value):
        return tuple(_tensor(f"{name} {index}", one) for index, one in enumerate(value))
    return _tensor(name, value)


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if is_table(value):
        _require_once(list(value.columns))
        for column in value.columns:
            _column(f"column {column!r}", value[column])
    try:
        # A table of features is one matrix of numbers, whatever kinds its columns have.
        array = value.to_numpy(dtype=np.float64) if is_table(value) else np.asarray(value)
        if array.dtype.kind == "O" and hasattr(value, "to_numpy"):
            # pandas keeps columns of several kinds, and its nullable ones, as objects.
            array = value.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"data: expected numbers as {name}, got {type(value).__name__} ({error}).") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"data: expected numbers as {name}, got dtype {array.dtype}.")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    # Tables give views that may not be written to.
    return torch.as_tensor(np.require(array, requirements=["C", "W"]))


def _require_once(columns: list[Any]) -> None:
    if len(set(columns)) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise DataError(f"data: expected every column of the table once, got {twice!r} twice; rename one.")


def feature_columns(data: Any, form: BatchFormat) -> tuple[Any, ...] | None:
    """Return the names of the features of a table, in order; None where there is no table.

    Args:
        data: What is trained on.
        form: Which columns are the target and the weights.

    Returns:
        The names.
    """
    table = data[0] if isinstance(data, tuple | list) and len(data) else data
    if not is_table(table):
        return None
    beside = () if isinstance(data, tuple | list) else (form.target, form.sample_weight)
    return tuple(column for column in table.columns if column not in beside)


def in_order(data: Any, features: tuple[Any, ...] | None) -> Any:
    """Return a table with its features in the order of those that were trained on; anything else as it is.

    Args:
        data: Inputs, a table with or without a target, or (table, targets, ...).
        features: The names; None: there were none.

    Returns:
        The same data.

    Raises:
        DataError: If a feature is missing.
    """
    if isinstance(data, tuple | list) and len(data) and is_table(data[0]):
        return (in_order(data[0], features), *data[1:])
    if features is None or not is_table(data):
        return data
    missing = [column for column in features if column not in list(data.columns)]
    if missing:
        raise DataError(f"data: expected the columns that were trained on, and {missing[0]!r} is missing.")
    beside = [column for column in data.columns if column not in features]
    return data[[*features, *beside]]


def _column(name: str, column: Any) -> None:
    missing = int(column.isna().sum())
    if missing:
        raise DataError(f"data: {name} has {missing} missing values; drop or impute them first.")
    if column.dtype.kind not in "biuf":
        raise DataError(f"data: expected numbers in {name}, got dtype {column.dtype}; encode it first.")
