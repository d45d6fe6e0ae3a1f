"""One mistake in the code."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Mutation", "of_family"]


class Mutation(NamedTuple):
    """One mistake: in `bayesreg/<file>`, `old`, which is there once, becomes `new`; the tests are under `tests/`."""

    file: str
    old: str
    new: str
    tests: str


def of_family(file: str, tests: str, *changes: tuple[str, str]) -> list[Mutation]:
    return [Mutation(f"priors/{file}.py", old, new, f"priors/{tests}.py") for old, new in changes]
