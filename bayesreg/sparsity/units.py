"""Which units of a network do nothing: those whose inputs are all zero, and those that nobody listens to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

__all__ = ["Consumer", "Units", "fold", "idle", "units_of"]

# Layers that act on each unit apart; any other with parameters (LayerNorm, GroupNorm, attention) mixes units.
_APART = (_BatchNorm, _InstanceNorm, nn.PReLU)


@dataclass
class Consumer:
    """A layer that reads the units, and which of its inputs belong to which unit."""

    layer: nn.Module
    inputs: list[int]
    units: list[int]
    #: What it was given on the example inputs.
    seen: list[Tensor] = field(default_factory=list)

    def columns(self) -> Tensor:
        """Return the weights by which each of its inputs counts, inputs first."""
        layer: Any = self.layer
        weight: Tensor = layer.weight.detach()
        return (weight if isinstance(layer, _ConvTransposeNd) else weight.transpose(0, 1))[self.inputs]


@dataclass
class Units:
    """Units that can only go together: one per index of the layers that make them, and who reads them."""

    name: str
    root: nn.Module
    count: int
    makers: list[nn.Module]
    consumers: list[Consumer]
    #: Why none of them can be removed; None where they can.
    why_kept: str | None = None


def units_of(group: Any, names: dict[nn.Module, str]) -> Units:
    """Return the units of a dependency group of torch-pruning."""
    root = group[0].dep.target.module
    units = Units(names.get(root, "?"), root, len(group[0].idxs), [], [])
    for item in group:
        layer, makes = item.dep.target.module, "out" in item.dep.handler.__name__
        if not isinstance(layer, nn.Module) or not any(True for _ in layer.parameters()):
            if isinstance(layer, nn.Parameter):
                units.why_kept = "a bare parameter goes with them"
            continue
        roots = item.root_idxs or item.idxs
        plain = type(layer) is nn.Linear or (isinstance(layer, _ConvNd) and layer.groups == 1)
        if plain and makes and list(roots) == list(item.idxs) == list(range(units.count)):
            units.makers.append(layer)
        elif plain and not makes and max(item.idxs) >= _inputs_of(layer):
            units.why_kept = f"{names.get(layer, '?')} reads another number of them (a gate, a shuffle)"
        elif plain and not makes:
            units.consumers.append(Consumer(layer, list(item.idxs), list(roots)))
        elif not isinstance(layer, _APART):
            units.why_kept = f"{names.get(layer, '?')} ({type(layer).__name__}) mixes them"
    if not units.consumers and units.why_kept is None:
        units.why_kept = "they are the output"
    return units


def _inputs_of(layer: Any) -> int:
    return int(getattr(layer, "in_features", getattr(layer, "in_channels", 0)))


@torch.no_grad()
def idle(units: Units, tolerance: float) -> tuple[list[int], list[int], str | None]:
    """Return the units that can go, those of them that are constant, and why some zero ones cannot."""
    silent = torch.ones(units.count, dtype=torch.bool)
    layer: Any
    for layer in units.makers:
        weight: Tensor = layer.weight.detach()
        rows = weight.transpose(0, 1) if isinstance(layer, _ConvTransposeNd) else weight
        silent &= (rows.reshape(units.count, -1) == 0).all(1).cpu()
    unread = torch.ones(units.count, dtype=torch.bool)
    for consumer in units.consumers:
        read = (consumer.columns().reshape(len(consumer.inputs), -1) != 0).any(1).cpu()
        unread[torch.tensor(consumer.units)[read]] = False
    constant = silent & ~unread
    why = None
    for consumer in units.consumers:
        fits = _foldable(consumer, units.count, tolerance)
        if bool((constant & ~fits).any()):
            padded = isinstance(consumer.layer, _ConvNd)
            why = f"what they give is not constant{' behind zero padding' if padded else ' in the layers that read it'}"
        constant &= fits
    gone = (unread | constant).nonzero().flatten().tolist()
    return gone, constant.nonzero().flatten().tolist(), why


def _values(consumer: Consumer) -> Tensor:
    """Return what the consumer was given, inputs first."""
    seen = torch.cat([one.movedim(_channel_dim(consumer.layer, one), 0).flatten(1) for one in consumer.seen], 1)
    return seen[consumer.inputs]


def _channel_dim(layer: nn.Module, value: Tensor) -> int:
    return value.ndim - 1 - (len(layer.kernel_size) if isinstance(layer, _ConvNd) else 0)


def _foldable(consumer: Consumer, count: int, tolerance: float) -> Tensor:
    """Return for each unit whether the consumer's bias can take over what it gives."""
    fits = torch.zeros(count, dtype=torch.bool)
    if not consumer.seen:
        return fits
    values = _values(consumer)
    first = values[:, :1]
    steady = ((values - first).abs() <= tolerance * values.abs().max()).all(1)
    layer = consumer.layer
    if isinstance(layer, _ConvNd) and (
        isinstance(layer, _ConvTransposeNd) or (layer.padding_mode == "zeros" and _padded(layer))
    ):
        steady &= (values == 0).all(1)
    fits[:] = True
    fits[torch.tensor(consumer.units)[~steady.cpu()]] = False
    return fits


def _padded(layer: _ConvNd) -> bool:
    return layer.padding != "valid" and (isinstance(layer.padding, str) or any(layer.padding))


@torch.no_grad()
def fold(consumers: Iterable[Consumer], constant: Iterable[int]) -> None:
    """Let each consumer's bias take over what constant units give it."""
    chosen = set(constant)
    for consumer in consumers:
        mine = [k for k, unit in enumerate(consumer.units) if unit in chosen]
        if not mine:
            continue
        given = _values(consumer)[mine, 0]
        if not bool((given != 0).any()):
            continue
        columns = consumer.columns()[mine]
        # Inputs, outputs, positions of the kernel: each position sees the same constant.
        extra = torch.einsum("i,io->o", given.to(columns), columns.flatten(2).sum(2) if columns.ndim > 2 else columns)
        layer: Any = consumer.layer
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros_like(extra))
        layer.bias.add_(extra)
