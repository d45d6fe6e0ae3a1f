"""One parameter of a model and its prior."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from bayesreg.priors import Belief
from bayesreg.selection import ParameterInfo

__all__ = ["Entry", "active"]


@dataclass(frozen=True)
class Entry:
    """One parameter and its prior.

    Attributes:
        info: The parameter, with its names and owner.
        prior: Its prior, or its part of a density over several; None only for a frozen parameter that no rule covers.
        rule: The rule that gave it, as text.
    """

    info: ParameterInfo
    prior: Belief | None
    rule: str

    @property
    def name(self) -> str:
        """The parameter's name in the plain model."""
        return self.info.name

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter, as it is now."""
        return self.info.parameter


def active(entries: Iterable[Entry]) -> list[tuple[Entry, Belief]]:
    """Return the entries that count now, covered and trainable, with their priors."""
    return [(e, e.prior) for e in entries if e.prior is not None and e.parameter.requires_grad]
