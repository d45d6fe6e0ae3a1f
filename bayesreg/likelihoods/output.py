"""What a model returns, as a likelihood takes it."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from bayesreg.errors import DataError

__all__ = ["tensor_output"]


def tensor_output(model: nn.Module, inputs: Any) -> Tensor:
    """Return the model's output for these inputs.

    Args:
        model: The model.
        inputs: What it takes.

    Returns:
        The output.

    Raises:
        DataError: If it is no tensor, as the outputs of Hugging Face models are not; or if the model cannot take a
            dictionary or list of inputs.
    """
    output = _of_tensor(model, inputs) if isinstance(inputs, Tensor) else _called(model, inputs)
    if not isinstance(output, Tensor):
        raise DataError(
            f"model: expected one that returns a tensor, got {type(output).__name__} from {type(model).__name__}; wrap "
            f"it in a module whose forward returns the logits."
        )
    return output


# What torch says of a tensor that does not fit a layer.
_MISFIT = re.compile(r"shapes cannot be multiplied|same dtype|must match|expected.*input|[Ss]calar type|size of tensor")


def _of_tensor(model: nn.Module, inputs: Tensor) -> Any:
    try:
        return model(inputs)
    except (RuntimeError, TypeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or not _MISFIT.search(str(error)):
            raise
        own = next((str(p.dtype).removeprefix("torch.") for p in model.parameters()), "no parameters")
        raise DataError(
            f"model: {type(model).__name__} ({own}) cannot take inputs of shape {tuple(inputs.shape)} and dtype "
            f"{str(inputs.dtype).removeprefix('torch.')} ({error})."
        ) from error


def _called(model: nn.Module, inputs: Any) -> Any:
    try:
        return model(inputs)
    except (TypeError, AttributeError) as error:
        raise DataError(
            f"model: {type(model).__name__} cannot take the inputs of a batch, a {type(inputs).__name__} ({error}); "
            f"wrap it in a module whose forward takes one, such as forward(self, batch): return "
            f"self.model(**batch).logits."
        ) from error
