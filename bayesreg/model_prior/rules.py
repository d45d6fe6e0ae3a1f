"""From rules to entries, and from names to the values of entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.distributions import Distribution

from bayesreg._support.tables import in_short
from bayesreg.errors import CoverageError, InvalidArgumentError, PatternError, nearest
from bayesreg.model_prior.entry import Entry
from bayesreg.priors import Belief, Flat
from bayesreg.selection import (
    ParameterInfo,
    SelectorLike,
    as_selector,
    biases,
    kernels,
    norms,
    role_of,
    vectors,
)

__all__ = ["group_key", "hint_for", "matched", "on_kernels", "require_kernels", "values_by_entry"]


_SMALL = biases | norms


def on_kernels(prior: Belief) -> dict[SelectorLike, Belief]:
    """Return the rules that a single prior for a whole model stands for: it is on matrices and kernels."""
    flat = Flat()
    return {_SMALL: flat, vectors: flat, "*": prior}


def require_kernels(infos: Sequence[ParameterInfo]) -> None:
    """Raise where a single prior for the whole model would be on nothing that is trained."""
    trained = [info for info in infos if info.parameter.requires_grad] or list(infos)
    if not any(kernels(info) for info in trained):
        roles = {"bias": "bias", "norm": "norm", "vector": "vector or scalar"}
        named = in_short([f"{info.name} ({roles[role_of(info)]})" for info in trained])
        raise CoverageError(
            f"prior: one prior for the whole model goes on its matrices and kernels, and none is trained: {named}; "
            f"say what it is for by rules, such as br.ModelPrior(model, {{'*': prior}})."
        )


def group_key(prior: Belief, joint: int | None) -> tuple[object, ...]:
    """Return what parameters of one param group have in common: a density, a strength or a family."""
    if joint is not None:
        return ("joint", joint)
    parabola = prior.quadratic()
    if parabola is not None and parabola.uniform:
        return ("parabola", parabola.variance)
    return (prior.family,)


def hint_for(rules: object) -> str:
    """Return how to make a prior of what was given in place of one."""
    if isinstance(rules, Distribution):
        return "; wrap it: br.FromDistribution(distribution)"
    return f"; from words: br.prior_from_words({rules!r})" if isinstance(rules, str) else ""


def matched(infos: list[ParameterInfo], rules: Mapping[SelectorLike, Belief]) -> list[Entry]:
    """Give each parameter to its first matching rule; refuse rules that select nothing."""
    selectors = [(key, as_selector(key), prior) for key, prior in rules.items()]
    hits = [[selector(info) for info in infos] for _, selector, _ in selectors]
    owner = [next((r for r, row in enumerate(hits) if row[i]), None) for i in range(len(infos))]
    names = [name for info in infos for name in info.names]
    for r, (key, selector, _) in enumerate(selectors):
        if not any(hits[r]):
            if isinstance(key, str):
                hint = nearest(key, [*names, *_parents(names)])
                raise PatternError(f"rule {selector.label}: expected a glob that matches a parameter, got none{hint}")
        elif r not in owner:
            takers = dict.fromkeys(selectors[w][1].label for i, w in enumerate(owner) if hits[r][i] and w is not None)
            raise PatternError(
                f"rule {selector.label} can never apply: all it matches is taken by {', '.join(takers)} before it; "
                f"remove it or move it up."
            )
    uncovered = [info.name for info, r in zip(infos, owner, strict=True) if r is None and info.parameter.requires_grad]
    if uncovered:
        more = f" and {len(uncovered) - 8} more" if len(uncovered) > 8 else ""
        raise CoverageError(
            f"no rule covers {', '.join(uncovered[:8])}{more}; add a rule for them, such as '*': br.Flat()."
        )
    return [
        Entry(info, None if r is None else selectors[r][2], "" if r is None else selectors[r][1].label)
        for info, r in zip(infos, owner, strict=True)
    ]


def _parents(names: list[str]) -> list[str]:
    return sorted({f"{name.rsplit('.', 1)[0]}.*" for name in names if "." in name})


def values_by_entry(entries: Sequence[Entry], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return values by the names of the entries, from those of the model as it is."""
    if not isinstance(values, Mapping):
        raise InvalidArgumentError(
            f"values: expected a mapping from the names of model.named_parameters() to tensors, got "
            f"{type(values).__name__}."
        )
    by_raw = {raw: entry for entry in entries for raw in entry.info.raw}
    found: dict[str, Tensor] = {}
    for name, value in values.items():
        entry = by_raw.get(name)
        if entry is None:
            behind = [raw for one in entries if name in one.info.names for raw in one.info.raw]
            hint = f"; give {' and '.join(behind)}, as model.named_parameters() does." if behind else ""
            raise InvalidArgumentError(
                f"values: {name!r} is no parameter of the model{hint or nearest(str(name), by_raw) or '.'}"
            )
        wanted = tuple(entry.parameter.shape)
        if not isinstance(value, Tensor) or tuple(value.shape) != wanted:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InvalidArgumentError(f"values: expected {name} of shape {wanted}, got {given}.")
        found[entry.name] = value
    return found
