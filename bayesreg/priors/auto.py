"""A prior in words that leaves its scale to the data: `gaussian(auto)`."""

from __future__ import annotations

import re

from bayesreg.errors import InvalidArgumentError

__all__ = ["asks_to_choose", "at_scale_one"]

# The word in place of a number, and not inside of quotes.
_AUTO = re.compile(r"\bauto\b(?=(?:[^'\"]*['\"][^'\"]*['\"])*[^'\"]*$)")


def asks_to_choose(words: str) -> bool:
    """Return whether a prior in words leaves its scale to the data: gaussian(auto)."""
    return _AUTO.search(words) is not None


def at_scale_one(words: str) -> str:
    """Return the words with 1.0 for what is to be chosen."""
    if len(_AUTO.findall(words)) > 1:
        raise InvalidArgumentError(f"prior {words!r}: one number is chosen, write auto once.")
    return _AUTO.sub("1.0", words)
