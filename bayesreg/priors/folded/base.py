"""Penalties that rise like L1 near the centre and level off far out: improper, sparse, and nearly unbiased."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from bayesreg.conversion import LossScale
from bayesreg.priors.contract.asking import require_proper
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.base import ElementwisePrior

__all__ = ["Folded"]

#: Where a piece starts, the slope there, and the curvature on it.
Piece = tuple[Tensor, Tensor, Tensor]


class Folded(ElementwisePrior, ABC):
    """−log p piecewise quadratic in |r|, concave beyond the centre and constant far out: no density has it.

    A constant −log p far out leaves no total mass of 1: it is a penalty with a mode and a prox, and not a
    distribution. A family gives its pieces.
    """

    traits = Traits(proper=False, convex=False, smooth=False, elementwise=True, has_prox=True)

    @abstractmethod
    def pieces(self) -> list[Piece]:
        """Return the pieces from the centre outward, as (start, slope, curvature), each broadcastable."""

    def _heights(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """Return the penalty at the start of each piece."""
        heights = [torch.zeros_like(pieces[0][0])]
        for (start, slope, bend), (end, _, _) in itertools.pairwise(pieces):
            width = end - start
            heights.append(heights[-1] + slope * width + 0.5 * bend * width.square())
        return heights

    def offset_penalty(self, offset: Tensor) -> Tensor:
        size, pieces = offset.abs(), self.pieces()
        heights = self._heights(pieces)
        found = torch.zeros_like(size)
        for (start, slope, bend), height in zip(pieces, heights, strict=True):
            inside = size - start
            found = torch.where(inside >= 0, height + slope * inside + 0.5 * bend * inside.square(), found)
        return found.to(offset.dtype)

    def offset_slope(self, offset: Tensor) -> Tensor:
        size, found = offset.abs(), torch.zeros_like(offset)
        for start, slope, bend in self.pieces():
            found = torch.where(size >= start, (slope + bend * (size - start)).to(found), found)
        return found * offset.sign()

    def offset_curvature(self, offset: Tensor) -> Tensor:
        size, found = offset.abs(), torch.zeros_like(offset)
        for start, _, bend in self.pieces():
            found = torch.where(size >= start, bend.to(found), found)
        return torch.where(offset == 0, 0.0, found)

    def offset_prox(self, offset: Tensor, step: Tensor) -> Tensor:
        v, h = offset.abs().to(torch.float64), step.to(offset.device, torch.float64)
        pieces = [tuple(part.to(v) for part in piece) for piece in self.pieces()]
        ends = [start for start, _, _ in pieces[1:]] + [torch.full((), torch.inf, dtype=v.dtype, device=v.device)]
        heights = self._heights(pieces)  # type: ignore[arg-type]
        best, least = torch.zeros_like(v), 0.5 * v.square() / h
        for (start, slope, bend), end, height in zip(pieces, ends, heights, strict=True):
            # On a piece that the step leaves convex, its stationary point; else the minimum is at an end, which the
            # pieces beside it look at.
            firm = 1.0 + h * bend
            free = (v - h * (slope - bend * start)) / torch.where(firm > 0, firm, 1.0)
            x = torch.minimum(torch.maximum(torch.where(firm > 0, free, start), start), end)
            inside = x - start
            value = 0.5 * (x - v).square() / h + height + slope * inside + 0.5 * bend * inside.square()
            better = value < least
            best, least = torch.where(better, x, best), torch.where(better, value, least)
        return (best * offset.sign()).to(offset.dtype)

    def log_normaliser(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        require_proper(self, "sampling")
        raise AssertionError

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            f"No weight_decay is equivalent to {self.family}, which pulls on small weights and leaves large ones "
            f"alone: train it with br.attach or br.MAPTrainer (proximal steps)."
        )
