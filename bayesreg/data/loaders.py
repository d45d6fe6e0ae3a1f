"""From datasets, loaders, streams or arrays to batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from bayesreg.data.batch import Batch, BatchFormat, to_device
from bayesreg.data.columns import Arrays, as_arrays, dtype_of, is_table
from bayesreg.errors import DataError, InvalidArgumentError
from bayesreg.likelihoods import Likelihood

__all__ = ["TrainingData", "as_loader", "as_tensors", "is_map_style", "makes_batches", "whole"]

# Of a dataset that is read whole.
_AT_ONCE = 256

TrainingData: TypeAlias = "DataLoader[Any] | Dataset[Any] | tuple[Any, ...] | Mapping[str, Any]"


class _ReadyMade(IterableDataset[Any]):
    """Batches that something else makes, each time it is iterated."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def is_map_style(data: Any) -> bool:
    """Return whether this is examples by their number: a torch dataset, one of Hugging Face, or a list of mappings."""
    if isinstance(data, list):
        return bool(data) and isinstance(data[0], Mapping)
    if isinstance(data, tuple | Mapping | str | Tensor | IterableDataset) or hasattr(data, "dtype") or is_table(data):
        return False
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def makes_batches(data: Any) -> bool:
    """Return whether these data come in batches of their own size: a loader, or a stream of batches."""
    known = isinstance(data, IterableDataset | Dataset | tuple | list | Mapping) or is_table(data) or is_map_style(data)
    return isinstance(data, DataLoader) or (not known and isinstance(data, Iterable) and not hasattr(data, "dtype"))


def as_loader(
    data: TrainingData,
    likelihood: Likelihood,
    dtype: torch.dtype,
    *,
    batch_size: int,
    shuffle: bool,
    generator: torch.Generator | None,
    form: BatchFormat | None = None,
) -> DataLoader[Any]:
    """Return a loader of batches; one that was given is used as it is.

    Args:
        data: A loader, a dataset, a stream of examples or of batches, arrays or a table.
        likelihood: Says of what kind targets must be.
        dtype: That of the model's parameters; real arrays are cast to it.
        batch_size: For datasets and arrays.
        shuffle: For datasets and arrays.
        generator: Order of the examples.
        form: Which entry is the target, which the weights.

    Returns:
        The loader.

    Raises:
        InvalidArgumentError: If `data` is none of these.
        DataError: If the arrays cannot be used.
    """
    if isinstance(data, DataLoader):
        return data
    if isinstance(data, IterableDataset):
        return DataLoader(data, batch_size=batch_size, generator=generator)
    given: Any = data
    if isinstance(given, Dataset) or is_map_style(given):
        return DataLoader(given, batch_size=batch_size, shuffle=shuffle, generator=generator)
    if isinstance(given, tuple | list | Mapping) or is_table(given):
        arrays = as_arrays(given, dtype, likelihood, form or BatchFormat())
        return DataLoader(
            arrays, batch_size=batch_size, shuffle=shuffle, generator=generator, collate_fn=_already_a_batch
        )
    if isinstance(given, Iterable) and not (
        isinstance(given, str | bytes | set | frozenset | Tensor) or hasattr(given, "dtype")
    ):
        return DataLoader(_ReadyMade(given), batch_size=None, generator=generator)
    raise InvalidArgumentError(
        f"train: expected a DataLoader, a Dataset of (input, target) pairs or mappings, a table, or a pair of arrays, "
        f"fit((X, y)), got {type(data).__name__}."
    )


def _already_a_batch(batch: Any) -> Any:
    return batch


def as_tensors(model: nn.Module, likelihood: Likelihood, data: TrainingData) -> tuple[Tensor, Tensor]:
    """Return inputs and targets in memory as tensors, for what needs all examples at once, each counted once.

    Args:
        model: The model; real arrays are cast to the dtype of its parameters.
        likelihood: Says of what kind targets must be.
        data: Two arrays or tensors of as many examples; a dataset or a loader is read once, whole.

    Returns:
        The tensors.

    Raises:
        DataError: If they cannot be used.
    """
    if isinstance(data, DataLoader | Dataset):
        data = _read(data)
    if not isinstance(data, tuple | list):
        raise DataError(
            f"data: expected a pair (inputs, targets), a Dataset of such or a DataLoader, got {type(data).__name__}."
        )
    if len(data) != 2:
        raise DataError(f"data: expected a pair (inputs, targets), got {len(data)} items.")
    arrays = as_arrays(tuple(data), dtype_of(model), likelihood, BatchFormat())
    if not isinstance(arrays.inputs, Tensor):
        raise DataError(
            f"data: expected inputs of one tensor, as all are needed at once, got a {type(arrays.inputs).__name__}."
        )
    return arrays.inputs, arrays.targets


def _read(data: DataLoader[Any] | Dataset[Any]) -> tuple[Tensor, Tensor]:
    """Read a dataset into memory."""
    if isinstance(data, Arrays):
        return data.inputs, data.targets
    loader = data if isinstance(data, DataLoader) else DataLoader(data, batch_size=_AT_ONCE)
    batches = [BatchFormat()(batch) for batch in loader]
    if not batches:
        raise DataError("data: expected at least one example, got none.")
    for batch in batches:
        if not isinstance(batch.inputs, Tensor):
            raise DataError(
                f"data: expected inputs of one tensor per example, as all are needed at once, got "
                f"{type(batch.inputs).__name__}."
            )
    return torch.cat([batch.inputs for batch in batches]), torch.cat([batch.target for batch in batches])


def whole(loader: DataLoader[Any], device: torch.device, form: BatchFormat) -> list[Batch]:
    """Return all examples, in order, as few large batches on the device; for full-batch solvers."""
    if isinstance(loader.dataset, Arrays):
        return [to_device(loader.dataset[:], device)]
    return [to_device(form(batch), device) for batch in loader]
