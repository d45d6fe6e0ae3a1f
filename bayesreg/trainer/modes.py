"""Several starting points, and the local modes that a solver finds from them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bayesreg._support.tables import Table
from bayesreg.model_prior import ModelPrior

__all__ = ["Mode", "Modes", "draw_start"]

# Two optima closer than this, relative to their size, are one: solvers stop within far less.
_SAME = 1e-4


@dataclass
class Mode:
    """A local optimum.

    Attributes:
        objective: Mean NLL plus penalty/n there.
        found: From how many starts it was reached.
        kkt_residual: The smallest residual at which it was reached.
        at_kinks: Number of weights that sit exactly at a kink (the zeros of a sparse MAP) or on a bound.
    """

    objective: float
    found: int
    kkt_residual: float
    at_kinks: int


class Modes(list[Mode]):
    """The local modes that were found, the lowest objective first; prints as a table.

    Attributes:
        starts: How many starting points were tried.
        unconverged: How many of them did not reach the tolerance.
    """

    def __init__(self) -> None:
        super().__init__()
        self.starts = 0
        self.unconverged = 0
        self._lowest = math.inf
        self._points: list[Tensor] = []

    def add(self, point: Tensor, mode: Mode, *, converged: bool) -> bool:
        """Count one start.

        Args:
            point: Where it ended.
            mode: What was found there.
            converged: Whether the tolerance was reached.

        Returns:
            Whether this is the best so far: a converged point before one that is not, then the lower objective.
        """
        self.starts += 1
        if not converged:
            self.unconverged += 1
            # Only until a start converges; NaN is below nothing.
            lower = mode.objective < self._lowest
            self._lowest = min(self._lowest, mode.objective) if lower else self._lowest
            return lower and not self
        for index, known in enumerate(self._points):
            if float((point - known).abs().max()) <= _SAME * (1.0 + float(known.abs().max())):
                self[index].found += 1
                self[index].kkt_residual = min(self[index].kkt_residual, mode.kkt_residual)
                return False
        best = all(mode.objective < other.objective for other in self)
        self.append(mode)
        self._points.append(point)
        order = sorted(range(len(self)), key=lambda i: self[i].objective)
        self[:] = [self[i] for i in order]
        self._points = [self._points[i] for i in order]
        return best

    def state(self) -> dict[str, Any]:
        """Return all of it, in numbers and tensors."""
        return {
            "modes": [asdict(mode) for mode in self],
            "points": list(self._points),
            "starts": self.starts,
            "unconverged": self.unconverged,
            "lowest": self._lowest,
        }

    @classmethod
    def of(cls, state: dict[str, Any], device: torch.device) -> Modes:
        """Return what `state` was made of.

        Args:
            state: What it returned.
            device: Where the points belong.

        Returns:
            The modes.
        """
        made = cls()
        made[:] = [Mode(**mode) for mode in state["modes"]]
        made._points = [point.to(device) for point in state["points"]]
        made.starts, made.unconverged, made._lowest = state["starts"], state["unconverged"], state["lowest"]
        return made

    @property
    def words(self) -> str:
        """What was found, in a sentence."""
        if not self:
            return f"No local mode was reached from {self.starts} starts; raise max_iterations."
        missed = f" ({self.unconverged} of {self.starts} starts did not converge)" if self.unconverged else ""
        if len(self) == 1:
            return f"All starts that converged, {self[0].found}, ended in one mode{missed}."
        gap = self[1].objective - self[0].objective
        return (
            f"{len(self)} local modes from {self.starts} starts{missed}: the lowest, reached from {self[0].found}, is "
            f"kept; the next is {gap:.3g} nats per example above it. There may be a lower one still."
        )

    @property
    def table(self) -> Table:
        """The modes as a table."""
        lowest = self[0].objective if self else 0.0
        rows = [(m.objective, m.objective - lowest, m.found, m.at_kinks, m.kkt_residual) for m in self]
        columns = ("objective (nats per example)", "above the lowest", "starts", "at a kink or bound", "KKT residual")
        return Table("Local modes", columns, rows, (self.words,))

    def __str__(self) -> str:
        return str(self.table)


@torch.no_grad()
def draw_start(prior: ModelPrior, generator: torch.Generator) -> None:
    """Put the model at a random point: a draw from the prior, and standard normal where there is no density.

    Args:
        prior: The prior.
        generator: Source of randomness.
    """
    left = set(prior.sample_(generator=generator))
    for entry, _ in prior.active():
        parameter = entry.parameter
        if entry.name in left:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise.to(parameter))
