"""Names of classes and features."""

from __future__ import annotations

from collections.abc import Sequence

from bayesreg.errors import InvalidArgumentError, kind_of

__all__ = ["names_from"]


def names_from(argument: str, given: object) -> tuple[str, ...]:
    """Return names as words, raising for what is no list of them.

    Args:
        argument: Its name.
        given: What was given.

    Returns:
        The names.

    Raises:
        InvalidArgumentError: If it is no list of words, or one is there twice.
    """
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(one, str) for one in given):
        raise InvalidArgumentError(
            f"{argument}: expected a list of words, such as ['cat', 'dog'], got {kind_of(given)}."
        )
    if len(set(given)) < len(given):
        twice = next(one for one in given if list(given).count(one) > 1)
        raise InvalidArgumentError(f"{argument}: {twice!r} is there twice.")
    return tuple(given)
