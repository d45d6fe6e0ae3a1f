"""The horseshoe maximised over its local scales, in both coordinates, for unit global scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesreg.priors.numerics.roots import increasing_root

__all__ = ["PROFILES", "Centered", "Noncentered"]


class Centered:
    """Over (w, log λ): λ² = a/s with s = 4/(a + √(a² + 8)), the slope in a."""

    @staticmethod
    def slope(a: Tensor) -> Tensor:
        """Return s, √2 at 0 and 2/a far out; of a negative argument nothing is asked."""
        found = 4.0 / (a + torch.sqrt(a.square() + 8.0))
        return torch.where(a == 0, 0.0, found)

    @staticmethod
    def penalty(a: Tensor) -> Tensor:
        """Return ½·a·s + log(1 + a/s), 0 at 0."""
        root = torch.sqrt(a.square() + 8.0)
        return 2.0 * a / (a + root) + torch.log1p(0.25 * a * (a + root))

    @staticmethod
    def curvature(a: Tensor) -> Tensor:
        """Return ds/da, negative everywhere."""
        root = torch.sqrt(a.square() + 8.0)
        return torch.where(a == 0, 0.0, -4.0 / (root * (a + root)))

    @staticmethod
    def prox(v: Tensor, h: Tensor) -> Tensor:
        """Return argmin_a (a − v)²/2 + h·penalty(a) over a >= 0; of two equal minima 0."""
        h = h.expand_as(v)

        def slope(a: Tensor) -> tuple[Tensor, Tensor]:
            root = torch.sqrt(a.square() + 8.0)
            s = 4.0 / (a + root)
            return a - v + h * s, 1.0 - h * s / root

        # Beyond where its slope is least the sum increases: the minimum that is not at 0 lies there, if anywhere.
        c = (4.0 * h - 8.0).clamp_min(0.0)
        turn = c / torch.sqrt(8.0 + 2.0 * c)
        exists = (turn < v) & (slope(turn)[0] <= 0)
        best = increasing_root(slope, torch.where(exists, turn, v), v, start=v)
        stays = exists & (0.5 * (best - v).square() + h * Centered.penalty(best) < 0.5 * v.square())
        return torch.where(stays, best, 0.0)


class Noncentered:
    """Over (z, log λ), w = λ·z: λ² = ((1 + a²) + √((1 + a²)² + 4a²))/2."""

    @staticmethod
    def _square(a: Tensor) -> tuple[Tensor, Tensor]:
        one = 1.0 + a.square()
        root = torch.sqrt(one.square() + 4.0 * a.square())
        return 0.5 * (one + root), root

    @staticmethod
    def penalty(a: Tensor) -> Tensor:
        """Return a²/(2λ²) + log(1 + λ²) − log λ − log 2, 0 at 0."""
        square, _ = Noncentered._square(a)
        return 0.5 * a.square() / square + torch.log1p(square) - 0.5 * square.log() - math.log(2.0)

    @staticmethod
    def slope(a: Tensor) -> Tensor:
        """Return a/λ²: the envelope theorem."""
        return a / Noncentered._square(a)[0]

    @staticmethod
    def curvature(a: Tensor) -> Tensor:
        """Return the derivative of a/λ²; 1 at 0."""
        square, root = Noncentered._square(a)
        moved = a + (a.pow(3) + 3.0 * a) / root
        return 1.0 / square - a * moved / square.square()


PROFILES: dict[str, type[Centered] | type[Noncentered]] = {"centered": Centered, "noncentered": Noncentered}
