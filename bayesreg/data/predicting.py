"""From a trained model to predictions: batch by batch, in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution
from torch.utils.data import DataLoader, IterableDataset

from bayesreg.data.batch import Batch, BatchFormat, moved
from bayesreg.data.columns import as_inputs, dtype_of, parts
from bayesreg.data.loaders import is_map_style
from bayesreg.data.reading import Reading, in_evaluation
from bayesreg.errors import DataError, InvalidArgumentError, UnsupportedError

__all__ = ["Kind", "predicted"]

Kind = Literal["distribution", "mean", "probabilities", "classes", "output"]
_KINDS = ("distribution", "mean", "probabilities", "classes", "output")


@torch.no_grad()
def predicted(model: nn.Module, reading: Reading, data: Any, kind: Kind, batch_size: int) -> Distribution | Tensor:
    """Return what a model says of inputs.

    Args:
        model: The model; its modes are as before afterwards.
        reading: How to read batches, and the likelihood.
        data: Inputs, or a loader or dataset of inputs or of batches as in training, whose targets are not looked at.
        kind: What to return: the distribution of the target, its mean, the probabilities of classes, the likeliest
            class, or the model's output.
        batch_size: For arrays and datasets.

    Returns:
        For all inputs in their order, on the model's device.

    Raises:
        InvalidArgumentError: If the kind is none of these.
        DataError: If the data cannot be used, or outputs differ in shape from batch to batch.
        UnsupportedError: If the likelihood has no such prediction.
    """
    if kind not in _KINDS:
        raise InvalidArgumentError(f"kind: expected one of {', '.join(map(repr, _KINDS))}, got {kind!r}.")
    device = next(model.parameters()).device
    outputs = []
    with in_evaluation(model):
        for inputs in _batches(data, reading.form, dtype_of(model), batch_size):
            here = moved(inputs, device)
            try:
                outputs.append(reading.output(model, Batch(here, torch.empty(0))))
            except DataError as error:
                raise DataError(f"data: {error}") from error
    if not outputs:
        raise DataError("data: expected at least one example, got none.")
    try:
        output = torch.cat(outputs)
    except RuntimeError as error:
        raise DataError(
            f"predict: outputs differ in shape from batch to batch, as of texts of different lengths ({error}); "
            f"predict batch by batch, or pad to one length."
        ) from error
    if kind == "output":
        return output
    try:
        believed = reading.likelihood.predictive(output)
    except (IndexError, RuntimeError, ValueError) as error:
        raise DataError(
            f"data: expected inputs (examples, ...) of which the model makes what {type(reading.likelihood).__name__} "
            f"takes, got an output of shape {tuple(output.shape)} ({error})."
        ) from error
    found = _as(believed, kind)
    return reading.likelihood._middle(output) if found is None else found


def _as(distribution: Distribution, kind: Kind) -> Distribution | Tensor | None:
    """Return what is asked for; None: the number that the likelihood predicts."""
    if kind == "distribution":
        return distribution
    if isinstance(distribution, Categorical):
        if kind == "mean":
            raise UnsupportedError("predict: classes have no mean; ask for kind='probabilities' or 'classes'.")
        return distribution.probs if kind == "probabilities" else distribution.probs.argmax(-1)
    if isinstance(distribution, Bernoulli):
        return (distribution.probs > 0.5).long() if kind == "classes" else distribution.probs
    if kind != "mean":
        raise UnsupportedError(
            f"predict: {type(distribution).__name__} predicts numbers, not classes; ask for kind='mean' or "
            f"'distribution'."
        )
    return None


def _batches(data: Any, form: BatchFormat, dtype: torch.dtype, batch_size: int) -> Iterator[Any]:
    """Yield inputs, batch by batch."""
    if isinstance(data, DataLoader | IterableDataset) or is_map_style(data):
        loader = data if isinstance(data, DataLoader) else DataLoader(data, batch_size=batch_size)
        for batch in loader:
            yield _inputs_of(batch, form)
        return
    inputs = as_inputs(data, dtype)
    lengths = {name: len(tensor) if tensor.ndim else 0 for name, tensor in parts("inputs", inputs)}
    if len(set(lengths.values())) > 1:
        raise DataError(f"data: expected inputs of as many examples, got {lengths}.")
    for start in range(0, next(iter(lengths.values()), 0), batch_size):
        here = slice(start, start + batch_size)
        if isinstance(inputs, Tensor):
            yield inputs[here]
        elif isinstance(inputs, Mapping):
            yield {name: tensor[here] for name, tensor in inputs.items()}
        else:
            yield tuple(tensor[here] for tensor in inputs)


def _inputs_of(batch: Any, form: BatchFormat) -> Any:
    """Return the inputs of a batch, which may have no target."""
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, Mapping):
        beside = ("labels" if form.target is None else form.target, form.sample_weight)
        return {key: value for key, value in batch.items() if key not in beside}
    if isinstance(batch, tuple | list) and len(batch) == 1:
        return batch[0]
    return form(batch).inputs
