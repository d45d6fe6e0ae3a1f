"""Every error that bayesreg raises on purpose, so that `except br.BayesRegError` catches them all."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from bayesreg._text import one_line

__all__ = [
    "BayesRegError",
    "CheckpointError",
    "CheckpointWarning",
    "ClipAfterPriorWarning",
    "CoverageError",
    "DataError",
    "HeldNormWarning",
    "InvalidArgumentError",
    "NonFiniteObjectiveError",
    "NotEquivalentError",
    "OffScaleWarning",
    "OtherOptimizerWarning",
    "OvershootWarning",
    "PatternError",
    "PriorFileError",
    "ReferenceMismatchError",
    "RoundingWarning",
    "ShortWindowWarning",
    "UnknownLossError",
    "UnsupportedError",
    "ZerosLostWarning",
]


class BayesRegError(Exception):
    """Base class of every error that bayesreg raises on purpose; its text is one line that a terminal can print."""

    def __str__(self) -> str:
        # Names and texts of files end up in messages.
        return one_line(super().__str__())


class InvalidArgumentError(BayesRegError, ValueError):
    """An argument is outside its range, not finite, or of the wrong shape."""


class NotEquivalentError(BayesRegError, ValueError):
    """No weight decay (or no Gaussian prior) says the same thing; the message names what to do instead."""


class UnknownLossError(BayesRegError, TypeError):
    """The loss is not one whose scale bayesreg knows; the message says how to give the scale by hand."""


class PatternError(BayesRegError, ValueError):
    """A rule selects no parameter: its glob matches nothing, or earlier rules took all that it matches."""


class CoverageError(BayesRegError, ValueError):
    """A trainable parameter is covered by no rule, or an optimizer does not hold what the prior covers."""


class ReferenceMismatchError(BayesRegError, ValueError):
    """Reference weights do not fit the model; the message lists every missing, extra or mis-shaped tensor."""


class PriorFileError(BayesRegError, ValueError):
    """A prior or weights file is corrupt, truncated, pickled, from a newer version, or for another model."""


class CheckpointError(BayesRegError, ValueError):
    """A training run cannot be kept or resumed: what was expected of its folder, and what is in it."""


class UnsupportedError(BayesRegError, NotImplementedError):
    """The prior lacks an ability that the chosen route, solver or operation needs."""


class DataError(BayesRegError, ValueError):
    """The training data cannot be used as given."""


class NonFiniteObjectiveError(BayesRegError, ArithmeticError):
    """Training met a NaN or an infinity; the model holds the last good weights again.

    Attributes:
        epoch: The epoch, counted from 1, in which it happened; 0 outside a trainer.
        batch: The batch within the epoch, counted from 1; 0 outside a trainer.
        parameter: The name of the first parameter whose value or gradient is not finite, or None.
    """

    def __init__(self, message: str, *, epoch: int, batch: int, parameter: str | None) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.batch = batch
        self.parameter = parameter


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged and the one before it is used, or a run cannot be resumed at every step."""


class ClipAfterPriorWarning(UserWarning):
    """Gradients are clipped before the prior is added to them, so that it counts for more than it says."""


class OtherOptimizerWarning(UserWarning):
    """An optimizer without a prior steps weights whose prior is attached to another one."""


class OvershootWarning(UserWarning):
    """The prior's pull is so strong for the learning rate that the step diverges from it alone."""


class OffScaleWarning(UserWarning):
    """Residuals are so many noise standard deviations that the noise cannot be what was said."""


class HeldNormWarning(UserWarning):
    """The norm of weights is held fixed by the training loop, so a prior centred at zero cannot act on them."""


class RoundingWarning(UserWarning):
    """A prior's pull per step is smaller than the weights' dtype can hold."""


class ShortWindowWarning(UserWarning):
    """A framework accumulates fewer batches in the last step of an epoch, and divides as if they were all there."""


class StrengthWarning(UserWarning):
    """The strength of a prior was chosen from data that do not bear it out."""


class ZerosLostWarning(UserWarning):
    """Weights that a proximal step has put exactly on 0 are moved off it before the next one."""


def nearest(name: str, candidates: Iterable[str], limit: int = 3) -> str:
    """Return "; did you mean 'a', 'b'?" for the closest candidates, or an empty string."""
    close = difflib.get_close_matches(name, list(candidates), n=limit, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def kind_of(thing: object) -> str:
    """Return what an argument of a wrong type is, in words: its class, or the class itself where one was given."""
    if isinstance(thing, type):
        return f"the class {thing.__name__}; make one, {thing.__name__}(...)"
    return type(thing).__name__
