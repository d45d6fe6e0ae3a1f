"""A model's prior with every −log p multiplied by one number."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from torch import Tensor

from bayesreg.errors import UnsupportedError
from bayesreg.model_prior.entry import Entry
from bayesreg.model_prior.model_prior import ModelPrior
from bayesreg.priors import FAMILIES, Belief, Gaussian, Traits
from bayesreg.priors.contract.asking import learns

__all__ = ["each_stretched", "stretched", "times"]

# Families that are made with their abilities declare none.
_NONE = Traits(proper=False, convex=False, smooth=False, elementwise=False, has_prox=False)


def times(prior: ModelPrior, factor: float, note: str, *, gaussian: bool = False) -> ModelPrior:
    """Return the prior with −log p multiplied, over the same model; flat parameters stay flat.

    Args:
        prior: The prior; unchanged.
        factor: > 0.
        note: A sentence for `describe()`.
        gaussian: Refuse all but Gaussians, whose covariance is divided by the factor.

    Returns:
        The prior.

    Raises:
        UnsupportedError: If a family cannot be, or a hyper-parameter is learned.
    """
    return _mapped(prior, lambda name, one: _one(name, one, factor, gaussian), note)


def stretched(prior: ModelPrior, factor: float, note: str, only: Collection[str] | None = None) -> ModelPrior:
    """Return the prior with the width of each density multiplied, over the same model; flat parameters stay flat.

    Args:
        prior: The prior; unchanged.
        factor: > 0; over 1 is wider, weaker.
        note: A sentence for `describe()`; empty for none.
        only: Names of the parameters whose prior changes; all by default.

    Returns:
        The prior.

    Raises:
        UnsupportedError: If a family cannot be, or a hyper-parameter is learned.
    """

    def wider(name: str, one: Belief) -> Belief:
        parabola = one.quadratic()
        if parabola is not None and parabola.flat:
            return one
        if learns(one):
            raise UnsupportedError(f"{name}: its prior has a learned hyper-parameter, which no factor rescales.")
        made = one.stretched(factor)
        if made is None:
            raise UnsupportedError(
                f"{name}: expected a prior of a width that can be multiplied, got {one.family}; a family of your own "
                f"says how in stretched(self, factor)."
            )
        return made

    return _mapped(prior, wider, note, only)


def each_stretched(prior: ModelPrior, factors: Mapping[str, Tensor], note: str) -> ModelPrior:
    """Return Gaussian priors with the width of each element multiplied by a factor of its own.

    Args:
        prior: The prior, a parabola on each of the parameters; unchanged.
        factors: > 0, of the parameter's shape, by name.
        note: A sentence for `describe()`.

    Returns:
        The prior.
    """
    entries = []
    for entry in prior:
        if entry.prior is None or entry.name not in factors:
            entries.append(entry)
            continue
        parabola = entry.prior.quadratic()
        assert parabola is not None
        scale = factors[entry.name] * parabola.variance**0.5
        made = Gaussian(scale=scale.to(entry.parameter.device), loc=entry.prior.centre())
        entries.append(Entry(entry.info, made, entry.rule))
    return ModelPrior._from_entries(entries, (*prior.notes, note))


def _mapped(
    prior: ModelPrior, change: Callable[[str, Belief], Belief], note: str, only: Collection[str] | None = None
) -> ModelPrior:
    """Return the prior with each density changed, one that several parameters have only once."""
    done: dict[int, Belief] = {}
    entries = []
    for entry in prior:
        if entry.prior is None or (only is not None and entry.name not in only):
            entries.append(entry)
            continue
        if id(entry.prior) not in done:
            done[id(entry.prior)] = change(entry.name, entry.prior)
        entries.append(Entry(entry.info, done[id(entry.prior)], entry.rule))
    return ModelPrior._from_entries(entries, (*prior.notes, note) if note else prior.notes)


def _one(name: str, prior: Belief, factor: float, gaussian: bool) -> Belief:
    parabola = prior.quadratic()
    if parabola is not None and parabola.flat:
        return prior
    if learns(prior):
        raise UnsupportedError(f"{name}: its prior has a learned hyper-parameter, which no factor rescales.")
    made = prior.times(factor) if prior.traits.gaussian or parabola is not None or not gaussian else None
    if made is None:
        kind = "a Gaussian prior" if gaussian else "a prior that stays in its family"
        known = [
            family for family, cls in FAMILIES.items()
            if cls.times is not Belief.times and (not gaussian or getattr(cls, "traits", _NONE).gaussian)
        ]  # fmt: skip
        raise UnsupportedError(
            f"{name}: expected {kind} ({', '.join(known)}), got {prior.family}"
            f"{'' if gaussian else '; a family of your own says how in times(self, factor)'}."
        )
    return made
