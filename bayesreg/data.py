"""From datasets, loaders or arrays to batches."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    SequentialSampler,
    SubsetRandomSampler,
)

from bayesreg._support import checks
from bayesreg.errors import DataError, InvalidArgumentError
from bayesreg.likelihoods import Likelihood

__all__ = ["Arrays", "TrainingData", "as_loader", "as_pair", "as_tensors", "dtype_of", "moved", "num_examples", "whole"]

# Of a dataset that is read whole.
_AT_ONCE = 256

TrainingData: TypeAlias = "DataLoader[Any] | Dataset[Any] | tuple[Any, Any]"


class Arrays(Dataset[tuple[Tensor, Tensor]]):
    """Inputs and targets in memory, indexed a batch at a time.

    Args:
        inputs: First dimension the examples.
        targets: The same number of examples.

    Raises:
        DataError: If the lengths differ, there is no example, or an input is NaN or infinite.
    """

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
            raise DataError(
                f"data: expected as many targets as inputs, got inputs of shape {tuple(inputs.shape)} and targets of "
                f"shape {tuple(targets.shape)}."
            )
        if len(inputs) == 0:
            raise DataError("data: expected at least one example, got none.")
        for name, tensor in (("inputs", inputs), ("targets", targets)):
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise DataError(f"data: {name} hold NaN or infinity; drop or impute missing values first.")
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Return a whole batch at once, which the loader passes on as it is."""
        where = torch.as_tensor(indices)
        return self.inputs[where], self.targets[where]


def as_tensors(model: nn.Module, likelihood: Likelihood, data: TrainingData) -> tuple[Tensor, Tensor]:
    """Return inputs and targets in memory as tensors, as a trainer takes them.

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
    arrays = _as_arrays(tuple(data), dtype_of(model), likelihood)
    return arrays.inputs, arrays.targets


def _read(data: DataLoader[Any] | Dataset[Any]) -> tuple[Tensor, Tensor]:
    """Read a dataset into memory."""
    if isinstance(data, Arrays):
        return data.inputs, data.targets
    loader = data if isinstance(data, DataLoader) else DataLoader(data, batch_size=_AT_ONCE)
    pairs = [as_pair(batch) for batch in loader]
    if not pairs:
        raise DataError("data: expected at least one example, got none.")
    for inputs, _ in pairs:
        if not isinstance(inputs, Tensor):
            raise DataError(
                f"data: expected inputs of one tensor per example, as all are needed at once, got "
                f"{type(inputs).__name__}."
            )
    inputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return inputs, targets


def dtype_of(model: nn.Module) -> torch.dtype:
    """Return the dtype of a model's parameters, torch's default where it has none that are real."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())


def _as_arrays(data: tuple[Any, ...], dtype: torch.dtype, likelihood: Likelihood) -> Arrays:
    if len(data) != 2:
        raise DataError(f"data: expected a pair (inputs, targets), got {len(data)} items.")
    inputs, targets = (_tensor(name, value) for name, value in zip(("inputs", "targets"), data, strict=True))
    if inputs.is_floating_point():
        inputs = inputs.to(dtype)
    if likelihood.target_kind == "real" or (likelihood.target_kind == "any" and targets.is_floating_point()):
        targets = targets.to(dtype)
    elif likelihood.target_kind == "integer":
        # Class probabilities are targets too, one row per example.
        if targets.is_floating_point() and targets.ndim == 1:
            raise DataError(f"data: {likelihood.describe()} expects integer targets, got dtype {targets.dtype}.")
        targets = targets.to(dtype) if targets.is_floating_point() else targets.long()
    return Arrays(inputs, targets)


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise DataError(f"data: expected numbers as {name}, got dtype {array.dtype}.")
    return torch.as_tensor(array)


def as_loader(
    data: TrainingData,
    likelihood: Likelihood,
    dtype: torch.dtype,
    *,
    batch_size: int,
    shuffle: bool,
    generator: torch.Generator | None,
) -> DataLoader[Any]:
    """Return a loader of (input, target) batches; one that was given is used as it is.

    Args:
        data: A loader, a dataset of pairs, or a pair of arrays.
        likelihood: Says of what kind targets must be.
        dtype: That of the model's parameters; real arrays are cast to it.
        batch_size: For datasets and arrays.
        shuffle: For datasets and arrays.
        generator: Order of the examples.

    Returns:
        The loader.

    Raises:
        InvalidArgumentError: If `data` is none of these.
        DataError: If the arrays cannot be used.
    """
    if isinstance(data, DataLoader):
        return data
    if isinstance(data, tuple | list):
        arrays = _as_arrays(tuple(data), dtype, likelihood)
        return DataLoader(
            arrays, batch_size=batch_size, shuffle=shuffle, generator=generator, collate_fn=_already_a_batch
        )
    if isinstance(data, Dataset):
        return DataLoader(data, batch_size=batch_size, shuffle=shuffle, generator=generator)
    raise InvalidArgumentError(
        f"train: expected a DataLoader, a Dataset of (input, target) pairs or a pair of arrays, fit((X, y)), got "
        f"{type(data).__name__}."
    )


def as_pair(batch: Any) -> tuple[Any, Tensor]:
    """Return a batch as inputs and targets.

    Args:
        batch: What a loader gave.

    Returns:
        The pair; inputs are whatever the model takes.

    Raises:
        DataError: If it is no pair with a tensor of targets.
    """
    if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor):
        return batch[0], batch[1]
    if isinstance(batch, dict):
        given = f"a dictionary with {', '.join(map(str, batch))}"
    elif isinstance(batch, tuple | list):
        given = f"{len(batch)} entries ({', '.join(type(entry).__name__ for entry in batch)})"
    else:
        given = type(batch).__name__
    raise DataError(
        f"batch: expected a pair (inputs, targets) with a tensor of targets, got {given}; let the data set or the "
        f"loader's collate_fn return one, such as lambda rows: (inputs, targets)."
    )


def moved(inputs: Any, device: torch.device) -> Any:
    """Return inputs on a device: a tensor, or tensors in lists and dictionaries."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    from accelerate.utils import send_to_device

    return send_to_device(inputs, device)


def _already_a_batch(batch: Any) -> Any:
    return batch


@overload
def num_examples(loader: DataLoader[Any], num_data: int | None, *, known: Literal[False] = False) -> int: ...
@overload
def num_examples(loader: DataLoader[Any], num_data: int | None, *, known: bool) -> int | None: ...
def num_examples(loader: DataLoader[Any], num_data: int | None, *, known: bool = False) -> int | None:
    """Return n, the size of the training set, from the loader or as given.

    Args:
        loader: The training batches.
        num_data: What the user said.
        known: Whether the loss scale was given, so that n need not be known.

    Returns:
        n; None where it cannot be known and need not.

    Raises:
        InvalidArgumentError: If it cannot be known, or is smaller than a batch.
        DataError: If there is no example.
    """
    counted = _counted(loader) if num_data is None or isinstance(loader.dataset, Sized) else None
    n = counted if num_data is None else checks.positive_int("num_data", num_data)
    if n is None and known:
        return None
    if n is None:
        raise InvalidArgumentError(
            "num_data: the size of this training set cannot be read off its loader; pass num_data= to MAPTrainer. The "
            "prior counts once against all examples, so it must be known."
        )
    if n < 1:
        raise DataError("train: expected at least one example, got none.")
    if num_data is not None and loader.batch_size is not None and n < min(loader.batch_size, counted or n):
        raise InvalidArgumentError(
            f"num_data: expected at least the batch size, {loader.batch_size}, got {n}; it is the size of the whole "
            f"training set, not of a batch."
        )
    return n


def _counted(loader: DataLoader[Any]) -> int | None:
    """Return the number of different examples a loader can draw, None where it does not tell."""
    by_batch = loader.batch_sampler
    if by_batch is not None and type(by_batch) is not BatchSampler:
        # One's own way to make batches may leave examples out, or meet them twice.
        return None
    sampler = by_batch.sampler if by_batch is not None else loader.sampler
    if isinstance(sampler, SubsetRandomSampler):
        return len(sampler)
    if not isinstance(loader.dataset, Sized):
        return None
    total = len(loader.dataset)
    if isinstance(sampler, SequentialSampler) and by_batch is not None and by_batch.drop_last:
        # The last ones are never drawn, as the order stays.
        return total - total % by_batch.batch_size or total
    known = isinstance(sampler, SequentialSampler | DistributedSampler)
    if known or not isinstance(sampler, Sized) or len(sampler) == total:
        return total
    # It draws more or fewer than there are, with replacement or a fresh subset each epoch: only the user knows.
    return None


def whole(loader: DataLoader[Any], device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Return all examples, in order, as few large batches on the device; for full-batch solvers."""
    if isinstance(loader.dataset, Arrays):
        return [(loader.dataset.inputs.to(device), loader.dataset.targets.to(device))]
    return [(moved(inputs, device), targets.to(device)) for inputs, targets in map(as_pair, loader)]
