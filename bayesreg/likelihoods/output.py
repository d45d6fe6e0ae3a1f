"""How a model is called with the inputs of a batch, and which part of what it returns the likelihood takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from bayesreg._support.calls import TELLING
from bayesreg.errors import DataError, InvalidArgumentError, kind_of, nearest

__all__ = ["OutputPick", "check_pick", "tensor_output"]

#: Key, attribute or place of the logits in what a model returns, or a function that picks them.
OutputPick: TypeAlias = "str | int | Callable[[Any], Tensor]"

#: What Hugging Face's models call theirs.
_LOGITS = "logits"


def check_pick(pick: object) -> None:
    """Raise if this cannot say which output is meant.

    Args:
        pick: `MAPTrainer`'s argument `output`.

    Raises:
        InvalidArgumentError: If it is neither a key, a place nor a function.
    """
    if isinstance(pick, bool) or not (pick is None or isinstance(pick, str | int) or callable(pick)):
        raise InvalidArgumentError(
            f"output: expected a key such as 'logits', a place such as 0, or a function of what the model returns, got "
            f"{kind_of(pick)}."
        )


def tensor_output(model: nn.Module, inputs: Any, pick: OutputPick | None = None) -> Tensor:
    """Return the model's output for these inputs.

    Args:
        model: The model.
        inputs: A tensor; several in a tuple or list, which go in one after another where `forward` takes so many; or a
            mapping, whose entries go in by keyword where `forward` takes those names. A `forward` that takes one
            argument gets either whole.
        pick: Which of several outputs; default the only tensor, or `logits` of a mapping or a dataclass.

    Returns:
        The output.

    Raises:
        DataError: If the model cannot take the inputs, or does not return what is picked.
    """
    output = _of_tensor(model, inputs) if isinstance(inputs, Tensor) else _called(model, inputs)
    if isinstance(output, Tensor) and pick is None:
        return output
    return _picked(model, output, pick)


def _picked(model: nn.Module, output: Any, pick: OutputPick | None) -> Tensor:
    name = _LOGITS if pick is None else pick
    found: Any = None
    if callable(name):
        try:
            found = name(output)
        except TELLING as error:
            raise DataError(
                f"output: expected a function of what the model returns, a {type(output).__name__}, got "
                f"{getattr(name, '__name__', type(name).__name__)}, which cannot take it ({error})."
            ) from error
    elif isinstance(output, Mapping):
        found = output.get(name)
    elif isinstance(name, str):
        found = getattr(output, name, None)
    elif isinstance(output, tuple | list) and -len(output) <= name < len(output):
        found = output[name]
    if isinstance(found, Tensor):
        return found
    if isinstance(output, Mapping):
        returned = f"a mapping with {', '.join(map(str, output))}"
    elif isinstance(output, tuple | list):
        returned = f"{len(output)} entries ({', '.join(type(entry).__name__ for entry in output)})"
    else:
        returned = type(output).__name__
    wanted = "a tensor or a mapping with 'logits'" if pick is None else f"{pick!r} among its outputs, a tensor"
    if callable(pick):
        wanted = f"a tensor from {getattr(pick, '__name__', 'output=')}"
    raise DataError(
        f"model: expected one that returns {wanted}, got {returned} from {type(model).__name__}; say which output the "
        f"likelihood takes, MAPTrainer(..., output='key' or 0), or wrap it in a module whose forward returns that."
    )


# What torch says of a tensor that does not fit a layer.
_MISFIT = re.compile(r"shapes cannot be multiplied|same dtype|must match|expected.*input|[Ss]calar type|size of tensor")


def _of_tensor(model: nn.Module, inputs: Tensor) -> Any:
    try:
        return model(inputs)
    except (RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError) or not _MISFIT.search(str(error)):
            raise
        own = next((str(p.dtype).removeprefix("torch.") for p in model.parameters()), "no parameters")
        raise DataError(
            f"model: {type(model).__name__} ({own}) cannot take inputs of shape {tuple(inputs.shape)} and dtype "
            f"{str(inputs.dtype).removeprefix('torch.')} ({error})."
        ) from error


def _called(model: nn.Module, inputs: Any) -> Any:
    arguments, keywords = _arguments(model, inputs)
    try:
        return model(*arguments, **keywords)
    except (TypeError, AttributeError) as error:
        raise DataError(
            f"model: {type(model).__name__} cannot take the inputs of a batch, a {type(inputs).__name__} ({error}); "
            f"wrap it in a module whose forward takes one, such as forward(self, batch): return "
            f"self.model(**batch).logits."
        ) from error


def _arguments(model: nn.Module, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the inputs as `forward` takes them."""
    forward = _signature(model)
    if forward is None:
        return (inputs,), {}
    kinds = [parameter.kind for parameter in forward.values()]
    by_place = [p for p in forward.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in forward.values() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if isinstance(inputs, tuple | list):
        takes = inspect.Parameter.VAR_POSITIONAL in kinds or len(needed) <= len(inputs) <= len(by_place)
        return (tuple(inputs), {}) if takes and len(by_place) != 1 else ((inputs,), {})
    if not isinstance(inputs, Mapping):
        return (inputs,), {}
    anything = inspect.Parameter.VAR_KEYWORD in kinds
    unknown = [] if anything else [key for key in inputs if key not in forward]
    if not unknown:
        return (), dict(inputs)
    if len(by_place) == 1:
        return (inputs,), {}
    raise DataError(
        f"model: {type(model).__name__}.forward takes {', '.join(forward)}, and the batch has {unknown[0]!r} beside "
        f"its target{nearest(str(unknown[0]), forward)}; leave it out of the batch, or name it as forward does."
    )


# By name: importing the sharded one takes a second.
_WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")


def _held_by(model: nn.Module) -> Any:
    """Return the model that torch has wrapped in one which takes anything and hands it on; None if it has not."""
    return getattr(model, "module" if type(model).__name__ in _WRAPPERS else "_orig_mod", None)


def _signature(model: nn.Module) -> dict[str, inspect.Parameter] | None:
    inner: Any = model
    while isinstance(held := _held_by(inner), nn.Module):
        inner = held
    try:
        return dict(inspect.signature(inner.forward).parameters)
    except (TypeError, ValueError):
        return None
