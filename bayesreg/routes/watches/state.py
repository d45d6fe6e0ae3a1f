"""What an attached prior was planned for, and whether it is still so."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bayesreg.errors import CoverageError
from bayesreg.model_prior.entry import Entry
from bayesreg.routes.planning.plan import Planned
from bayesreg.selection import ParameterInfo

__all__ = ["State"]


class State:
    """The state of optimizer, model and prior when the routes were planned.

    Looked at in every step, so it is kept as flat lists: walking a thousand members costs as much as moving them.

    Args:
        optimizer: The optimizer.
        members: Its parameters that have a prior.
        uncovered: Frozen parameters without a prior, which must stay frozen.
    """

    def __init__(self, optimizer: Optimizer, members: Sequence[Planned], uncovered: Sequence[ParameterInfo]) -> None:
        self._members, self._uncovered = members, uncovered
        self._held = [list(group["params"]) for group in optimizer.param_groups]
        infos = [member.entry.info for member in members]
        self._stores = [_store(info.module._parameters) for info in infos]
        self._attributes = [info.attribute for info in infos]
        self._parameters = [member.parameter for member in members]
        # Where the model keeps each module on the way to a parameter: a head may be replaced as a whole.
        edges = {(id(above), id(below)): (above, below) for info in infos for above, below in pairwise(info.modules)}
        self._parents = [_store(above._modules) for above, _ in edges.values()]
        self._children = [below for _, below in edges.values()]
        self._keys = [
            next((key for key, child in above._modules.items() if child is below), "")
            for above, below in edges.values()
        ]
        self._shapes = [tuple(parameter.shape) for parameter in self._parameters]
        self._elements = sum(map(Tensor.numel, self._parameters))
        priors = {id(member.prior): member.prior for member in members}.values()
        self._numbers = [held for prior in priors for held in (*prior.buffers(), *prior.parameters())]
        self._before = self._versions()

    def _versions(self) -> tuple[int, torch.dtype | None]:
        """Return what tells that a scale or centre was changed in place, or the model moved to another dtype."""
        dtype = self._parameters[0].dtype if self._parameters else None
        return sum(map(operator.attrgetter("_version"), self._numbers)), dtype

    def has_changed(self, groups: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether the routes must be planned afresh."""
        if len(groups) != len(self._held) or self._versions() != self._before:
            return True
        return any(
            len(group["params"]) != len(held) or not all(map(operator.is_, group["params"], held))
            for group, held in zip(groups, self._held, strict=True)
        )

    def check_shapes(self) -> None:
        """Raise if a parameter was given another shape in place, as where an embedding is resized.

        Raises:
            CoverageError: If one was.
        """
        for member, shape in zip(self._members, self._shapes, strict=True):
            if (now := tuple(member.parameter.shape)) != shape:
                raise CoverageError(
                    f"{member.entry.name} had the shape {shape} when its prior was attached and has {now} now "
                    f"(resized in place); build prior and optimizer again and attach again."
                )

    def check(self) -> None:
        """Raise if the model trains something else than what the optimizer and the prior know.

        Raises:
            CoverageError: If it does.
        """
        for info in self._uncovered:
            if info.parameter.requires_grad and info.parameter.grad is not None:
                raise CoverageError(
                    f"{info.name} was frozen and without a prior when it was attached, and is trained now; give it a "
                    f"rule in br.ModelPrior (br.Flat() for none), remove() the handle and attach that."
                )
        if sum(map(Tensor.numel, self._parameters)) != self._elements:
            self.check_shapes()
        held = map(dict.get, self._stores, self._attributes)
        modules = map(dict.get, self._parents, self._keys)
        if not (all(map(operator.is_, held, self._parameters)) and all(map(operator.is_, modules, self._children))):
            moved = next((m.entry for m in self._members if not _in_place(m)), None)
            name = "a parameter" if moved is None else moved.name
            raise CoverageError(
                f"{name} of the model is another tensor than the one the optimizer holds{_how(moved)}; build prior "
                f"and optimizer again and attach again."
            )


def _store(held: Any) -> dict[str, Any]:
    """Return a module's own dictionary; a scripted module has another kind, whose content stays as it is."""
    return held if isinstance(held, dict) else dict(held.items())


def _in_place(member: Planned) -> bool:
    info = member.entry.info
    chain = all(any(child is below for child in above._modules.values()) for above, below in pairwise(info.modules))
    return chain and _store(info.module._parameters).get(info.attribute) is member.parameter


def _how(entry: Entry | None) -> str:
    """Return what seems to have happened to a parameter since."""
    info = None if entry is None else entry.info
    if info is None or info.module._parameters.get(info.attribute) is not None:
        return " (loaded with assign=True, sharded or replaced, it or a module around it)"
    owner, name = info.module, info.attribute
    parametrizations = getattr(owner, "parametrizations", {})
    if f"{name}_orig" in owner._parameters:
        return f": it was pruned or normalised after br.attach and is {name}_orig now"
    if name in parametrizations:
        return f": it was parametrized after br.attach and is parametrizations.{name} now"
    if f"{name}_g" in owner._parameters:
        return f": weight_norm was put on it after br.attach, and it is {name}_g and {name}_v now"
    return ": it was deleted after br.attach, or is no parameter any more"
