"""A prior in words that leaves its scale to the data: `gaussian(auto)`."""

from __future__ import annotations

import re

from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.common_words import COMMON

__all__ = ["asks_to_choose", "at_scale_one"]

# The word in place of a number, and not inside of quotes.
_AUTO = re.compile(r"\bauto\b(?=(?:[^'\"]*['\"][^'\"]*['\"])*[^'\"]*$)")
# Numbers of another notation, in units of a loss; what is chosen is a width about 1, in those of the weights.
_NOTATION = re.compile(r"\b(weight_decay|coefficient|alpha)\s*=\s*auto\b")
_OF_A_LOSS = re.compile(r"\b(l1)\s*=\s*auto\b")
_UNNAMED = re.compile(r"[(,]\s*auto\b")


def asks_to_choose(words: str) -> bool:
    """Return whether a prior in words leaves its scale to the data: gaussian(auto)."""
    return _AUTO.search(words) is not None


def at_scale_one(words: str) -> str:
    """Return the words with 1.0 for what is to be chosen."""
    if len(_AUTO.findall(words)) > 1:
        raise InvalidArgumentError(f"prior {words!r}: one number is chosen, write auto once.")
    name = words.partition("(")[0].strip()
    notation = _NOTATION.search(words) or (_OF_A_LOSS.search(words) if name == "laplace" else None)
    if notation or (name in COMMON and _UNNAMED.search(words)):
        family = COMMON[name].family if name in COMMON else name
        instead = "elastic_net(l1=auto, l2=1)" if family == "elastic_net" else f"{family}(auto)"
        raise InvalidArgumentError(
            f"prior {words!r}: auto stands for the scale of the prior, not for the "
            f"{notation[1] if notation else 'number'} of another notation; write {instead}."
        )
    return _AUTO.sub("1.0", words)
