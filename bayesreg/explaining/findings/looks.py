"""What is worth knowing about an optimizer's decay, most important first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.optim import ASGD, SGD

from bayesreg._support.sharding import local
from bayesreg._support.tables import in_short
from bayesreg.explaining.findings.finding import Finding, Situation, ranked
from bayesreg.explaining.findings.pairs import pairs_findings
from bayesreg.explaining.findings.run import how_near_rest, run_findings, turned
from bayesreg.explaining.groups.reading import is_corrected, peak_rate
from bayesreg.optimizers import steady_gain
from bayesreg.optimizers.attached import MARK
from bayesreg.optimizers.step_size import has_metric
from bayesreg.routes.watches.rounding import lost_to_rounding

__all__ = ["find"]


def find(situation: Situation) -> list[Finding]:
    """Return the findings, in the order of how much they matter."""
    return ranked(finding for look in _LOOKS for finding in look(situation))


def _decoupled(situation: Situation) -> Iterator[Finding]:
    for facts, reading in situation.decayed():
        if reading.decay != "decoupled":
            continue
        name, decay = facts.rule.name, reading.weight_decay
        text = (
            f"Group {reading.group}: {name} decays the weights apart from the gradient, so weight_decay={decay:g} "
            f"is no Gaussian prior; its strength differs by coordinate, batch size and schedule."
        )
        matched = reading.implied.matched if reading.implied is not None else None
        if matched:
            strength = matched * situation.loss_scale.value
            remedy = (
                f"The Gaussian that pulls about as much on these weights is br.Gaussian(scale={matched**-0.5:.3g}), a "
                f"weight_decay of {strength:.3g} if it were coupled: build {name} with weight_decay=0 and br.attach it."
                f"{how_near_rest(facts, reading)}{_after_clip(situation, matched)}"
            )
        else:
            remedy = "For a prior that can be named, set weight_decay=0 and br.attach one"
            clip = situation.clip_norm if situation.clip_norm != math.inf else None
            remedy += "." if clip is None else f", with before_clip=True as gradients are clipped to {clip:g}."
            if has_metric(facts.cls, facts.settings):
                remedy += (
                    " Explain again after some steps (or a checkpoint with its weights) for the Gaussian that pulls "
                    "about as much."
                )
        yield Finding("decoupled-decay", "warning", text, remedy, situation.share(reading))


def _after_clip(situation: Situation, precision: float) -> str:
    """Say what a clip does to the advice: the second moment is that of clipped gradients."""
    clip, norm = situation.clip_norm, situation.gradient_norm
    if clip == math.inf:
        return ""
    if clip is None:
        return " If the loop clips gradients, pass clip_norm= to hear what that changes."
    if norm is not None and norm <= clip:
        return ""
    if norm is None:
        return (
            f" That is for a prior added after the clip to {clip:g}; with before_clip=True divide its precision by "
            f"E min(1, {clip:g}/|g|), which gradients at hand (before their clip) would tell."
        )
    return (
        f" That is for a prior added after the clip; with before_clip=True, where the prior is clipped with the data "
        f"(to {clip / norm:.3g} of its size now), it is br.Gaussian(scale={(precision * norm / clip) ** -0.5:.3g})."
    )


def _not_understood(situation: Situation) -> Iterator[Finding]:
    for facts in situation.groups:
        if facts.rule.hidden:
            yield Finding(
                "unknown-decay", "warning",
                f"Group {facts.index}: {facts.rule.name} moves weights whose gradient is zero: decay by another name.",
                "Turn it off and br.attach a prior.", 1.0,
            )  # fmt: skip
    for facts, reading in situation.decayed():
        if reading.decay in ("other", "unknown"):
            why = "neither coupled nor decoupled" if reading.decay == "other" else "something that could not be probed"
            yield Finding(
                "unknown-decay", "warning",
                f"Group {reading.group}: {facts.rule.name} does with weight_decay={reading.weight_decay:g} {why}.",
                "Set weight_decay=0 and br.attach a prior.", situation.share(reading),
            )  # fmt: skip


def _of_its_own_kind(situation: Situation) -> Iterator[Finding]:
    for facts, reading in zip(situation.groups, situation.readings, strict=True):
        if facts.prior is None and facts.rule.kind == "held":
            yield Finding(
                "norm-held", "note",
                f"Group {facts.index}: {facts.rule.name} holds the norm of each matrix: what it believes is uniform on "
                f"a sphere of that radius, and neither a decay nor a Gaussian around 0 can act on it.",
                "A prior around reference weights can; vectors are mostly left free.", situation.share(reading),
            )  # fmt: skip
    for facts, reading in situation.decayed():
        if reading.decay == "cautious":
            yield Finding(
                "cautious-decay", "warning",
                f"Group {reading.group}: {facts.rule.name} shrinks weights only where the update shrinks them too, so "
                f"weight_decay={reading.weight_decay:g} is no prior: at rest the weights are those without it.",
                "For a prior, set weight_decay=0 and br.attach one.", situation.share(reading),
            )  # fmt: skip
        if is_corrected(facts):
            yield Finding(
                "corrected-decay", "note",
                f"Group {reading.group}: decay goes by the square of the learning rate, a step shrinks weights by "
                f"lr²/lr_max·{reading.weight_decay:g}: in front of a normalisation the ratio of gradients to weights "
                f"then stays as it is while the rate falls.",
                "Where nothing normalises, it is decoupled decay that fades with the schedule.",
                situation.share(reading),
            )  # fmt: skip


def _ignored(situation: Situation) -> Iterator[Finding]:
    for facts, reading in zip(situation.groups, situation.readings, strict=True):
        if facts.rule.kind == "none" and facts.settings.get("weight_decay"):
            yield Finding(
                "ignored-decay", "warning",
                f"Group {facts.index} sets weight_decay={facts.settings['weight_decay']:g}, which {facts.rule.name} "
                f"never looks at: its weights have no prior.",
                "br.attach brings a prior to it by the gradient.", situation.share(reading),
            )  # fmt: skip


def _left_behind(situation: Situation) -> Iterator[Finding]:
    left = [facts for facts in situation.groups if MARK in facts.settings and not facts.attached]
    if left:
        yield Finding(
            "lost-hooks", "warning",
            f"{len(left)} param group{'s' if len(left) > 1 else ''} had a bayesreg prior attached, which copies and "
            f"checkpoints do not take along: only what it left to the optimizer's own decay is shown.",
            "In a run, br.attach it again or br.detach(optimizer); from a file, its strength cannot be told.", 1.0,
        )  # fmt: skip


def _hidden(situation: Situation) -> Iterator[Finding]:
    for facts, reading in situation.decayed():
        if facts.rule.extra_decay:
            part = facts.rule.extra_decay / float(reading.weight_decay or 1.0)
            yield Finding(
                "hidden-lambd", "warning",
                f"Group {reading.group}: {facts.rule.name} decays by lambd={facts.rule.extra_decay:g} on top of "
                f"weight_decay; both are counted above.",
                "Pass lambd=0 for weight_decay alone.", part * situation.share(reading),
            )  # fmt: skip


_USUALLY_FLAT = ("bias", "norm", "vector")


def _biases(situation: Situation) -> Iterator[Finding]:
    names = [
        p.name for facts, _ in situation.decayed() for p in facts.parameters if p.role in _USUALLY_FLAT and p.trainable
    ]
    if names:
        yield Finding(
            "biases-decayed", "warning",
            f"Biases, normalisation parameters or other vectors are decayed too: {in_short(names)}.",
            "A flat prior on them is usual: param groups from br.ModelPrior(model, br.Gaussian(...)).param_groups().",
            _share_of_biases(situation),
        )  # fmt: skip


def _share_of_biases(situation: Situation) -> float:
    """Return the share of the penalty that is on biases, norms and vectors; without values, of the elements."""
    on_them, total = 0.0, 0.0
    for facts, reading in situation.decayed():
        for p in facts.parameters:
            size = float(p.elements) if p.value is None else float(local(p.value).double().square().sum())
            here = size * float(reading.weight_decay or 0.0)
            total += here
            on_them += here if p.role in _USUALLY_FLAT else 0.0
    return on_them / total if total else 0.0


def _rounding(situation: Situation) -> Iterator[Finding]:
    for facts, reading in situation.decayed():
        if reading.decay not in ("coupled", "decoupled") or facts.cls is None:
            continue
        steady = issubclass(facts.cls, SGD | ASGD)
        pull = peak_rate(facts) * (steady_gain(facts.settings) if steady else 1.0) * float(reading.weight_decay or 0.0)
        for dtype in dict.fromkeys(p.dtype for p in facts.parameters if p.dtype.is_floating_point):
            counts = reading.decay == "decoupled" or (steady and torch.finfo(dtype).bits < 32)
            if counts and lost_to_rounding(pull, dtype):
                yield Finding(
                    "rounding", "warning",
                    f"Group {reading.group}: lr times weight_decay is {pull:.2g}, less than {dtype} can resolve "
                    f"({torch.finfo(dtype).eps / 2:.2g}): the decay alone never moves a weight.",
                    "Keep the weights in float32 (mixed precision by autocast does).", situation.share(reading),
                )  # fmt: skip


def _missing(situation: Situation) -> Iterator[Finding]:
    if situation.missing:
        yield Finding(
            "not-held", "warning",
            f"{len(situation.missing)} trainable parameters are in no param group and will not move: "
            f"{in_short(situation.missing)}.",
            "If another optimizer holds them, explain both: br.explain([first, second], model, ...).",
            situation.missing_share,
        )  # fmt: skip


def _clip(situation: Situation) -> Iterator[Finding]:
    coupled = [r for _, r in situation.decayed() if r.decay == "coupled"]
    share = min(1.0, sum(map(situation.share, coupled)))
    if not coupled or situation.clip_norm == math.inf:
        return
    clip, norm = situation.clip_norm, situation.gradient_norm
    remedy = "br.attach(..., before_clip=True) adds the prior before the clip, which keeps its strength."
    if clip is None:
        text = (
            "If the loop clips gradients, decay acts after the clip: wherever that clips, the prior counts (norm of "
            "the gradients)/(clip) times as much."
        )
        yield Finding("clip-before-decay", "note", text, remedy, 0.1 * share)
    elif norm is None:
        text = (
            f"Gradients are clipped to {clip:g} and decay acts after that: wherever it clips, the prior counts (norm "
            f"of the gradients)/{clip:g} times as much."
        )
        yield Finding("clip-before-decay", "warning", text, remedy, 0.5 * share)
    elif norm > clip:
        text = (
            f"Gradients are clipped to {clip:g} and their norm is {norm:.3g} now: decay, which acts after the clip, "
            f"counts {norm / clip:.3g} times as much, a prior std {math.sqrt(clip / norm):.3g} times the one above."
        )
        yield Finding("clip-before-decay", "warning", text, remedy, (1.0 - clip / norm) * share)


def _scale_free(situation: Situation) -> Iterator[Finding]:
    pulled = [
        p.name
        for facts, reading in zip(situation.groups, situation.readings, strict=True)
        if reading.weight_decay or (reading.decay == "prior" and reading.variance not in (None, math.inf))
        for p in facts.parameters
        if p.name in situation.scale_free
    ]
    if pulled:
        many = len(pulled) > 1
        more = f" and {len(pulled) - 1} more" if many else ""
        yield Finding(
            "scale-invariant", "note",
            f"{len(pulled)} decayed weight{'s stand' if many else ' stands'} in front of a normalisation that removes "
            f"the scale ({pulled[0]} before {situation.scale_free[pulled[0]]}{more}): there the prior does not "
            f"change the function, it keeps the weights short and so the effective learning rate, lr/|w|², high."
            f"{turned(situation, pulled)}",
            "Do not read the std above as a belief about them.",
            _share_of(situation, pulled),
        )  # fmt: skip


def _share_of(situation: Situation, names: Sequence[str]) -> float:
    """Return the share of all elements that these parameters hold."""
    sizes = {p.name: p.elements for facts in situation.groups for p in facts.parameters}
    return sum(sizes[name] for name in names) / max(sum(sizes.values()), 1)


def _width(situation: Situation) -> Iterator[Finding]:
    for reading in situation.readings:
        rms, std = reading.offset_rms, reading.std
        about = "" if reading.mean == 0.0 else " about their centre"
        if not rms or std is None or not math.isfinite(std) or "weight" not in reading.roles:
            continue
        if std > 30 * rms:
            text = (
                f"Group {reading.group}: the prior's std {std:.3g} is {std / rms:.0f} times the weights' rms "
                f"{rms:.3g}{about}."
            )
            missed = (1.0 - (rms / std) ** 2) * situation.share(reading)
            yield Finding("width", "warning", text, "It hardly acts on weights of this size.", missed)
        elif std < rms / 3:
            text = (
                f"Group {reading.group}: the weights' rms {rms:.3g}{about} is {rms / std:.1f} prior stds ({std:.3g})."
            )
            remedy = "The prior is at odds with where the weights are, or training is young."
            yield Finding("width", "warning", text, remedy, (1.0 - (std / rms) ** 2) * situation.share(reading))


def _flat(situation: Situation) -> Iterator[Finding]:
    if situation.readings and all(r.std is not None and math.isinf(r.std) for r in situation.readings):
        yield Finding(
            "flat", "note", "Nothing is decayed: the fit is maximum likelihood.", "br.attach(optimizer, prior, ...)."
        )


def _tied(situation: Situation) -> Iterator[Finding]:
    if situation.tied:
        text = f"Tied weights are decayed once, as one tensor: {in_short(situation.tied)}."
        yield Finding("tied", "note", text, "")


_LOOKS: tuple[Callable[[Situation], Iterator[Finding]], ...] = (
    _left_behind, _decoupled, _of_its_own_kind, _not_understood, _ignored, _hidden, _clip, _rounding, _biases, _missing,
    _scale_free, _width, _flat, _tied, run_findings, pairs_findings,
)  # fmt: skip
