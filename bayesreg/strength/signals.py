"""What speaks against a choice of strength: each signal has a name and says what it means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import nn

from bayesreg.explaining.groups.scale_free import scale_free_weights
from bayesreg.model_prior import ModelPrior
from bayesreg.priors.contract.asking import is_flat
from bayesreg.strength.walk.points import Measured, Point
from bayesreg.strength.walk.walk import Walked

__all__ = ["LOUD", "moved", "of_norms", "of_walk", "several"]

#: Those that are Python warnings too.
LOUD = frozenset({"collapsed", "end", "gradient"})

_DECIDES = 2.0
_FEW = 20
_RIVAL = 5.0


def of_walk(walked: Walked, held_out: int) -> Iterator[tuple[str, str]]:
    """Yield what a walk says against its own choice.

    Args:
        walked: The walk.
        held_out: How many examples each score was made of.

    Yields:
        Names and words.
    """
    if walked.dead:
        yield (
            "collapsed",
            (
                f"Whatever the prior, up to {walked.begun_weaker} steps weaker than as given, the fits learn next to "
                f"nothing beyond the frequencies of the targets: train longer, or at another rate."
            ),
        )
        return
    points = walked.points
    best = min(range(len(points)), key=lambda i: points[i].objective)
    scores = [held_out * point.measured.held_out for point in points]
    spread = max(scores) - min(scores)
    if spread < _DECIDES:
        yield (
            "undecided",
            (
                f"The data do not determine the strength: over all scales that were tried their score differs by "
                f"{spread:.2g} nats. The hyperprior decides."
            ),
        )
    if best in (0, len(points) - 1):
        which = "strongest" if best == 0 else "weakest"
        why = "beyond it the weights collapsed" if best == 0 and walked.collapsed else "the best may lie beyond it"
        yield (
            "end",
            f"The {which} prior that was tried, of scale {points[best].measured.scale:.3g}, is the best; {why}.",
        )
    if walked.begun_weaker:
        words = f"Under the prior as given all weights collapsed to nothing; the walk began {walked.begun_weaker} steps"
        yield "collapse at start", f"{words} weaker."
    if walked.collapsed and best == 0 and len(points) > 1:
        yield (
            "collapse",
            (
                "The next stronger prior that was tried made the weights collapse: the best scale is next to the one "
                "where the network says nothing."
            ),
        )
    if held_out < _FEW:
        yield "few", f"Each strength is scored by {held_out} held-out examples; that is not many."
    yield from several([(point.measured.scale, point.objective) for point in points])
    yield from _other_opinion(points, best)
    yield from (("leverage", words) for words in points[best].measured.remarks if "leverage" in words)


def _other_opinion(points: Sequence[Point], best: int) -> Iterator[tuple[str, str]]:
    """Yield that the evidence of the fits asks for another strength."""
    known = [(point.measured.log_evidence, point) for point in points]
    values = [(value, point) for value, point in known if value is not None]
    if len(values) < len(points):
        return
    _, there = max(values, key=lambda pair: pair[0])
    apart = 2.0 * abs(there.at - points[best].at)
    if apart > 1.0:
        yield (
            "disagree",
            (
                f"The evidence of the fits is largest at a scale of {there.measured.scale:.3g}, {apart:.1f} decades of "
                f"the precision from the best."
            ),
        )


def of_norms(model: nn.Module, prior: ModelPrior) -> Iterator[tuple[str, str]]:
    """Yield that a normalisation takes the scale of weights away again, where those have a prior.

    Args:
        model: The model.
        prior: Its prior.

    Yields:
        Name and words, or nothing.
    """
    free = scale_free_weights(model)
    under = [entry.name for entry, belief in prior.active() if entry.name in free and not is_flat(belief)]
    if under:
        shown = f"{', '.join(under[:3])}{', ...' if len(under) > 3 else ''}"
        words = "there the strength acts on the learning rate, and belongs to this training run"
        way_on = "Take the weights of choice.model; the number does not carry over to another run"
        yield "batch norm", f"A normalisation removes the scale of {shown}: {words}. {way_on}."


def moved(measured: Measured, again: Measured) -> Iterator[tuple[str, str]]:
    """Yield that a score was not of a minimum, if the same fit taken further has another.

    Args:
        measured: The fit that counted.
        again: The same, some iterations later.

    Yields:
        Name and words, or nothing.
    """
    change, error = abs(again.held_out - measured.held_out), measured.error or 0.0
    if change > error:
        yield (
            "gradient",
            (
                f"The best fit is no minimum: a gradient of {measured.gradient or 0.0:.1e} per example is left, and "
                f"some iterations later its leave-one-out score is another by {change:.2g} nats, more than its "
                f"standard error of {error:.2g}; use method='folds'."
            ),
        )


def several(tried: Sequence[tuple[float, float]]) -> Iterator[tuple[str, str]]:
    """Yield that there is more than one minimum, apart by rises of more than the nats that decide.

    Args:
        tried: Scales and objectives, in order.

    Yields:
        Name and words, or nothing.
    """
    values = [value for _, value in tried]
    lowest = min(values)
    minima = [scale for (scale, value), deep in zip(tried, _deep(values), strict=True) if deep < lowest + _RIVAL]
    if len(minima) > 1:
        shown = ", ".join(f"{scale:.3g}" for scale in minima)
        yield "several", f"The objective has several minima, at scales of {shown}; the lowest was taken."


def _deep(values: Sequence[float]) -> Iterator[float]:
    """Yield each value that is a minimum, and infinity for the others."""
    for i, value in enumerate(values):
        if any(values[j] < value for j in (i - 1, i + 1) if 0 <= j < len(values)):
            yield math.inf
            continue
        left = next((max(values[j : i + 1]) for j in range(i - 1, -1, -1) if values[j] < value), None)
        right = next((max(values[i : j + 1]) for j in range(i + 1, len(values)) if values[j] < value), None)
        is_one = all(barrier is None or barrier - value > _DECIDES for barrier in (left, right))
        yield value if is_one else math.inf
