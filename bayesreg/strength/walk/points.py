"""Strengths that were tried, and the best one between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Measured", "Point", "interval", "vertex"]


@dataclass(frozen=True)
class Measured:
    """What was found at one strength.

    Attributes:
        scale: What the prior's widths are multiplied by.
        held_out: Mean NLL of examples that the fit did not see, nats.
        hyper: −log density of the scale's logarithm, nats, up to a constant.
        effective_parameters: How many the data determine; None where that was not measured.
        gradient: Largest entry of the objective's gradient, per example; None where it was not measured.
        error: Standard error of `held_out` over examples; None where it was not measured.
        log_evidence: Of the fit, by Laplace's approximation; None where it was not measured.
        parts: `held_out` of each part of the data by itself.
        remarks: What speaks against the numbers.
    """

    scale: float
    held_out: float
    hyper: float
    effective_parameters: float | None = None
    gradient: float | None = None
    error: float | None = None
    log_evidence: float | None = None
    parts: tuple[float, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """One step of a walk.

    Attributes:
        at: log₁₀ of the width, in the units of the walk.
        measured: What was found.
        objective: Σ held-out NLL + hyper, nats.
        evaluations: Passes over all the data that it took.
        state: The fit's weights, for whoever walks.
    """

    at: float
    measured: Measured
    objective: float
    evaluations: float
    state: Any = field(repr=False, compare=False)


def _around(points: Sequence[Point]) -> list[Point]:
    """Return the lowest point and its neighbours."""
    best = min(range(len(points)), key=lambda i: points[i].objective)
    return list(points[max(best - 1, 0) : best + 2])


def _parabola(points: Sequence[Point]) -> tuple[float, float, float] | None:
    """Return place, value and bend of the parabola through the lowest point and its neighbours; None if it has none."""
    near = _around(points)
    if len(near) < 3:
        return None
    x = np.array([point.at for point in near])
    middle = x[1]
    bend, slope, value = np.polyfit(x - middle, [point.objective for point in near], 2)
    if not bend > 0:
        return None
    moved = float(np.clip(-slope / (2.0 * bend), x[0] - middle, x[-1] - middle))
    return float(middle) + moved, float(value + slope * moved + bend * moved**2), float(bend)


def vertex(points: Sequence[Point]) -> float:
    """Return where the parabola through the lowest point and its neighbours is lowest.

    Args:
        points: In order of `at`.

    Returns:
        A place between the neighbours; the lowest point itself where it is at an end.

    Example:
        >>> made = [Point(x, Measured(1.0, 0.0, 0.0), (x - 0.2) ** 2, 0.0, None) for x in (-1.0, 0.0, 1.0)]
        >>> round(vertex(made), 6)
        0.2
    """
    found = _parabola(points)
    return min(points, key=lambda point: point.objective).at if found is None else found[0]


def interval(points: Sequence[Point], within: float = 2.0) -> tuple[float | None, float | None]:
    """Return the places at which the objective is `within` nats over the lowest.

    Next to the lowest point it is the parabola, further out lines between the points.

    Args:
        points: In order of `at`.
        within: Nats.

    Returns:
        The lower and the upper one; None where the walk ended before.
    """
    best = min(range(len(points)), key=lambda i: points[i].objective)
    found = _parabola(points)
    lowest = points[best].objective if found is None else min(found[1], points[best].objective)
    limit = lowest + within

    def towards(order: Sequence[int]) -> float | None:
        for inner, outer in itertools.pairwise(order):
            low, high = points[inner], points[outer]
            if high.objective < limit:
                continue
            if inner == best and found is not None:
                place, value, bend = found
                edge = place + math.copysign(math.sqrt((limit - value) / bend), high.at - low.at)
                return min(edge, high.at) if high.at > low.at else max(edge, high.at)
            share = max(0.0, (limit - low.objective) / (high.objective - low.objective))
            return low.at + share * (high.at - low.at)
        return None

    return towards(range(best, -1, -1)), towards(range(best, len(points)))
