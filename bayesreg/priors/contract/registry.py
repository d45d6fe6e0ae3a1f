"""The families by name: what files and words can name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, overload

from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.contract.belief import Belief

__all__ = ["FAMILIES", "NO_WORDS", "register_family"]

#: Every family by the name of its class; filled by `register_family`.
FAMILIES: dict[str, type[Belief]] = {}
#: Those that take what no words can say: a distribution, tensors of the size of a model.
NO_WORDS: set[str] = set()

Family = TypeVar("Family", bound=type[Belief])


@overload
def register_family(family: Family) -> Family: ...
@overload
def register_family(*, words: bool) -> Callable[[Family], Family]: ...
@answering
def register_family(family: Family | None = None, *, words: bool = True) -> Family | Callable[[Family], Family]:
    """Let prior files and the command line name a family of your own; a class decorator.

    Args:
        family: A subclass of `Prior` whose constructor takes what its `hyperparameters()` gives.
        words: Whether a short text can name it; False for families whose arguments no words can say.

    Returns:
        The class.

    Raises:
        InvalidArgumentError: If it is no such class, or bayesreg ships a family of that name.

    Example:
        >>> import bayesreg as br
        >>> @register_family
        ... class Bounded(br.Prior):
        ...     ...
        >>> br.prior_from_words("flat()")
        Flat()
    """

    def register(family: Family) -> Family:
        if not (isinstance(family, type) and issubclass(family, Belief)):
            raise InvalidArgumentError(f"family: expected a subclass of br.Prior, got {family!r}.")
        known = FAMILIES.get(family.__name__)
        if known is not None and known.__module__.startswith("bayesreg.") and known.__module__ != family.__module__:
            raise InvalidArgumentError(f"family: bayesreg has a family {family.__name__} already; choose another name.")
        FAMILIES[family.__name__] = family
        if not words:
            NO_WORDS.add(family.__name__)
        return family

    return register if family is None else register(family)
