"""A network with structured zeros made really smaller."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bayesreg._optional import require
from bayesreg._tables import Table
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.sparsity.units import Units, fold, idle, units_of

__all__ = ["Compacted", "compact"]


@dataclass(frozen=True)
class Compacted:
    """A smaller network and what went.

    Attributes:
        model: The smaller network, a copy.
        table: Each layer's units before and after, and why idle ones were kept.
        parameters: Numbers of parameters, before and after.
        difference: The largest difference of the outputs on the example inputs.
    """

    model: nn.Module = field(repr=False)
    table: Table = field(repr=False)
    parameters: tuple[int, int]
    difference: float

    def __str__(self) -> str:
        return str(self.table)


def compact(model: nn.Module, inputs: Tensor | Sequence[Tensor], *, tolerance: float = 1e-6) -> Compacted:
    """Return a copy of a network without the units that do nothing; its outputs are the same.

    A unit (of a Linear, a channel of a convolution) goes if its weights are all exactly zero, as whole rows are at the
    MAP of `GroupLaplace(rate, "row")`, or if no layer reads it, as with zero columns. One whose weights are zero still
    gives the constant that its bias and what follows make of it: the next layers' biases take that over. Where they
    cannot (behind zero padding a constant is none at the border) it stays, and the table says so; a bias of 0 there,
    or none, mends it. One unit per layer stays. Flattening, residual sums, batch normalisation (of `eval()`) and
    pooling are followed, by torch-pruning's dependency graph.

    Args:
        model: The network, unchanged; it is looked at, and its copy returned, in the mode `eval()`.
        inputs: Example inputs as the network takes them, a batch of real ones: outputs are compared on them.
        tolerance: How much outputs may differ, relative to their largest. Default 1e-6.

    Returns:
        The smaller network and a table.

    Raises:
        ImportError: If torch-pruning is not installed (`pip install 'bayesreg[sparsity]'`).
        InvalidArgumentError: If `model` is no module or `inputs` no tensors.
        UnsupportedError: If weights are parametrized, or the smaller network gives other outputs (a forward() with
            sizes written into it, units that are an output as well).

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> with torch.no_grad():
        ...     _ = model[0].weight[1:3].zero_()
        >>> small = compact(model, torch.randn(8, 3))
        >>> small.model
        Sequential(
          (0): Linear(in_features=3, out_features=2, bias=True)
          (1): ReLU()
          (2): Linear(in_features=2, out_features=2, bias=True)
        )
        >>> small.parameters
        (26, 14)

    References:
        Fang, Ma, Song, Mi and Wang (2023), DepGraph: Towards Any Structural Pruning (which layers' units go together).
    """
    require("torch_pruning", "sparsity", "smaller networks")
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model: expected a module, got {type(model).__name__}.")
    examples = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if not examples or not all(isinstance(one, Tensor) for one in examples):
        raise InvalidArgumentError("inputs: expected a tensor, or a sequence of those that the model takes.")
    if any(parametrize.is_parametrized(module) for module in model.modules()):
        raise UnsupportedError(
            "model: its weights are parametrized; make them plain first: "
            "torch.nn.utils.parametrize.remove_parametrizations(module, name)."
        )
    small = copy.deepcopy(model).eval()
    frozen = {name for name, parameter in small.named_parameters() if not parameter.requires_grad}
    before = _sizes(small)
    counted = sum(parameter.numel() for parameter in small.parameters())
    was = _outputs(small, examples)
    kept: dict[str, str] = {}
    difference = 0.0
    while _round(small, examples, tolerance, kept):
        difference = _compare(was, small, examples, tolerance)
    for name, parameter in small.named_parameters():
        parameter.requires_grad_(name not in frozen)
        parameter.grad = None
    left = sum(parameter.numel() for parameter in small.parameters())
    now = dict(_sizes(small))
    rows: list[tuple[object, ...]] = [(name, size, now[name], kept.get(name)) for name, size in before]
    note = f"{left:,} of {counted:,} parameters; the outputs differ by {difference:.2g} at most."
    columns: tuple[str, ...] = ("layer", "units", "left", "kept although idle")
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Compacted(small, Table("What is left of the network", columns, rows, (note,)), (counted, left), difference)


def _sizes(model: nn.Module) -> list[tuple[str, int]]:
    found = []
    for name, module in model.named_modules():
        size = getattr(module, "out_features", getattr(module, "out_channels", None))
        if isinstance(size, int) and any(True for _ in module.parameters(recurse=False)):
            found.append((name, size))
    return found


@torch.no_grad()
def _outputs(model: nn.Module, examples: tuple[Tensor, ...]) -> list[Tensor]:
    return _tensors(model(*examples))


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if hasattr(output, "values") else output if isinstance(output, list | tuple) else ()
    return [tensor for value in values for tensor in _tensors(value)]


def _round(small: nn.Module, examples: tuple[Tensor, ...], tolerance: float, kept: dict[str, str]) -> bool:
    """Remove what is idle now; return whether anything was."""
    import torch_pruning

    kept.clear()
    graph = torch_pruning.DependencyGraph().build_dependency(small, example_inputs=examples)
    names = {module: name for name, module in small.named_modules()}
    groups = [(units_of(group, names), group) for group in graph.get_all_groups()]
    _watch(small, [units for units, _ in groups], examples)
    for units, group in groups:
        gone, constant, why = idle(units, tolerance)
        reason = units.why_kept if units.why_kept and gone and units.why_kept != "they are the output" else why
        if reason:
            kept[units.name] = reason
        if not gone or units.why_kept:
            continue
        if len(gone) == units.count:
            # A layer of no units is none: one stays, and does nothing.
            gone, constant = gone[1:], [unit for unit in constant if unit != gone[0]]
        if not gone:
            continue
        fold(units.consumers, constant)
        graph.get_pruning_group(units.root, group[0].dep.handler, gone).prune()
        # What others were given has changed: look again.
        return True
    return False


@torch.no_grad()
def _watch(model: nn.Module, units: Sequence[Units], examples: tuple[Tensor, ...]) -> None:
    """Note what every consumer is given."""
    hooks = []
    for one in units:
        for consumer in one.consumers:
            hooks.append(
                consumer.layer.register_forward_pre_hook(
                    lambda _, given, seen=consumer.seen: seen.append(given[0].detach())
                )
            )
    try:
        model(*examples)
    finally:
        for hook in hooks:
            hook.remove()


def _compare(was: list[Tensor], small: nn.Module, examples: tuple[Tensor, ...], tolerance: float) -> float:
    try:
        now = _outputs(small, examples)
    except RuntimeError as error:
        raise UnsupportedError(
            f"model: its smaller copy does not run ({error}); sizes written into forward(), such as view(-1, 400), "
            f"must be read off the tensors: flatten(1)."
        ) from error
    if [one.shape for one in was] != [one.shape for one in now]:
        raise UnsupportedError(
            "model: units that go are an output of it as well, so that its smaller copy gives other outputs."
        )
    largest = max((float(one.abs().max()) for one in was if one.numel()), default=0.0)
    difference = max((float((a - b).abs().max()) for a, b in zip(was, now, strict=True) if a.numel()), default=0.0)
    if not difference <= tolerance * max(largest, 1.0):
        raise UnsupportedError(
            f"model: the outputs of its smaller copy differ by {difference:.3g} (largest output {largest:.3g}), "
            f"more than tolerance={tolerance:g} allows; it may be random, or mix units in a way that is not seen."
        )
    return difference
