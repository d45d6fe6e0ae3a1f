"""Which parameters have a scale of their own, on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bayesreg.errors import InvalidArgumentError, PatternError, kind_of
from bayesreg.model_prior import ModelPrior
from bayesreg.priors.contract.asking import is_flat
from bayesreg.selection import SelectorLike, as_selector, selected

__all__ = ["EACH", "ONE", "Group", "Groups", "groups_of"]

ONE: Literal["one"] = "one"
EACH: Literal["each"] = "each"
Groups = Literal["one", "each"] | Sequence[SelectorLike]


@dataclass(frozen=True)
class Group:
    """Parameters whose widths are multiplied by a scale of their own.

    Attributes:
        label: The rule, as it was written.
        names: The parameters that have a prior.
    """

    label: str
    names: tuple[str, ...]


def groups_of(prior: ModelPrior, groups: object) -> tuple[Group, ...]:
    """Return the groups that were asked for; none for "one" and "each".

    Args:
        prior: The prior.
        groups: "one", "each", or rules; the first that matches a parameter has it.

    Returns:
        The groups, in order.

    Raises:
        InvalidArgumentError: If it is none of these, or a rule leaves a density that joins parameters in pieces.
        PatternError: If a rule selects nothing that has a prior.
    """
    # An array compares element by element.
    if isinstance(groups, str) and groups in (ONE, EACH):
        return ()
    if not isinstance(groups, list | tuple) or not groups:
        raise InvalidArgumentError(
            f"groups: expected 'one', 'each' or a list of rules such as ['head.*'], got "
            f"{repr(groups) if isinstance(groups, str | list | tuple) else kind_of(groups)}."
        )
    free = {entry.name: entry.info for entry, one in prior.active() if not is_flat(one)}
    infos, found = [entry.info for entry, _ in prior.active()], []
    for rule in groups:
        label = as_selector(rule, "groups").label
        chosen = selected("groups", rule, infos)
        names = tuple(name for name in free if name in chosen)
        if not names:
            raise PatternError(
                f"groups {label}: expected a rule that matches a parameter with a prior that no rule before it has, "
                f"got {', '.join(sorted(chosen)[:3])}."
            )
        for name in names:
            del free[name]
        found.append(Group(label, names))
    _require_whole(prior, found)
    return tuple(found)


def _require_whole(prior: ModelPrior, groups: Sequence[Group]) -> None:
    owner = {name: group.label for group in groups for name in group.names}
    for term, _ in prior.active_terms():
        if len({owner.get(name) for name in term.names}) > 1:
            raise InvalidArgumentError(
                f"groups: one density joins {', '.join(term.names[:3])}; put them into one group."
            )
