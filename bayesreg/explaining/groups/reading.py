"""One param group read as a prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayesreg._support.sharding import local
from bayesreg.conversion import LossScale
from bayesreg.explaining.groups.facts import GroupFacts
from bayesreg.horizon.forgetting import Horizon, horizon_of
from bayesreg.horizon.plan import Plan
from bayesreg.optimizers.attached import MARK
from bayesreg.optimizers.bounds import bound_of
from bayesreg.optimizers.decay import CORRECTED
from bayesreg.optimizers.step_size import has_metric
from bayesreg.routes.pulls.decoupled import implied_precision

__all__ = ["GroupReading", "ImpliedPrecision", "forgets", "peak_rate", "read_group", "steps_done", "with_horizons"]


@dataclass(frozen=True)
class ImpliedPrecision:
    """The per-coordinate precision that a decoupled decay stands for at this moment, over a group's coordinates.

    Attributes:
        low: 5 % of the coordinates are below.
        median: The median.
        high: 95 % of the coordinates are below.
        matched: The one precision P with the same penalty at these weights, Σ Pᵢ wᵢ² = P Σ wᵢ²; None without weights.
    """

    low: float
    median: float
    high: float
    matched: float | None


@dataclass(frozen=True)
class GroupReading:
    """What one param group believes about its weights.

    Attributes:
        group: Its index.
        parameters: Names.
        roles: How many tensors are weights, biases, norms, vectors, embeddings.
        parameter_roles: The role of each.
        elements: Number of weights.
        decay: "coupled", "decoupled", "cautious", "held", "none", "other", "unknown", or "prior" where bayesreg has
            attached one.
        weight_decay: As set (hidden decay such as ASGD's included).
        prior: The prior in words.
        mean: The implied prior mean; None where no Gaussian is implied.
        std: Its standard deviation; infinite for a flat prior.
        variance: Its variance.
        implied: For decoupled decay, the precision per coordinate, if the state tells.
        weights_rms: Root mean square of the weights, None if they are not at hand.
        offset_rms: The same of their distance from the prior's centre.
        horizon: What the decay makes of the start of the run; None where its length is not known, or the decay has no
            such reading.
    """

    group: int
    parameters: tuple[str, ...]
    roles: dict[str, int]
    elements: int
    decay: str
    weight_decay: float | None
    prior: str
    mean: float | None
    std: float | None
    variance: float | None
    implied: ImpliedPrecision | None
    weights_rms: float | None
    offset_rms: float | None = None
    horizon: Horizon | None = None
    parameter_roles: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "horizon": None if self.horizon is None else self.horizon.to_dict()}


def read_group(facts: GroupFacts, loss_scale: LossScale) -> GroupReading:
    """Read a param group as a prior."""
    decay = float(facts.settings.get("weight_decay") or 0.0) + facts.rule.extra_decay
    kind: str = facts.rule.kind
    words, variance, implied = "", None, None
    mean: float | None = 0.0
    if facts.prior is not None:
        kind, words = "prior", f"{facts.prior.describe()} (attached, route {facts.route})"
        parabola, centre = facts.prior.quadratic(), facts.prior.centre()
        found = facts.prior.variance() if parabola is None else parabola.variance
        variance = None if isinstance(found, Tensor) else found
        mean = None if centre.ndim else float(centre)
        strength = None if parabola is None else parabola.strength(loss_scale)
        decay_shown = strength if isinstance(strength, float) else None
    else:
        decay_shown = decay
        if kind == "none":
            # A key that the optimizer never looks at.
            decay_shown = decay = 0.0
        if decay == 0.0 and MARK in facts.settings and not facts.attached:
            words, mean = "not told: a bayesreg prior was attached", None
        elif kind == "held":
            words, mean = "uniform on a sphere: the norm of matrices is held", None
        elif facts.rule.hidden:
            words, mean = "unknown: a decay under another name", None
        elif decay == 0.0:
            words, variance = "flat: no decay", math.inf
        elif (examples := _examples_of_ivon(facts)) is not None:
            # Its mean moves by (gradient + δw)/(h + δ): coupled, through a metric, and n is its own.
            kind, variance = "coupled", 1.0 / (examples * decay)
            words = f"Gaussian, std {math.sqrt(variance):.4g}, centred on 0 (by ess={examples:g})"
        elif kind == "coupled":
            variance = loss_scale.value / decay
            words = f"Gaussian, std {math.sqrt(variance):.4g}, centred on 0"
        else:
            mean = None
            implied = _implied(facts, decay, loss_scale)
            bound = bound_of(facts.rule.name, decay) if kind == "decoupled" else None
            words = _decoupled_words(kind, implied, has_metric(facts.cls, facts.settings))
            if bound is not None:
                words = (
                    f"no Gaussian; bounds {'singular values' if bound.spectral else 'each weight'} by {bound.size:.4g}"
                )
    return GroupReading(
        group=facts.index,
        parameters=tuple(p.name for p in facts.parameters),
        roles=_roles(facts),
        parameter_roles=tuple(p.role for p in facts.parameters),
        elements=sum(p.elements for p in facts.parameters),
        decay=kind,
        weight_decay=decay_shown,
        prior=words,
        mean=mean if variance is not None and math.isfinite(variance) else None,
        std=None if variance is None else math.sqrt(variance),
        variance=variance,
        implied=implied,
        weights_rms=_rms(facts),
        offset_rms=_rms(facts, about_centre=True),
    )


def _examples_of_ivon(facts: GroupFacts) -> float | None:
    """Return what IVON takes for the number of examples; None for other optimizers."""
    if facts.rule.name != "IVON" or "hess_init" not in facts.settings:
        return None
    examples = facts.settings.get("ess")
    return float(examples) if isinstance(examples, int | float) and 0.0 < examples < math.inf else None


def with_horizons(
    groups: Sequence[GroupFacts], readings: Sequence[GroupReading], plan: Plan | None
) -> list[GroupReading]:
    """Return readings with what their decay makes of the start of a run.

    Args:
        groups: The facts.
        readings: Their readings.
        plan: The run; None: not known.

    Returns:
        The readings.
    """
    if plan is None:
        return list(readings)
    rates = plan.rates([peak_rate(facts) for facts in groups], [facts.settings for facts in groups])
    found = []
    for facts, reading, rate in zip(groups, readings, rates, strict=True):
        kind, decay = forgets(facts), reading.weight_decay
        if kind is None or not decay:
            found.append(reading)
            continue
        if is_corrected(facts) and (peak := peak_rate(facts)):
            rate = rate * rate / peak
        horizon = horizon_of(kind, decay, rate, facts.settings, epochs=plan.epochs, done=steps_done(facts))
        found.append(replace(reading, horizon=horizon))
    return found


def is_corrected(facts: GroupFacts) -> bool:
    """Return whether a decoupled decay goes by the square of the learning rate, over the largest one (AdamC).

    Args:
        facts: The group.
    """
    # pytorch_optimizer's AdamC does so in groups that are said to stand before a normalisation.
    own = facts.settings.get("normalized") if facts.rule.name == "AdamC" else facts.settings.get(CORRECTED)
    return facts.rule.kind == "decoupled" and bool(own)


def forgets(facts: GroupFacts) -> str | None:
    """Return how a group's decay shortens its weights by itself: "decoupled", "coupled" by SGD, or None: it does not.

    Args:
        facts: The group.
    """
    steady = facts.cls is torch.optim.SGD
    if facts.prior is not None:
        if facts.route == "decoupled":
            return "decoupled"
        by_gradient = (facts.route or "").startswith(("native", "gradient"))
        return "coupled" if steady and by_gradient else None
    if facts.rule.hidden or facts.rule.extra_decay:
        return None
    if facts.rule.kind == "decoupled":
        return "decoupled"
    # An adaptive optimizer divides a coupled decay by what it divides the gradient by.
    return "coupled" if facts.rule.kind == "coupled" and steady else None


def steps_done(facts: GroupFacts) -> int | None:
    """Return how many steps a group has taken, by the state of its optimizer."""
    counts = [parameter.state.get("step") for parameter in facts.parameters]
    known = [int(count) for count in counts if isinstance(count, int | float | Tensor) and not _is_meta(count)]
    return max(known, default=None)


def _is_meta(count: object) -> bool:
    return isinstance(count, Tensor) and (count.is_meta or count.numel() != 1)


def _decoupled_words(kind: str, implied: ImpliedPrecision | None, readable: bool) -> str:
    if kind == "cautious":
        return "none at rest: decay acts only along the update"
    if kind != "decoupled":
        return "unknown: not a decay that is added to the gradient"
    if implied is None:
        return f"no Gaussian; differs by coordinate{' (no state to read it from)' if readable else ''}"
    low, high = implied.high**-0.5, implied.low**-0.5 if implied.low else math.inf
    return f"no Gaussian; per coordinate, std {implied.median**-0.5:.3g} (5% to 95%: {low:.3g} to {high:.3g})"


def _implied(facts: GroupFacts, decay: float, loss_scale: LossScale) -> ImpliedPrecision | None:
    if facts.rule.kind != "decoupled" or facts.rule.probed:
        return None
    settings = {**facts.settings, "lr": peak_rate(facts) or 1.0}
    samples, pulls, squares = [], 0.0, 0.0
    for parameter in facts.parameters:
        found = implied_precision(facts.cls, parameter.state, settings, decay, loss_scale)
        if not isinstance(found, Tensor):
            continue
        flat = found.detach().double().reshape(-1)
        samples.append(flat[:: max(1, len(flat) // 100_000)].cpu())
        if parameter.value is not None:
            square = local(parameter.value).to(flat.device).double().square().reshape(-1)
            pulls, squares = pulls + float(square @ flat), squares + float(square.sum())
    if not samples:
        return None
    levels = torch.quantile(torch.cat(samples)[:10_000_000], torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64))
    low, median, high = levels.tolist()
    return ImpliedPrecision(low, median, high, pulls / squares if squares else None)


def peak_rate(facts: GroupFacts) -> float:
    """Return the largest learning rate that the group's settings tell of: schedulers leave it there."""
    return max(float(facts.settings.get(key) or 0.0) for key in ("lr", "initial_lr", "max_lr"))


def _roles(facts: GroupFacts) -> dict[str, int]:
    counts: dict[str, int] = {}
    for parameter in facts.parameters:
        counts[parameter.role] = counts.get(parameter.role, 0) + 1
    return counts


def _rms(facts: GroupFacts, *, about_centre: bool = False) -> float | None:
    values = [
        local(p.value) - p.centre.to(p.value.device) if about_centre and p.centre is not None else local(p.value)
        for p in facts.parameters
        if p.value is not None
    ]
    count = sum(v.numel() for v in values)
    return math.sqrt(sum(float(v.float().square().sum()) for v in values) / count) if count else None
