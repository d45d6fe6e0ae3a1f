"""A network with structured zeros made really smaller."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg._support.optional import require
from bayesreg._support.tables import Table
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


@answering
def compact(model: nn.Module, inputs: Tensor | Sequence[Tensor], *, tolerance: float = 1e-6) -> Compacted:
    """Return a copy of a network without the units that do nothing; its outputs are the same.

    A unit (of a Linear, a channel of a convolution) goes if its weights are all exactly zero, as whole rows are at the
    MAP of `GroupLaplace(rate, "row")`, or if no layer reads it, as with zero columns. One whose weights are zero still
    gives the constant that its bias and what follows make of it: the next layers' biases take that over. Where they
    cannot (behind zero padding a constant is none at the border) it stays, and the table says so; a bias of 0 there,
    or none, mends it. One unit per layer stays. Flattening, residual sums, batch normalisation (of `eval()`) and
    pooling are followed, by torch-pruning's dependency graph; units without which the copy does not run, or gives other
    outputs on the inputs or on others like them, stay and are named as well.

    Args:
        model: The network, unchanged; it is looked at, and its copy returned, in the mode `eval()`.
        inputs: Example inputs as the network takes them, a batch of real ones: outputs are compared on them.
        tolerance: How much outputs may differ, relative to their largest. Default 1e-6.

    Returns:
        The smaller network and a table. Going on with its training needs `train()`, a prior and an optimizer of its
        own; to load its state dict later, build the network with the widths of the table (or keep the module).

    Raises:
        ImportError: If torch-pruning is not installed (`pip install 'bayesreg[sparsity]'`).
        InvalidArgumentError: If `model` is no module, does not take `inputs`, or `tolerance` is not > 0.
        UnsupportedError: If weights are parametrized or masked.

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
    if not examples or not all(isinstance(one, Tensor) and one.numel() for one in examples):
        raise InvalidArgumentError("inputs: expected a batch, or a sequence of the tensors that the model takes.")
    allowed = checks.positive_float("tolerance", tolerance)
    small = _plain_copy(model)
    frozen = {name for name, parameter in small.named_parameters() if not parameter.requires_grad}
    before, counted = _sizes(small), sum(parameter.numel() for parameter in small.parameters())
    small, kept, difference = _without_idle(small, _batches(small, examples), allowed)
    for name, parameter in small.named_parameters():
        parameter.requires_grad_(name not in frozen)
        parameter.grad = None
    left, now = sum(parameter.numel() for parameter in small.parameters()), dict(_sizes(small))
    rows: list[tuple[object, ...]] = [(name, size, now[name], kept.get(name)) for name, size in before]
    note = f"{left:,} of {counted:,} parameters; the outputs differ by {difference:.2g} at most."
    columns: tuple[str, ...] = ("layer", "units", "left", "kept although idle")
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Compacted(small, Table("What is left of the network", columns, rows, (note,)), (counted, left), difference)


def _plain_copy(model: nn.Module) -> nn.Module:
    if any(parametrize.is_parametrized(module) for module in model.modules()):
        raise UnsupportedError(
            "model: its weights are parametrized; make them plain first: "
            "torch.nn.utils.parametrize.remove_parametrizations(module, name)."
        )
    try:
        return copy.deepcopy(model).eval()
    except RuntimeError as error:
        raise UnsupportedError(
            f"model: it cannot be copied ({error}); weights under torch.nn.utils.prune or the older weight_norm are "
            f"made plain by their remove functions."
        ) from error


#: Inputs, and what the network made of them.
_Batch: TypeAlias = tuple[tuple[Tensor, ...], list[Tensor]]


def _batches(model: nn.Module, examples: tuple[Tensor, ...]) -> list[_Batch]:
    """Return the inputs and, where the model takes them, others like them: what is constant on one need not be so."""
    try:
        batches = [(examples, _outputs(model, examples))]
    except (RuntimeError, TypeError) as error:
        raise InvalidArgumentError(f"inputs: the model does not take them ({error}).") from error
    other = _jittered(examples)
    with contextlib.suppress(RuntimeError, ValueError, IndexError):
        found = _outputs(model, other)
        if all(bool(one.isfinite().all()) for one in found):
            batches.append((other, found))
    if len(batches) == 1 and all(len(one) < 2 for one in examples if one.ndim):
        raise InvalidArgumentError("inputs: expected two or more examples, to see what is constant.")
    return batches


def _without_idle(
    model: nn.Module, batches: Sequence[_Batch], tolerance: float
) -> tuple[nn.Module, dict[str, str], float]:
    """Return the network without its idle units, why some were kept, and by how much outputs differ."""
    kept: dict[str, str] = {}
    difference = 0.0
    while True:
        name, smaller = _round(model, [inputs for inputs, _ in batches], tolerance, kept)
        if name is None:
            return model, kept, difference
        if isinstance(smaller, str):
            kept[name] = smaller
            continue
        try:
            difference = max(_compare(outputs, smaller, inputs, tolerance) for inputs, outputs in batches)
        except UnsupportedError as error:
            kept[name] = str(error)
        else:
            model = smaller


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
    if isinstance(output, list | tuple):
        values = list(output)
    else:
        held = vars(output) if dataclasses.is_dataclass(output) else output
        values = list(held.values()) if hasattr(held, "values") else []
    return [tensor for value in values for tensor in _tensors(value)]


def _jittered(examples: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return other inputs: floating ones moved at random, others in another order."""
    generator = torch.Generator().manual_seed(0)

    def moved(one: Tensor) -> Tensor:
        if not one.is_floating_point():
            return one.flip(0)
        noise = torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one)
        return one + noise * one.std(correction=0).clamp_min(0.1)

    return tuple(moved(one) for one in examples)


def _round(
    small: nn.Module, batches: Sequence[tuple[Tensor, ...]], tolerance: float, kept: dict[str, str]
) -> tuple[str | None, nn.Module | str]:
    """Return the name of units that are idle and a copy without them, or why that failed; None if there are none."""
    import torch_pruning

    copied = copy.deepcopy(small)
    with torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(copied, example_inputs=batches[0])
    names = {module: name for name, module in copied.named_modules()}
    tied = _tied(copied)
    groups = [(units_of(group, names), group) for group in graph.get_all_groups()]
    for batch in batches:
        _watch(copied, [units for units, _ in groups], batch)
    for units, group in groups:
        if units.name in kept:
            continue
        gone, constant, why = idle(units, tolerance)
        if units.why_kept is None and tied & {units.name, *(names[one.layer] for one in units.consumers)}:
            units.why_kept = "their weights are those of another layer, too"
        output = units.why_kept == "they are the output"
        reason = units.why_kept if units.why_kept and gone and not output else why
        if reason and not output:
            kept[units.name] = reason
        if not gone or units.why_kept:
            continue
        if len(gone) == units.count:
            # A layer of no units is none: one stays, and does nothing.
            gone, constant = gone[1:], [unit for unit in constant if unit != gone[0]]
        if not gone:
            continue
        # Others may be free to go once these have.
        kept.pop(units.name, None)
        try:
            fold(units.consumers, constant)
            graph.get_pruning_group(units.root, group[0].dep.handler, gone).prune()
        except (RuntimeError, IndexError, ValueError) as error:
            return units.name, f"they cannot be cut out ({error})"
        return units.name, copied
    return None, small


def _tied(model: nn.Module) -> set[str]:
    """Return the names of modules that share a parameter with another."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}


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
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        raise UnsupportedError(
            "without them it does not run: they are added to an input, or forward() has their number written into it "
            "(view(-1, 400) in place of flatten(1))"
        ) from error
    if [one.shape for one in was] != [one.shape for one in now]:
        raise UnsupportedError("they are an output as well")
    worst = 0.0
    for old, new in zip(was, now, strict=True):
        if not old.numel() or not old.is_floating_point():
            continue
        difference, largest = float((old - new).abs().max()), float(old.abs().max())
        # Rounding of half precision is no other output.
        bound = max(tolerance, 8.0 * torch.finfo(old.dtype).eps) * largest
        if not difference <= bound:
            raise UnsupportedError(f"without them outputs differ by {difference:.2g} of {largest:.2g}")
        worst = max(worst, difference)
    return worst
