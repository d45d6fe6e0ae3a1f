"""Which way of choosing serves a model, its prior and its data."""

from __future__ import annotations

from typing import NamedTuple

from bayesreg.curvature.precision import diagonal_precision
from bayesreg.errors import UnsupportedError
from bayesreg.priors.contract.asking import is_flat
from bayesreg.strength.setting import Setting

__all__ = ["NAMES", "Way", "route"]

_EXACT = ("evidence", "gcv")

NAMES = {
    "evidence": "the evidence",
    "gcv": "generalized cross-validation",
    "loo": "leave-one-out",
    "split": "a fifth of the data, held out",
    "folds": "each fifth of the data, held out in turn",
    "centre": "the middle of the hyperprior",
}

#: Examples times outputs up to which leave-one-out is affordable.
_ROWS = 2000
_HELD_OUT = 40
_PER_CLASS, _LEAST = 5, 2


class Way(NamedTuple):
    """How a strength is chosen.

    Attributes:
        method: By what.
        because: Why, in words, to be read after "as".
        exact: Whether all strengths come from one decomposition.
    """

    method: str
    because: str
    exact: bool = False


def route(setting: Setting, method: str) -> Way:
    """Return the method to use and why.

    Args:
        setting: What the choice is for.
        method: As asked for.

    Returns:
        The way.

    Raises:
        UnsupportedError: If the method that was asked for cannot serve.
    """
    if method in _EXACT and (why := _not_exact(setting)):
        raise UnsupportedError(f"method={method!r}: it cannot serve here, as {why}; leave method out.")
    if method == "loo" and _not_exact(setting) and (why := _no_leave_one_out(setting, asked=True)):
        raise UnsupportedError(f"method='loo': leave-one-out cannot serve here, as {why}; use method='folds'.")
    if setting.each and (why := _not_exact(setting)):
        raise UnsupportedError(
            f"groups='each': one scale for every weight needs the exact evidence, which does not serve here, as {why}; "
            f"give groups as rules."
        )
    if (setting.each or setting.groups) and method in ("loo", "gcv") and not _not_exact(setting):
        raise UnsupportedError(f"method={method!r}: groups of a linear model go by the evidence; leave method out.")
    if method != "auto":
        return Way(method, "it was asked for", exact=method in (*_EXACT, "loo") and not _not_exact(setting))
    n = len(setting.targets)
    if not _not_exact(setting):
        return Way("evidence", "the model is linear in its weights and the noise Gaussian, so that it is exact", True)
    why = _no_leave_one_out(setting)
    if not why:
        return Way("loo", f"{n} examples of {_counted(setting.outputs, 'output')} are few enough for it")
    if _too_few_per_class(setting):
        return Way("centre", why)
    if n // 5 >= _HELD_OUT:
        return Way("split", f"{why}, and a fifth of the data is {n // 5} examples")
    return Way("folds", f"{why}, and a fifth of the data alone, {n // 5} examples, is too few to decide by")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _not_exact(setting: Setting) -> str:
    if setting.training is not None:
        return "an optimizer was asked for"
    if not setting.linear:
        return "the model is not linear in its weights"
    if not setting.gaussian:
        return f"{setting.likelihood.describe()} is no Gaussian noise"
    if any(prior.quadratic() is None for _, prior in setting.prior.active()):
        return "not all priors are Gaussians of independent weights"
    return ""


def _no_leave_one_out(setting: Setting, *, asked: bool = False) -> str:
    """Return why leave-one-out from one fit does not serve; an empty string where it does."""
    n = len(setting.targets)
    if setting.training is not None:
        return "training in batches ends at no minimum"
    if setting.prior.kinked():
        return "the prior has kinks"
    if not all(prior.traits.convex for _, prior in setting.prior.active()):
        return "−log p of the prior is not convex"
    try:
        diagonal_precision(setting.prior)
    except UnsupportedError:
        return "the prior does not have a convex, diagonal curvature"
    if few := _too_few_per_class(setting):
        return few
    rows = n * setting.outputs
    if rows > (5 if asked else 1) * _ROWS:
        return f"{n} examples of {_counted(setting.outputs, 'output')} make matrices of {rows} rows"
    return ""


def _too_few_per_class(setting: Setting) -> str:
    """Return why what is left out of a class would not tell; an empty string where it does."""
    labels = setting.targets
    if labels.is_floating_point() or labels.ndim != 1:
        return ""
    per_class = len(labels) / max(setting.outputs, 2)
    centred = any(not is_flat(prior) and bool((prior.centre() != 0).any()) for _, prior in setting.prior.active())
    if centred and per_class < _PER_CLASS:
        return (
            f"the prior is centred on other weights, and with fewer than {_PER_CLASS} examples of a class leaving one "
            f"out takes much of what is known of its class away"
        )
    if per_class < _LEAST:
        return f"with fewer than {_LEAST} examples of a class leaving one out leaves nothing of its class"
    return ""
