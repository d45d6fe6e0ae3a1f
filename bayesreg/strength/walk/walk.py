"""The walk: from the middle to weaker priors and to stronger ones, until neither is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from bayesreg.strength.walk.points import Measured, Point

__all__ = ["STRONGER", "WEAKER", "Ground", "Walked", "settle", "walk"]

#: log₁₀ of the width of one step: three quarters of a decade of the precision.
STEP = 0.375
WEAKER, STRONGER = 1.0, -1.0
_REACH = 3.0
_STEEP = 0.3
_COLLAPSES = 3
_ENOUGH = 2
#: How often the lowest point may change when fits are taken further; evaluations up to which it was at rest.
_ROUNDS, _AT_REST = 3, 10.0


class Ground(Protocol):
    """What is walked over: fits of one model under a prior of any width.

    Attributes:
        examples: How many examples are held out in all.
        spent: Passes over all the data so far.
        null_nll: Mean NLL of the best constant output; None where it plays no part.
    """

    examples: int
    spent: float
    null_nll: float | None

    def begin(self, at: float) -> Any:
        """Return a fit from the initial weights."""

    def go_on(self, at: float, state: Any) -> Any:
        """Return a fit from one at a width near by, in few iterations."""

    def collapsed(self, state: Any) -> bool:
        """Return whether a fit has lost all that it could say."""

    def measure(self, at: float, state: Any) -> Measured:
        """Return how good a fit is on what it has not seen."""


@dataclass(frozen=True)
class Walked:
    """Where a walk has been.

    Attributes:
        points: In order of width, from the strongest prior.
        collapsed: The widths at which the weights collapsed.
        begun_weaker: How many steps weaker than asked for it had to begin.
        dead: Whether even there the weights had learned nothing.
    """

    points: list[Point]
    collapsed: tuple[float, ...]
    begun_weaker: int
    dead: bool = False


def walk(
    ground: Ground,
    start: float = 0.0,
    *,
    step: float = STEP,
    directions: Sequence[float] = (WEAKER, STRONGER),
    otherwise: Sequence[float] = (),
    state: Any = None,
) -> Walked:
    """Walk to weaker and to stronger priors, each fit from the one before.

    A direction ends after two points in a row that are not better than its best, or, to weaker priors, one that is far
    worse. Weights that a prior made collapse to nothing stay there, whatever prior follows: such a fit is not
    recorded, the step is halved from the last live one, and no width as narrow is tried again. While no network so far
    predicts better than the frequencies of the classes, it is overconfident, and a stronger prior is tried whatever the
    last one did.

    Args:
        ground: What is walked over.
        start: Where to begin, log₁₀ of the width.
        step: How far one step is, in the same.
        directions: Where to go from there, in this order.
        otherwise: Where to go as well if nothing there was better than the start.
        state: Of a fit near the start to go on from; a fit from scratch by default.

    Returns:
        The points.
    """
    begun, before = 0, ground.spent
    state = ground.begin(start) if state is None else ground.go_on(start, state)
    while (dead := ground.collapsed(state)) and begun < _REACH / step:
        begun += 1
        start += step
        state = ground.begin(start)
    points = {start: _point(ground, start, state, before)}
    collapsed: list[float] = []
    for direction in () if dead else directions:
        collapsed += _one_way(ground, points, start, direction, step)
    for direction in () if dead else otherwise:
        if points[start].objective <= min(point.objective for point in points.values()):
            collapsed += _one_way(ground, points, start, direction, step)
    return Walked([points[at] for at in sorted(points)], tuple(collapsed), begun, dead)


def settle(ground: Ground, walked: Walked) -> Walked:
    """Take the fits of the lowest point and its neighbours further, until the lowest one stays the same.

    A fit that ended early is one under a stronger prior than its own, and the more so the weaker that is: the curve
    between the points is then too flat on that side.

    Args:
        ground: What was walked over.
        walked: The walk.

    Returns:
        The walk, with these points scored again.
    """
    points = list(walked.points)
    done: set[float] = set()
    for _ in range(_ROUNDS):
        best = min(range(len(points)), key=lambda i: points[i].objective)
        near = [i for i in range(max(best - 1, 0), min(best + 2, len(points))) if points[i].at not in done]
        for i in near:
            done.add(points[i].at)
            before = ground.spent
            state = ground.go_on(points[i].at, points[i].state)
            if ground.collapsed(state) or ground.spent - before <= _AT_REST:
                continue
            again = _point(ground, points[i].at, state, before)
            points[i] = replace(again, evaluations=points[i].evaluations + again.evaluations)
        if not near:
            break
    return replace(walked, points=points)


def _one_way(ground: Ground, points: dict[float, Point], start: float, direction: float, step: float) -> list[float]:
    """Walk to wider or to narrower priors; return the widths of collapse."""
    stronger = direction == STRONGER
    last = best = points[start]
    collapsed: list[float] = []
    worse = 0
    null = ground.null_nll
    while True:
        at = round(last.at + direction * step, 9)
        if abs(at - start) > _REACH + 1e-9 or (stronger and collapsed and at <= max(collapsed) + 1e-9):
            break
        before = ground.spent
        state = ground.go_on(at, last.state)
        if ground.collapsed(state):
            collapsed.append(at)
            if len(collapsed) >= _COLLAPSES or worse:
                break
            step /= 2.0
            continue
        last = points[at] = _point(ground, at, state, before)
        if last.objective < best.objective:
            worse, best = 0, last
        else:
            worse += 1
        if stronger and null is not None and best.objective >= ground.examples * null:
            worse = 0
            continue
        steep = (last.objective - best.objective) / ground.examples > _STEEP
        if worse >= _ENOUGH or (worse and steep and not stronger):
            break
    return collapsed


def _point(ground: Ground, at: float, state: Any, before: float) -> Point:
    measured = ground.measure(at, state)
    objective = ground.examples * measured.held_out + measured.hyper
    return Point(at, measured, objective, ground.spent - before, state)
