"""Choosing a strength by walking over it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import torch

from bayesreg.curvature.left_out import STATIONARY
from bayesreg.curvature.moves import moved_by
from bayesreg.errors import UnsupportedError
from bayesreg.likelihoods import Gaussian, Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.sparsity.null import null_strength
from bayesreg.strength.choice import OwnScale, Step
from bayesreg.strength.groups import Group
from bayesreg.strength.setting import Found, Setting
from bayesreg.strength.signals import moved, of_norms, of_walk
from bayesreg.strength.walk.full_batch import FullBatch
from bayesreg.strength.walk.held_out import Task
from bayesreg.strength.walk.parts import parts_of
from bayesreg.strength.walk.points import Point, interval, vertex
from bayesreg.strength.walk.stochastic import Stochastic
from bayesreg.strength.walk.walk import STRONGER, WEAKER, Walked, settle, walk

__all__ = ["by_walk", "walked_over"]

#: log₁₀ of the width at which a walk with unknown noise begins, in units of the targets' std.
_NOISE_START = -0.375
#: One step from the empty model on, where few weights come in at a time.
_NULL_STEP = 0.25
#: log₁₀ of the width at which a network under a prior with kinks begins.
_SPARSE_START = 1.125

_STILL_TRAINING = (
    "The first fit still gained by training on at the same strength when the walk began: what it finds is in part how "
    "long each point was trained. Train longer (max_epochs) or at a higher rate."
)
_ENDED_COLLAPSED = (
    "At the strength that was chosen the weights of the fit to all data collapsed to nothing; the network says no more "
    "than the frequencies of the targets."
)


def by_walk(setting: Setting, method: str) -> Found:
    """Walk, take the lowest place, and fit all the data there.

    Args:
        setting: What the choice is for; its model is at the MAP afterwards.
        method: "loo", "split", "folds" or "centre".

    Returns:
        What was found.

    Raises:
        UnsupportedError: If the likelihood has something to learn other than Gaussian noise.
    """
    likelihood: Likelihood = setting.likelihood
    if setting.learns_noise:
        likelihood = Gaussian(noise_std=1.0)
    elif any(p.requires_grad for p in likelihood.parameters()):
        raise UnsupportedError(f"{likelihood.describe()}: expected a likelihood with nothing to learn but noise_std.")
    task = Task(
        setting.model,
        lambda at, unit: setting.at(unit * 10.0**at),
        likelihood,
        setting.inputs,
        setting.targets,
        parts_of(setting.targets, method, setting.seed),
        setting.hyper,
        noise=setting.noise_variance if setting.learns_noise else None,
        linear=setting.linear,
        homogeneous=all(prior.quadratic() is not None for _, prior in setting.prior.active()),
    )
    ground = (
        FullBatch(task, leave_one_out=method == "loo")
        if setting.training is None
        else Stochastic(task, setting.training, setting.seed)
    )
    if method == "centre":
        return _at_centre(setting, ground)
    walked = walked_over(setting, ground)
    if isinstance(ground, FullBatch) and method != "loo" and not walked.dead:
        walked = settle(ground, walked)  # leave-one-out looks at the gradient instead
    points = walked.points
    at = vertex(points)
    state = _near(setting, points, at).state
    said = dict(of_walk(walked, ground.examples)) | dict(of_norms(setting.model, setting.prior))
    best = min(points, key=lambda point: point.objective)
    if isinstance(ground, Stochastic) and not ground.at_rest:
        said["training"] = _STILL_TRAINING
    if isinstance(ground, FullBatch) and (best.measured.gradient or 0.0) > STATIONARY:
        again = ground.measure(best.at, ground.go_on(best.at, best.state))
        said |= dict(moved(best.measured, again))
    sensitivity = _sensitivity(ground, points)
    trodden: dict[Group, list[Point]] = {}
    places: dict[Group, float] = {}

    def prior_with(own: dict[Group, float], unit: float = 1.0) -> ModelPrior:
        return setting.at(unit * 10.0**at, {group: unit * 10.0**place for group, place in own.items()})

    for group in setting.groups:

        def prior_at(to: float, unit: float, group: Group = group) -> ModelPrior:
            return prior_with({**places, group: to}, unit)

        ground.task = replace(task, prior_at=prior_at)
        trodden[group] = walk(ground, at, state=state).points
        places[group] = vertex(trodden[group])
        state = _near(setting, trodden[group], places[group]).state
    ground.task = replace(task, prior_at=lambda _, unit: prior_with(places, unit))
    ground.finish(at, state)
    if ground.ended_collapsed() and "collapsed" not in said:
        said["collapsed"] = _ENDED_COLLAPSED
    noise, noisy = 1.0, setting.likelihood
    if setting.learns_noise:
        noise = _noise(setting, ground, at, best)
        noisy = Gaussian(noise_std=noise)
    own = tuple(
        OwnScale(group.label, group.names, noise * 10.0 ** places[group], _ends(it, places[group], noise), _steps(it))
        for group, it in trodden.items()
    )
    return Found(
        noise * 10.0**at, prior_with(places, noise), noisy, _ends(points, at, noise), _steps(points), "", said,
        ground.spent, own, sensitivity,
    )  # fmt: skip


def _near(setting: Setting, points: list[Point], at: float) -> Point:
    """Return the point to go on from: the nearest, with kinks the nearest of a weaker prior, with fewer zeros."""
    weaker = [point for point in points if point.at >= at] if setting.prior.kinked() else points
    return min(weaker or points, key=lambda point: abs(point.at - at))


def _ends(points: list[Point], at: float, noise: float) -> tuple[float | None, float | None]:
    """Return the interval as scales."""
    # With unknown noise a place is no scale yet; the noise of the last fit is not quite that of its neighbours.
    shift = noise * 10.0**at / _scale_at(points, at)
    low, high = (None if end is None else shift * _scale_at(points, end) for end in interval(points))
    return low, high


def _steps(points: list[Point]) -> list[Step]:
    return [
        Step(
            point.measured.scale, point.measured.held_out, point.measured.hyper, point.objective,
            point.measured.effective_parameters, point.measured.gradient, point.evaluations,
            point.measured.log_evidence,
        )
        for point in points
    ]  # fmt: skip


def _sensitivity(ground: FullBatch | Stochastic, points: list[Point]) -> tuple[float | None, float | None]:
    """Return how far predictions move with half and with twice the scale, from the fits next to the best."""
    best = min(range(len(points)), key=lambda i: points[i].objective)
    here, task = points[best], ground.task
    unit = 1.0 if task.noise is None else here.measured.scale / 10.0**here.at
    output, found = ground.output(here.state[0]), []
    for side in (best - 1, best + 1):
        apart: float | None = None
        if 0 <= side < len(points):
            other = points[side]
            apart = moved_by(task.likelihood, output, ground.output(other.state[0]), task.targets)
            if apart is not None:
                apart *= (math.log10(2.0) / (other.at - here.at) / unit) ** 2
        found.append(apart)
    return found[0], found[1]


def walked_over(setting: Setting, ground: FullBatch | Stochastic) -> Walked:
    """Walk from the prior as given, both ways; where it makes weights exactly 0 from one end to the other.

    A linear model is walked from the strongest prior that leaves it empty, where fits are cheap. Of a network a weight
    that is 0 beside others that are 0 stays 0 whatever prior follows: it is walked from a weak prior to stronger ones.

    Args:
        setting: What the choice is for.
        ground: What is walked over.

    Returns:
        The walk.
    """
    start = 0.0
    if setting.learns_noise:
        start = _NOISE_START - math.log10(float(setting.targets.to(torch.float64).std()) or 1.0)
    if not setting.prior.kinked() or not isinstance(ground, FullBatch):
        return walk(ground, start)
    if not setting.linear:
        return walk(ground, start + _SPARSE_START, directions=(STRONGER,), otherwise=(WEAKER,))
    if setting.learns_noise:
        return walk(ground, start)
    try:
        data = (setting.inputs, setting.targets)
        null = null_strength(setting.model, setting.prior, setting.likelihood, data)
    except UnsupportedError:
        null = 0.0
    return walk(ground, -math.log10(null), step=_NULL_STEP, directions=(WEAKER,)) if null > 0.0 else walk(ground)


def _at_centre(setting: Setting, ground: FullBatch | Stochastic) -> Found:
    """Fit at the middle of the hyperprior, where what could be held out would not tell."""
    middle = 0.0 if setting.hyperprior is None else setting.hyperprior.middle() / setting.hyperprior.power
    at = middle / math.log(10.0)
    state: Any = ground.begin(at)
    ground.finish(at, state)
    scale = 10.0**at
    said = {
        "centre": (
            f"The strength was not chosen from these data but set by the hyperprior, to its middle of {scale:.3g}: "
            f"with so few examples of each class what is held out points the wrong way. "
            f"hyperprior=br.hyperpriors.HalfCauchy(scale) sets another middle, which br.transfer.rehearse finds about "
            f"pretrained weights; method='folds' chooses all the same."
        )
    }
    if ground.ended_collapsed():
        said["collapsed"] = _ENDED_COLLAPSED
    step = Step(scale, None, 0.0, 0.0, None, None, ground.spent)
    return Found(scale, setting.at(scale), setting.likelihood, (None, None), [step], "", said, ground.spent)


def _scale_at(points: list[Point], at: float) -> float:
    """Return the scale at a place of the walk: with unknown noise not 10^at."""
    for low, high in itertools.pairwise(points):
        if low.at <= at <= high.at:
            share = (at - low.at) / (high.at - low.at)
            a, b = (math.log(point.measured.scale) for point in (low, high))
            return math.exp(a + share * (b - a))
    return points[0].measured.scale


def _noise(setting: Setting, ground: FullBatch | Stochastic, at: float, best: Point) -> float:
    """Return the std of the noise at the final fit, by leave-one-out where that was the score."""
    if isinstance(ground, FullBatch) and best.measured.gradient is not None:
        found = ground.left_out(at).noise_std
        assert found is not None
        return math.sqrt(setting.noise_variance(found**2, ground.examples * ground.outputs))
    return best.measured.scale * float(10.0**-best.at)
