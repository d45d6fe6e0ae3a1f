"""A few cells of a large matrix in the quick suite, all of them in the slow one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

__all__ = ["cells", "slow", "thinned"]


def slow(*values: Any, **keywords: Any) -> Any:
    """A case of `parametrize` that only the slow suite runs."""
    return pytest.param(*values, **keywords, marks=pytest.mark.slow)


def cells(*axes: Mapping[str, Any] | Iterable[Any], keep: Callable[..., bool]) -> list[Any]:
    """Every combination of the axes as cases; those whose numbers `keep` refuses are slow.

    Args:
        axes: Values by label, or values that are their own labels. A tuple stands for several arguments.
        keep: Called with the number of the value on each axis.
    """
    named = [list(axis.items()) if isinstance(axis, Mapping) else [(str(v), v) for v in axis] for axis in axes]
    cases = []
    for numbered in itertools.product(*map(enumerate, named)):
        labels = [label for _, (label, _) in numbered]
        values = [v for _, (_, value) in numbered for v in (value if isinstance(value, tuple) else (value,))]
        make = pytest.param if keep(*(number for number, _ in numbered)) else slow
        cases.append(make(*values, id="-".join(labels)))
    return cases


def thinned(cases: Iterable[Any], every: int) -> list[Any]:
    """The cases, of which only the first and every so-many-th after it are in the quick suite."""
    wrapped = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [slow(*case) if number % every else pytest.param(*case) for number, case in enumerate(wrapped)]
