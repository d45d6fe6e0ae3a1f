"""What is worth knowing of a run as a whole: what its decay makes of the start."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bayesreg._support.sharding import local
from bayesreg.explaining.findings.finding import Finding, Situation
from bayesreg.explaining.groups.facts import GroupFacts
from bayesreg.explaining.groups.reading import GroupReading, forgets, peak_rate, steps_done
from bayesreg.horizon.forgetting import Horizon
from bayesreg.horizon.turning import Turning, turning
from bayesreg.optimizers.bounds import bound_of

__all__ = ["how_near_rest", "run_findings", "turned"]

# Elements of a matrix whose singular values are computed.
_LARGEST = 4_000_000


def run_findings(situation: Situation) -> Iterator[Finding]:
    """Yield what decay makes of the start, a finding per regime; and the bound that some optimizers' decay is."""
    seen = [(f, r, r.horizon) for f, r in situation.decayed() if r.horizon is not None]
    for regime in ("off", "between", "forgotten"):
        for kind in ("decoupled", "coupled"):
            found = [(r, h) for f, r, h in seen if h.regime == regime and forgets(f) == kind]
            if found:
                yield _of_regime(situation, found, kind)
    yield from _bounds(situation)


def _of_regime(situation: Situation, found: Sequence[tuple[GroupReading, Horizon]], kind: str) -> Finding:
    """Return what there is to say of groups of one regime, with the numbers of the first."""
    reading, horizon = found[0]
    left = (
        f"{_named(found)}: over {horizon.steps:,} steps decay leaves {_percent(horizon.share_left)} of the start (k = "
        f"{horizon.decay_sum:.3g}; it remembers {_memory(horizon)})"
    )
    share = _share(situation, found)
    if horizon.regime == "between":
        text = f"{left}: neither off nor at rest, so what it does depends on how long the run is."
        return Finding("start-half-forgotten", "note", text, "", share)
    if horizon.regime == "forgotten":
        return Finding("start-forgotten", "note", f"{left}: the start plays no part any more.", "", share)
    if kind == "coupled":
        text = f"{left}: where the data say nothing, weights stay where they began, whatever the prior."
        return Finding("decay-off", "note", text, "A longer run or a larger learning rate lets it be seen.", share)
    return Finding(
        "decay-off", "warning", f"{left}: weight_decay={reading.weight_decay:g} is as good as off.",
        "For a belief about the weights, br.attach a prior: its strength goes with n, not with rates and steps.", share,
    )  # fmt: skip


def _named(found: Sequence[tuple[GroupReading, Horizon]]) -> str:
    indices = list(dict.fromkeys(reading.group for reading, _ in found))
    return f"Group{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"


def _share(situation: Situation, found: Sequence[tuple[GroupReading, Horizon]]) -> float:
    return min(1.0, sum(situation.share(reading) for reading, _ in found))


def _percent(share: float) -> str:
    if abs(share) < 1e-4:
        return f"{100.0 * share:.1g} %"
    # As many nines as there are.
    missing = abs(1.0 - share)
    digits = 2 if missing >= 1e-4 else min(8, 1 - math.floor(math.log10(100.0 * missing))) if missing else 2
    return f"{100.0 * share:.{digits if share > 0.9 else 1}f} %"


def _memory(horizon: Horizon) -> str:
    words = f"{horizon.memory:,.0f} steps" if horizon.memory < 1e12 else "nothing"
    if horizon.memory_epochs is not None and horizon.memory < 1e12:
        words += f", {_few(horizon.memory_epochs)} epochs"
    share = horizon.memory_share
    return words + (f", {100.0 * share:.2g} % of the run" if share < 1.0 else f", {_few(share)} times the run")


def _few(number: float) -> str:
    return f"{number:,.0f}" if number >= 100.0 else f"{number:.3g}"


def how_near_rest(facts: GroupFacts, reading: GroupReading) -> str:
    """Return what the steps so far make of a reading of weights at rest; an empty string where nothing is to say.

    Args:
        facts: The group.
        reading: Its reading.
    """
    done, horizon = steps_done(facts), reading.horizon
    if horizon is not None:
        left = horizon.share_left if horizon.left_now is None else horizon.left_now
        now = f"after {done:,} of {horizon.steps:,} steps" if done is not None else f"after {horizon.steps:,} steps"
    else:
        pull = peak_rate(facts) * float(reading.weight_decay or 0.0)
        if done is None or not pull or pull >= 1.0 or forgets(facts) != "decoupled":
            return ""
        left, now = math.exp(done * math.log1p(-pull)), f"after {done:,} steps at {peak_rate(facts):.3g}"
    if abs(left) < 0.05:
        return ""
    weight = "nothing yet" if left > 0.95 else "little yet"
    return f" It is of weights at rest: {now} {_percent(left)} of the start is left, so it says {weight}."


def turned(situation: Situation, names: Sequence[str]) -> str:
    """Return by which angle steps turn weights in front of a normalisation, in words; empty where it is not known.

    Args:
        situation: The situation.
        names: Of these weights.
    """
    for facts, reading in zip(situation.groups, situation.readings, strict=True):
        kind, decay = forgets(facts), reading.weight_decay
        if kind is None or not decay or not any(p.name in names for p in facts.parameters) or facts.prior is not None:
            continue
        found: Turning | None = turning(facts.cls, kind, peak_rate(facts), decay, facts.settings)
        if found is not None:
            size = "" if found.rms is None else f"their rms goes to {found.rms:.3g} and "
            return f" Where gradients are mostly noise, {size}a step turns them by {found.angle:.2g} radians."
    return ""


def _bounds(situation: Situation) -> Iterator[Finding]:
    for facts, reading in situation.decayed():
        bound = bound_of(facts.rule.name, float(reading.weight_decay or 0.0))
        if bound is None or facts.rule.kind != "decoupled":
            continue
        near, count = 0, 0
        for parameter in facts.parameters:
            sizes = _sizes(parameter.value, spectral=bound.spectral)
            if sizes is not None:
                limit = bound.size * bound.gain(parameter.shape, facts.settings)
                near, count = near + int((sizes > 0.9 * limit).sum()), count + sizes.numel()
        what = "singular values" if bound.spectral else "weights"
        seen = f"; {100.0 * near / count:.3g} % of its {what} are within a tenth of that" if count else ""
        yield Finding(
            "bound", "note",
            f"Group {reading.group}: with {facts.rule.name}, weight_decay={reading.weight_decay:g} bounds "
            f"{'the largest singular value of each matrix' if bound.spectral else 'each weight'} by about "
            f"{bound.words}{seen}.",
            "Inside the bound there is no pull to zero that lasts; for one, set weight_decay=0 and br.attach a prior.",
            situation.share(reading),
        )  # fmt: skip


def _sizes(value: Tensor | None, *, spectral: bool) -> Tensor | None:
    if value is None or not value.is_floating_point():
        return None
    here = local(value).detach().double()
    if not spectral:
        return here.abs().reshape(-1)
    if here.ndim != 2 or here.numel() > _LARGEST or not here.numel():
        return None
    sizes: Tensor = torch.linalg.svdvals(here)
    return sizes
