"""Choosing a strength by walking over it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch

from bayesreg.curvature.left_out import STATIONARY
from bayesreg.errors import UnsupportedError
from bayesreg.likelihoods import Gaussian, Likelihood
from bayesreg.sparsity.null import null_strength
from bayesreg.strength.choice import Step
from bayesreg.strength.setting import Found, Setting
from bayesreg.strength.signals import moved, of_norms, of_walk
from bayesreg.strength.walk.full_batch import FullBatch
from bayesreg.strength.walk.held_out import Task
from bayesreg.strength.walk.parts import parts_of
from bayesreg.strength.walk.points import Point, interval, vertex
from bayesreg.strength.walk.stochastic import Stochastic
from bayesreg.strength.walk.walk import Walked, walk

__all__ = ["by_walk"]

#: log₁₀ of the width at which a walk with unknown noise begins, in units of the targets' std.
_NOISE_START = -0.375
#: One step from the empty model on, where few weights come in at a time.
_NULL_STEP = 0.25


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
        lambda at: setting.at(10.0**at),
        likelihood,
        setting.inputs,
        setting.targets,
        parts_of(setting.targets, method, setting.seed),
        setting.hyper,
        noise=setting.noise_variance if setting.learns_noise else None,
        linear=setting.linear,
    )
    ground = (
        FullBatch(task, leave_one_out=method == "loo")
        if setting.training is None
        else Stochastic(task, setting.training, setting.seed)
    )
    if method == "centre":
        return _at_centre(setting, ground)
    walked = _walked(setting, ground)
    points = walked.points
    at = vertex(points)
    nearest = min(points, key=lambda point: abs(point.at - at))
    said = dict(of_walk(walked, ground.examples)) | dict(of_norms(setting.model, setting.prior))
    best = min(points, key=lambda point: point.objective)
    if isinstance(ground, FullBatch) and (best.measured.gradient or 0.0) > STATIONARY:
        again = ground.measure(best.at, ground.go_on(best.at, best.state))
        said |= dict(moved(best.measured, again))
    ground.finish(at, nearest.state)
    if ground.ended_collapsed() and "collapsed" not in said:
        said["collapsed"] = (
            "At the strength that was chosen the weights of the fit to all data collapsed to nothing; the network says "
            "no more than the frequencies of the targets."
        )
    scale, noisy = 10.0**at, setting.likelihood
    if setting.learns_noise:
        noise = _noise(setting, ground, at, best)
        scale, noisy = scale * noise, Gaussian(noise_std=noise)
    # With unknown noise a place is no scale yet; the noise of the last fit is not quite that of its neighbours.
    shift = scale / _scale_at(points, at)
    ends = [None if end is None else shift * _scale_at(points, end) for end in interval(points)]
    steps = [
        Step(
            point.measured.scale, point.measured.held_out, point.measured.hyper, point.objective,
            point.measured.effective_parameters, point.measured.gradient, point.evaluations,
            point.measured.log_evidence,
        )
        for point in points
    ]  # fmt: skip
    return Found(scale, setting.at(scale), noisy, (ends[0], ends[1]), steps, "", said, ground.spent)


def _walked(setting: Setting, ground: FullBatch | Stochastic) -> Walked:
    """Walk from the prior as given; where a kink has an empty model, from the strongest prior that leaves it so."""
    if setting.linear and setting.prior.kinked() and isinstance(ground, FullBatch) and not setting.learns_noise:
        try:
            data = (setting.inputs, setting.targets)
            null = null_strength(setting.model, setting.prior, setting.likelihood, data)
        except UnsupportedError:
            null = 0.0
        if null > 0.0:
            return walk(ground, -math.log10(null), step=_NULL_STEP, only_weaker=True)
    if setting.learns_noise:
        spread = float(setting.targets.to(torch.float64).std()) or 1.0
        return walk(ground, _NOISE_START - math.log10(spread))
    return walk(ground)


def _at_centre(setting: Setting, ground: FullBatch | Stochastic) -> Found:
    """Fit at the middle of the hyperprior, where what could be held out would not tell."""
    middle = 0.0 if setting.hyperprior is None else setting.hyperprior.middle() / setting.hyperprior.power
    at = middle / math.log(10.0)
    state: Any = ground.begin(at)
    ground.finish(at, state)
    scale = 10.0**at
    said = (
        f"The strength was not chosen from these data but set by the hyperprior, to its middle of {scale:.3g}: with so "
        f"few examples of each class what is held out points the wrong way. A rehearsal on data of the source can set "
        f"the middle, hyperprior=br.hyperpriors.HalfCauchy(scale); method='folds' chooses all the same."
    )
    step = Step(scale, None, 0.0, 0.0, None, None, ground.spent)
    return Found(scale, setting.at(scale), setting.likelihood, (None, None), [step], "", {"centre": said}, ground.spent)


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
