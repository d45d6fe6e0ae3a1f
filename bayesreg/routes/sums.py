"""Sums over what an optimizer holds: each density once, whether it is over one parameter or several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from bayesreg._support.sharding import gather_sum, local
from bayesreg.priors import Prior
from bayesreg.priors.contract.joint import SingleTerm, Term
from bayesreg.routes.planning.plan import Planned

__all__ = ["constant_of", "joint_terms", "penalty_of"]


def joint_terms(terms: Iterable[Term]) -> dict[str, Term]:
    """Return the densities over several parameters, by the names of those."""
    return {name: term for term in terms if not isinstance(term, SingleTerm) for name in term.names}


def _groups(members: Iterable[Planned], terms: Mapping[str, Term]) -> Iterator[tuple[Term, dict[str, Planned]]]:
    """Yield each density with those of its parameters that are trained here; refuse those without a value."""
    groups: dict[int, tuple[Term, dict[str, Planned]]] = {}
    for index, member in enumerate(members):
        if not member.parameter.requires_grad:
            continue
        name = member.entry.name
        term = terms.get(name)
        key = -1 - index if term is None else id(term)
        groups.setdefault(key, (term or SingleTerm(member.entry.info, member.alone), {}))[1][name] = member
    for term, here in groups.values():
        term.require(here)
        yield term, here


def penalty_of(members: Sequence[Planned], terms: Mapping[str, Term], *, shared: bool = True) -> Tensor:
    """Return Σ −log p without constants, in nats: differentiable, over all shards.

    Args:
        members: The parameters; frozen ones do not count.
        terms: What `joint_terms` returned.
        shared: Whether the value is summed with those of other groups and optimizers, so that of a density with
            parameters in several each counts its share; gradients stay whole.

    Returns:
        A scalar.
    """
    shares = []
    for term, here in _groups(members, terms):
        whole = term.penalty({name: local(member.parameter) for name, member in here.items()})
        share = term.share(list(here)) if shared else 1.0
        counted = whole if share == 1.0 else whole - (1.0 - share) * whole.detach()
        shares.append((counted, next(iter(here.values())).parameter))
    total = gather_sum(shares)
    return torch.zeros(()) if total is None else total


def constant_of(members: Sequence[Planned], terms: Mapping[str, Term]) -> float:
    """Return the constant of the log density of these parameters, in nats, over all shards."""
    total = 0.0
    for term, here in _groups(members, terms):
        if isinstance(term, SingleTerm):
            # Of the whole parameter, of which there may be a shard here.
            (member,) = here.values()
            prior = member.whole
            term = SingleTerm(member.entry.info, prior) if isinstance(prior, Prior) else term
        total += float(term.log_constant({name: member.parameter.shape for name, member in here.items()}))
    return total
