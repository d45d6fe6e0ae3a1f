"""What there is to say of a prior, besides its numbers."""

from __future__ import annotations

from dataclasses import dataclass

from bayesreg._support.calls import answering_class

__all__ = ["Remarks"]


@answering_class
@dataclass(frozen=True)
class Remarks:
    """Sentences for tables and errors; None where there is nothing to say.

    Attributes:
        no_map: Why −log p has no minimum to train to, and what to use.
        improper: Why the density is not normalised.
        no_decay: Why no `weight_decay` is this prior, and what to use. Only where a loss scale was given.
        near: What comes nearest to a weight decay. Only where a loss scale was given.
        caution: What a user should know of the MAP of a parameter of this shape. Only where a shape was given.
    """

    no_map: str | None = None
    improper: str | None = None
    no_decay: str | None = None
    near: str | None = None
    caution: str | None = None
