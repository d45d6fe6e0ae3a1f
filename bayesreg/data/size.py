"""n: how many examples, or how much weight of them, the prior counts once against."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler, SubsetRandomSampler

from bayesreg._support import checks
from bayesreg.data.batch import Batch, BatchFormat
from bayesreg.data.columns import Arrays
from bayesreg.errors import DataError, InvalidArgumentError
from bayesreg.likelihoods import Likelihood

__all__ = ["Counting", "WeightsAre", "count_of", "examples_in", "num_examples", "size_of", "undisturbed"]

WeightsAre = Literal["counts", "relative"]


@dataclass(frozen=True)
class Counting:
    """What is divided by what.

    Attributes:
        num_data: n, against which the prior counts once: examples, observations in them (tokens), or their weight;
            None where only the loss scale is known.
        per_row: n over the number of rows, so that a batch of B rows stands for B · per_row of n, whatever is in it:
            the gradient is then that of the whole on average. None where either is unknown: batches are divided by
            what they hold.
        factor: What weights are multiplied by: 1, or one over their mean where only their ratios count.
    """

    num_data: float | None
    per_row: float | None = 1.0
    factor: float = 1.0


def count_of(likelihood: Likelihood, batch: Batch) -> Tensor:
    """Return how much of n each row of a batch is: 1, its tokens, its weight, or the product.

    Args:
        likelihood: Says how many observations an example is.
        batch: The batch.

    Returns:
        (batch,), in float64.
    """
    each = likelihood.count(batch.target).double()
    return each if batch.weight is None else each * batch.weight.double()


def size_of(
    loader: DataLoader[Any],
    likelihood: Likelihood,
    form: BatchFormat,
    *,
    num_data: int | None,
    known: bool,
    weights_are: WeightsAre,
) -> Counting:
    """Return n and how batches count against it.

    Args:
        loader: The training batches.
        likelihood: Says how many observations an example is.
        form: Whether there are weights, and where.
        num_data: What the user said.
        known: Whether the loss scale was given, so that n need not be known.
        weights_are: "counts": an example of weight 2 is two of them, n is the sum of the weights. "relative": only
            ratios matter, weights are divided by their mean and n is the number of rows.

    Returns:
        The counting.

    Raises:
        InvalidArgumentError: If n cannot be known, or is smaller than a batch.
        DataError: If there is no example, or no weight.
    """
    weighted = form.sample_weight is not None
    if not weighted and not likelihood.counts_within:
        return Counting(num_examples(loader, num_data, known=known))
    by_ratio = weighted and weights_are == "relative"
    rows = examples_in(loader)
    if num_data is not None and not by_ratio:
        return Counting(num_data, None if rows is None else num_data / rows)
    if rows is None and not isinstance(loader.dataset, Sized):
        if known and not by_ratio:
            return Counting(None, None)
        raise InvalidArgumentError(_MEAN_UNKNOWN if by_ratio else _SUM_UNKNOWN)
    total, observations, rows = _added_up(loader, likelihood, form)
    if not total > 0.0:
        raise DataError("train: expected something to count, got none: the weights are all 0, or all targets masked.")
    if not by_ratio:
        return Counting(total, total / rows)
    n = observations if num_data is None else float(num_data)
    return Counting(n, n / rows, factor=observations / total)


_SUM_UNKNOWN = (
    "num_data: this stream cannot be read ahead to add up what its examples count; pass num_data=, the sum over the "
    "whole training set, to MAPTrainer."
)
_MEAN_UNKNOWN = (
    "weights_are: the mean weight of a stream is not known before it ends; divide the weights by it yourself, and say "
    "weights_are='counts' and num_data=."
)


def _added_up(loader: DataLoader[Any], likelihood: Likelihood, form: BatchFormat) -> tuple[float, float, int]:
    """Return the sum of weighted observations, that of observations, and the rows, from one pass over the data."""
    held = loader.dataset
    total, observations, rows = 0.0, 0.0, 0
    own = [g for g in (loader.generator, getattr(loader.sampler, "generator", None)) if g is not None]
    with undisturbed(*own):
        for batch in [held[:]] if isinstance(held, Arrays) else map(form, loader):
            total += float(count_of(likelihood, batch).sum())
            observations += float(likelihood.count(batch.target).double().sum())
            rows += len(batch.target)
    if rows == 0:
        raise DataError("train: expected at least one example, got none.")
    return total, observations, rows


@contextmanager
def undisturbed(*own: torch.Generator) -> Iterator[None]:
    """Leave every source of randomness that reading data draws from as it was.

    Args:
        *own: Generators of a loader, beside those of torch, NumPy and Python.

    Yields:
        Nothing.
    """
    states = [generator.get_state() for generator in own]
    here, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        for generator, state in zip(own, states, strict=True):
            generator.set_state(state)
        torch.set_rng_state(here)
        random.setstate(python)
        np.random.set_state(numpy)


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
    counted = examples_in(loader) if num_data is None or isinstance(loader.dataset, Sized) else None
    n = counted if num_data is None else checks.positive_int("num_data", num_data)
    if n is None and known:
        return None
    if n is None:
        kind = type(getattr(loader.dataset, "batches", loader.dataset)).__name__
        raise InvalidArgumentError(
            f"num_data: the size of this training set cannot be read off its loader (data: {kind}); pass num_data= to "
            f"MAPTrainer. The prior counts once against all examples, so it must be known."
        )
    if n < 1:
        raise DataError("train: expected at least one example, got none.")
    if num_data is not None and loader.batch_size is not None and n < min(loader.batch_size, counted or n):
        raise InvalidArgumentError(
            f"num_data: expected at least the batch size, {loader.batch_size}, got {n}; it is the size of the whole "
            f"training set, not of a batch."
        )
    return n


def examples_in(loader: DataLoader[Any]) -> int | None:
    """Return the number of different examples a loader can draw.

    Args:
        loader: The loader.

    Returns:
        The number; None where the loader does not tell.
    """
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
