"""A finding, and what findings are drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from bayesreg.conversion import LossScale
from bayesreg.explaining.groups.facts import GroupFacts
from bayesreg.explaining.groups.reading import GroupReading

__all__ = ["IDENTIFIERS", "Finding", "Severity", "Situation", "ranked"]

Severity: TypeAlias = Literal["warning", "note"]

#: What may be found, by name.
IDENTIFIERS = (
    "decoupled-decay", "decay-off", "start-half-forgotten", "start-forgotten", "bound", "schedule-not-read",
    "hidden-lambd", "ignored-decay", "unknown-decay", "clip-before-decay", "rounding", "biases-decayed",
    "not-held", "lost-hooks", "scale-invariant", "width", "decoupled-momentum", "missing-half", "subgradient",
    "soft-targets", "flat", "tied", "read-as", "regularizer-of-a-layer", "nuclear-norm",
    "norm-held", "cautious-decay", "corrected-decay", "pattern-unmatched",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing.

    Attributes:
        identifier: Its name in the documentation's table of findings, and of traps where a loop shows it.
        severity: "warning" if the prior is not what the settings seem to say, or at odds with the weights; else "note".
        text: What was found.
        remedy: What to do about it.
        importance: From 0 to 1: which share of the prior, over all weights, is not what it seems to be. Findings of
            one severity are in the order of this.
    """

    identifier: str
    severity: Severity
    text: str
    remedy: str
    importance: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.severity} [{self.identifier}]: {self.text} {self.remedy}".rstrip()


@dataclass(frozen=True)
class Situation:
    """All that the findings are drawn from.

    Attributes:
        groups: The facts.
        readings: Their readings, in the same order.
        loss_scale: s.
        scale_free: Weights in front of a norm, and the norm.
        gradient_norm: Norm of the gradients at hand, None if there are none.
        clip_norm: What the loop clips to, None if unknown, infinite if it is known not to clip.
        missing: Trainable parameters of the model that no group holds.
        tied: Parameters with several names.
        missing_share: Their share of the trainable elements.
    """

    groups: Sequence[GroupFacts]
    readings: Sequence[GroupReading]
    loss_scale: LossScale
    scale_free: Mapping[str, str]
    gradient_norm: float | None
    clip_norm: float | None
    missing: Sequence[str]
    tied: Sequence[str]
    missing_share: float = 0.0

    def share(self, reading: GroupReading) -> float:
        """Return the share of all weights that a group holds; 1 where numbers of elements are not known."""
        total = sum(r.elements for r in self.readings)
        return reading.elements / total if total else 1.0

    def decayed(self) -> Iterator[tuple[GroupFacts, GroupReading]]:
        """Yield the groups whose weights are pulled by the optimizer's own decay."""
        for facts, reading in zip(self.groups, self.readings, strict=True):
            if reading.decay not in ("prior", "none") and reading.weight_decay:
                yield facts, reading


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Return warnings before notes, each in the order of their importance."""
    return sorted(findings, key=lambda finding: (finding.severity != "warning", -finding.importance))
