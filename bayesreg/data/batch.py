"""The one reading of a batch: which entry is the target, which the weights, and what goes into the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesreg.errors import DataError, InvalidArgumentError, kind_of, nearest

__all__ = ["Batch", "BatchFormat", "moved", "to_device"]

#: What Hugging Face's collators call the target.
_LABELS = "labels"


class Batch(NamedTuple):
    """A batch as the trainer uses it.

    Attributes:
        inputs: What the model takes: a tensor, several in a tuple or list, or a mapping of keywords.
        target: First dimension the examples.
        weight: (batch,), how much each example counts; None: each counts once.
    """

    inputs: Any
    target: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class BatchFormat:
    """Where a batch has its target and its sample weights; the fields are `MAPTrainer`'s arguments.

    Args:
        target: Key in a mapping (default "labels") or place in a tuple or list (default the last).
        sample_weight: Key or place of the weights; None: there are none.

    Raises:
        InvalidArgumentError: If one is neither a key nor a place, or both are the same.
    """

    target: str | int | None = None
    sample_weight: str | int | None = None

    def __post_init__(self) -> None:
        for name in ("target", "sample_weight"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, str | int | None):
                raise InvalidArgumentError(
                    f"{name}: expected a key of the batch or its place, such as 'labels' or 1, got {kind_of(value)}."
                )
        if self.target is not None and self.target == self.sample_weight:
            raise InvalidArgumentError(f"sample_weight: is the target already, {self.target!r}; name another entry.")

    def __call__(self, batch: Any, name: str = "batch") -> Batch:
        """Return a batch in its parts.

        Args:
            batch: What a loader gave.
            name: What to call it.

        Returns:
            The parts.

        Raises:
            DataError: If it is not what these settings say: what it was, and what was expected.
        """
        if isinstance(batch, Batch):
            return batch
        if isinstance(batch, Mapping):
            return self._of_mapping(batch, name)
        if isinstance(batch, tuple | list):
            return self._of_entries(batch, name)
        raise DataError(
            f"{name}: expected a pair (inputs, targets) or a mapping with {self.target or _LABELS!r}, got "
            f"{_of_what(batch)}; let the data set or the loader's collate_fn return one, such as lambda rows: "
            f"(inputs, targets)."
        )

    def _of_mapping(self, batch: Mapping[Any, Any], name: str) -> Batch:
        key = _LABELS if self.target is None else self.target
        _require_key(batch, name, "target", key)
        if self.sample_weight is not None:
            _require_key(batch, name, "sample_weight", self.sample_weight)
        if key == self.sample_weight:
            raise DataError(f"{name}: {key!r} is the target, and cannot be the sample weights too; name another entry.")
        weight = None if self.sample_weight is None else batch[self.sample_weight]
        rest = {k: v for k, v in batch.items() if k != key and k != self.sample_weight}
        if not rest:
            raise DataError(f"{name}: expected inputs beside the target {key!r}, got a mapping with nothing else.")
        return _checked(name, rest, batch[key], weight, f"the entry {key!r}", batch)

    def _of_entries(self, batch: tuple[Any, ...] | list[Any], name: str) -> Batch:
        length = len(batch)
        place = _place(name, "sample_weight", self.sample_weight, length)
        others = [index for index in range(length) if index != place]
        if self.target is None and len(others) != 2:
            raise DataError(
                f"{name}: expected a pair (inputs, targets){'' if place is None else ' beside the weights'}, got "
                f"{_of_what(batch)}; say what they are, MAPTrainer(..., target=-1) for several inputs before the "
                f"target, sample_weight=2 for (inputs, targets, weights), or let the loader's collate_fn return pairs."
            )
        at = others[-1] if self.target is None else _place(name, "target", self.target, length)
        if at == place and at is not None:
            raise DataError(f"{name}: entry {at} is the target, and cannot be the sample weights too; name another.")
        inputs = tuple(batch[index] for index in others if index != at)
        if at is None or not inputs:
            raise DataError(f"{name}: expected inputs beside a target, got {_of_what(batch)}.")
        weight = None if place is None else batch[place]
        return _checked(name, inputs[0] if len(inputs) == 1 else inputs, batch[at], weight, f"entry {at}", batch)


_WORDS = {"target": "target", "sample_weight": "sample weights"}


def _require_key(batch: Mapping[Any, Any], name: str, argument: str, key: str | int) -> None:
    if key in batch:
        return
    given = f"one with {', '.join(map(str, batch))}" if batch else "an empty one"
    hint = nearest(str(key), [str(k) for k in batch])
    raise DataError(
        f"{name}: expected a mapping with {key!r} as its {_WORDS[argument]}, got {given}{hint}; say which it is, "
        f"MAPTrainer(..., {argument}=...)."
    )


def _place(name: str, argument: str, place: str | int | None, length: int) -> int | None:
    if place is None:
        return None
    if isinstance(place, str) or not -length <= place < length:
        raise DataError(
            f"{name}: {argument}={place!r} was said to be the {_WORDS[argument]}, and there are {length} entries "
            f"without that one; give the place, such as {argument}={-1 if argument == 'target' else 2}."
        )
    return place % length


def _checked(name: str, inputs: Any, target: Any, weight: Any, where: str, batch: Any) -> Batch:
    if not isinstance(target, Tensor) or target.ndim == 0:
        shown = "a tensor of no dimension" if isinstance(target, Tensor) else kind_of(target)
        raise DataError(
            f"{name}: expected a tensor of targets, the examples along its first dimension, as {where}, got {shown} in "
            f"{_of_what(batch)}."
        )
    if weight is None:
        return Batch(inputs, target)
    if not isinstance(weight, Tensor) or weight.numel() != len(target):
        shown = f"shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else kind_of(weight)
        raise DataError(
            f"{name}: expected one sample weight per example, a tensor of shape ({len(target)},), got {shown}."
        )
    weight = weight.reshape(-1)
    if not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise DataError(
            f"{name}: expected sample weights >= 0, got values from {float(weight.min()):g} to {float(weight.max()):g}."
        )
    return Batch(inputs, target, weight if weight.is_floating_point() else weight.to(torch.get_default_dtype()))


def _of_what(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a mapping with {', '.join(map(str, batch))}"
    if isinstance(batch, tuple | list):
        return f"{len(batch)} entries ({', '.join(type(entry).__name__ for entry in batch)})"
    return type(batch).__name__


def moved(inputs: Any, device: torch.device) -> Any:
    """Return inputs on a device: a tensor, or tensors in lists and dictionaries."""
    if isinstance(inputs, Tensor):
        return inputs.to(device, non_blocking=True)
    from accelerate.utils import send_to_device

    return send_to_device(inputs, device)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on a device."""
    weight = None if batch.weight is None else batch.weight.to(device, non_blocking=True)
    return Batch(moved(batch.inputs, device), batch.target.to(device, non_blocking=True), weight)
