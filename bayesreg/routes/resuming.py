"""Optimizer states that find their parameters by name, where rules or groups have changed since they were saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from bayesreg.errors import CoverageError

__all__ = ["NAMES", "put_in_place", "renamed_state", "with_names"]

#: Key in the param groups of a saved state dict that holds the names of their parameters.
NAMES = "bayesreg_names"


def with_names(state_dict: dict[str, Any], names: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return a state dict with the names of each group's parameters in it.

    Args:
        state_dict: What `optimizer.state_dict()` made.
        names: Of each group; empty for a parameter that has none.

    Returns:
        The state dict.
    """
    groups = zip(state_dict["param_groups"], names, strict=True)
    return {**state_dict, "param_groups": [{**group, NAMES: list(here)} for group, here in groups]}


def renamed_state(state_dict: dict[str, Any], names: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return a saved state dict in the order of the optimizer that will load it.

    Args:
        state_dict: The state dict, with names or without.
        names: Of the parameters of each group as they are now.

    Returns:
        The state dict, its states beside the parameters they belong to; a group that is made of several has the
        settings of the one its first parameter was in.

    Raises:
        CoverageError: If it is of other parameters.
    """
    groups = state_dict.get("param_groups", [])
    if not groups or not all(NAMES in group for group in groups):
        return state_dict
    saved = [list(group[NAMES]) for group in groups]
    bare = [{key: value for key, value in group.items() if key != NAMES} for group in groups]
    if saved == [list(here) for here in names]:
        return {**state_dict, "param_groups": bare}
    _require_same(saved, names)
    place = {name: (index, number) for index, here in enumerate(saved) for number, name in enumerate(here)}
    made = []
    for here in names:
        found = [place[name] for name in here]
        settings = bare[found[0][0]] if found else bare[0]
        made.append({**settings, "params": [groups[index]["params"][number] for index, number in found]})
        if "param_names" in settings:
            made[-1]["param_names"] = [bare[index]["param_names"][number] for index, number in found]
    return {**state_dict, "param_groups": made}


def put_in_place(optimizer: Optimizer, names: Sequence[Sequence[str]]) -> None:
    """Move states that were loaded by position, before the prior was attached, to the parameters they belong to.

    Args:
        optimizer: The optimizer; its groups no longer carry names then.
        names: Of the parameters of each group as they are now.

    Raises:
        CoverageError: If the states are of other parameters.
    """
    groups = optimizer.param_groups
    if not groups or not all(NAMES in group for group in groups):
        return
    saved = [list(group[NAMES]) for group in groups]
    in_place = saved == [list(here) for here in names]
    if not in_place:
        _require_same(saved, names)
    for group in groups:
        del group[NAMES]
    if in_place:
        return
    loaded = {
        name: optimizer.state.pop(parameter, None)
        for group, here in zip(groups, saved, strict=True)
        for parameter, name in zip(group["params"], here, strict=True)
    }
    for group, here in zip(groups, names, strict=True):
        for parameter, name in zip(group["params"], here, strict=True):
            if loaded[name] is not None:
                optimizer.state[parameter] = loaded[name]


def _require_same(saved: Sequence[Sequence[str]], names: Sequence[Sequence[str]]) -> None:
    before = [name for here in saved for name in here]
    now = [name for here in names for name in here]
    if sorted(before) != sorted(now) or "" in now:
        gone = [name or "a parameter without a name" for name in before if name not in now or not name]
        new = [name or "a parameter without a name" for name in now if name not in before or not name]
        raise CoverageError(
            f"the optimizer's saved state is of other parameters than this optimizer holds, so its moments would land "
            f"on wrong ones: {', '.join(gone[:5]) or 'none'} only there, {', '.join(new[:5]) or 'none'} only here; "
            f"build prior and optimizer for the same parameters, or begin with a fresh optimizer state."
        )
