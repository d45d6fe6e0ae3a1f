"""Weights whose norm is held fixed while they move: a prior centred at zero cannot act on them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from bayesreg._support.sharding import is_sharded
from bayesreg._support.tables import in_short
from bayesreg.routes.planning.plan import GroupPlan

__all__ = ["NormWatch"]

# Before which steps it looks, counted from 1; the second is where it begins, as some normalise in the first.
_FIRST = 2
_LOOKS = (3, 4, 5, 7, 10, 14, 21, 31, 46, 68, 102, 152, 228, 342, 513, 769, 1153)
_SAMPLE, _HITS = 4096, 3
# Up to so many elements a norm is taken in float64; float32 sums of more of them wander by more than the tolerance.
_SMALL = 2**20


class NormWatch:
    """Watches the norms of matrices under a prior centred at zero, at steps that grow apart.

    A matrix whose norm has changed by more than rounding is out for good. One that has moved, three times with the same
    norm to rounding, is held: by the optimizer or by the loop.

    Args:
        optimizer: The optimizer.
        plans: Its routes.
    """

    def __init__(self, optimizer: Optimizer, plans: Iterable[GroupPlan]) -> None:
        self._name = type(optimizer).__name__
        self._watched: dict[str, Tensor] = {}
        for plan in plans:
            for member in plan.members:
                parameter = member.parameter
                if member.route == "none" or parameter.ndim < 2 or parameter.is_meta or is_sharded(parameter):
                    continue
                # There is no float64 on Apple's accelerator.
                if not parameter.numel() or parameter.device.type == "mps":
                    continue
                if parameter.requires_grad and parameter.dtype.is_floating_point and member.toward_zero:
                    self._watched[member.entry.name] = parameter
        self._step = 0
        self._start: dict[str, tuple[float, Tensor]] = {}
        self._hits: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._watched)

    @torch.no_grad()
    def look(self) -> list[str]:
        """Look before a step.

        Returns:
            The names of weights that are held, once.
        """
        self._step += 1
        if self._step == _FIRST:
            norms = _norms(list(self._watched.values()))
            self._start = {
                name: (norm, _sample(p)) for (name, p), norm in zip(self._watched.items(), norms, strict=True)
            }
            return []
        if self._step not in _LOOKS or not self._start:
            return []
        found = []
        for (name, parameter), norm in zip(
            list(self._watched.items()), _norms(list(self._watched.values())), strict=True
        ):
            first, sample = self._start[name]
            tolerance = _tolerance(parameter)
            if not first or abs(norm / first - 1.0) > tolerance or not norm < float("inf"):
                del self._watched[name]
                continue
            away = (_sample(parameter) - sample).square().sum() / sample.square().sum().clamp_min(1e-30)
            if float(away) > 100.0 * tolerance:
                self._hits[name] = self._hits.get(name, 0) + 1
                if self._hits[name] == _HITS:
                    found.append(name)
        if found or self._step == _LOOKS[-1]:
            self._watched.clear()
        return found

    def words(self, names: list[str]) -> str:
        """Return what to say of weights that are held."""
        return (
            f"{in_short(names)}: the norm stays the same to the last digit while the weights move, held by "
            f"{self._name} or by the training loop, so a prior centred at zero cannot act on it; give it br.Flat(), "
            f"centre the prior on reference weights, or take the constraint away."
        )


def _sample(parameter: Tensor) -> Tensor:
    return parameter.detach().flatten()[:_SAMPLE].to(torch.float32, copy=True)


def _tolerance(parameter: Tensor) -> float:
    if parameter.element_size() >= 4:
        return 1e-6 if parameter.numel() <= _SMALL else 5e-6
    return 1e-6 + 4e-3 / math.sqrt(parameter.numel())


def _norms(parameters: list[Tensor]) -> list[float]:
    plain = [p.detach() for p in parameters]
    small = [p for p in plain if p.numel() <= _SMALL]
    found: dict[int, float] = {}
    for device in dict.fromkeys(p.device for p in small):
        here = [p for p in small if p.device == device]
        norms: list[float] = torch.stack(torch._foreach_norm(here, dtype=torch.float64)).tolist()
        found.update(zip(map(id, here), norms, strict=True))
    # Of the norms of rows: each is short, so float32 loses little.
    rows = {id(p): p.flatten(1).norm(dim=1, dtype=torch.float32).double() for p in plain if id(p) not in found}
    return [found[id(p)] if id(p) in found else float(torch.linalg.vector_norm(rows[id(p)])) for p in plain]
