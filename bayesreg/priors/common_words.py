"""What people call priors: l2, ridge, normal, l1, lasso, in the families of bayesreg."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from bayesreg._support import checks
from bayesreg._support.calls import meant
from bayesreg.conversion import (
    LossScale,
    l1_to_laplace_scale,
    lasso_alpha_to_laplace_scale,
    ridge_alpha_to_variance,
    sklearn_to_elastic_net_rates,
    weight_decay_to_variance,
)
from bayesreg.errors import InvalidArgumentError, nearest

__all__ = ["COMMON", "in_families", "net_in_rates"]


class _Word(NamedTuple):
    """What a common word is here.

    Attributes:
        family: The family, as words write it.
        takes: Its number, by the names under which it may be given.
    """

    family: str
    takes: tuple[str, ...]


#: The common words. Each means several numbers to several people, so the number is named.
COMMON: dict[str, _Word] = {
    "l2": _Word("gaussian", ("scale", "weight_decay")),
    "ridge": _Word("gaussian", ("alpha", "scale", "weight_decay")),
    "normal": _Word("gaussian", ("scale", "weight_decay")),
    "l1": _Word("laplace", ("scale", "coefficient")),
    "lasso": _Word("laplace", ("alpha", "scale", "coefficient")),
}

# Besides their number: the centre, under its two names.
_BESIDES = ("loc", "center")

_MEANING = {
    ("gaussian", "scale"): "the prior's standard deviation",
    ("gaussian", "weight_decay"): "λ in (λ/2)‖w‖², beside a mean loss over n examples",
    ("gaussian", "alpha"): "that of scikit-learn's Ridge, which needs noise_std= too",
    ("laplace", "scale"): "the prior's scale",
    ("laplace", "coefficient"): "α in α‖w‖₁, beside a mean loss over n examples",
    ("laplace", "alpha"): "that of scikit-learn's Lasso, which needs noise_std= too",
}


def in_families(
    words: str, name: str, positional: Sequence[Any], keyword: dict[str, Any], num_data: LossScale | None
) -> tuple[str, dict[str, Any]]:
    """Return a call in common words as one of a family of bayesreg.

    Args:
        words: The text, for messages.
        name: The word, one of `COMMON`.
        positional: What was given without a name.
        keyword: What was given by name.
        num_data: The loss scale, for numbers that are relative to n.

    Returns:
        The family's name and its arguments.

    Raises:
        InvalidArgumentError: If the number has no name or an unknown one, or what it is relative to is not known.
    """
    family, takes = COMMON[name]
    given = [argument for argument in takes if argument in keyword]
    known = [*takes, *_BESIDES, *(["noise_std"] if "alpha" in takes else [])]
    unknown = [argument for argument in keyword if argument not in known]
    if positional or (not given and not unknown):
        raise InvalidArgumentError(_readings(words, name, positional, num_data))
    if unknown:
        close = nearest(meant(unknown[0]), known)
        raise InvalidArgumentError(f"prior {words!r}: {name} takes {', '.join(known)}, got {unknown[0]}{close or '.'}")
    if len(given) > 1:
        raise InvalidArgumentError(f"prior {words!r}: expected one of {', '.join(takes)}, got {' and '.join(given)}.")
    rest = dict(keyword)
    noise = rest.pop("noise_std", None)
    if noise is not None and given[0] != "alpha":
        raise InvalidArgumentError(f"prior {words!r}: noise_std plays no part with {given[0]}; leave it out.")
    number = rest.pop(given[0])
    if given[0] == "alpha":
        return family, {**rest, "scale": _scale_of(words, family, number, noise, num_data)}
    return family, {**rest, "l1" if given[0] == "coefficient" else given[0]: number}


def net_in_rates(words: str, keyword: dict[str, Any], num_data: LossScale | None) -> dict[str, Any]:
    """Return the arguments of `ElasticNet`, where those of scikit-learn's were given.

    Args:
        words: The text, for messages.
        keyword: What was given by name.
        num_data: The loss scale.

    Returns:
        The same arguments, or rates in place of alpha, l1_ratio and noise_std.

    Raises:
        InvalidArgumentError: If one of them is missing or out of range, or n is not known.
    """
    if "alpha" not in keyword:
        return keyword
    rest = dict(keyword)
    given = [rest.pop(name, None) for name in ("alpha", "l1_ratio", "noise_std")]
    if None in given or num_data is None or num_data.num_data is None:
        raise InvalidArgumentError(
            f"prior {words!r}: alpha is that of scikit-learn's ElasticNet, which needs l1_ratio=, noise_std= and the "
            f"size of the training set too."
        )
    alpha, ratio, noise_std = given
    l1, l2 = sklearn_to_elastic_net_rates(alpha, ratio, num_data.num_data, noise_std)
    return {**rest, "l1": l1, "l2": l2}


def _scale_of(words: str, family: str, alpha: Any, noise: Any, num_data: LossScale | None) -> float:
    """Return the prior's scale that an alpha of scikit-learn is."""
    tau = noise if noise is not None else None if num_data is None else num_data.noise_std
    if tau is None:
        raise InvalidArgumentError(
            f"prior {words!r}: alpha is relative to the noise: add its standard deviation, noise_std=, in the units of "
            f"the target that the model is trained on (a target that is standardised has std 1)."
        )
    value, noise_std = checks.positive_float("alpha", alpha), checks.positive_float("noise_std", tau)
    if family == "gaussian":
        return math.sqrt(ridge_alpha_to_variance(value, noise_std))
    if num_data is None or num_data.num_data is None:
        raise InvalidArgumentError(f"prior {words!r}: the alpha of Lasso needs the size of the training set.")
    return lasso_alpha_to_laplace_scale(value, num_data.num_data, noise_std)


def _readings(words: str, name: str, positional: Sequence[Any], num_data: LossScale | None) -> str:
    """Say what a bare number could be, with what each would make of it."""
    family, takes = COMMON[name]
    value = positional[0] if len(positional) == 1 else None
    number = (
        float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e150 else None
    )
    readings = []
    for argument in takes:
        shown = "..." if number is None else f"{number:g}"
        more = ", noise_std=..." if argument == "alpha" else ""
        width = None if number is None or num_data is None else _width(argument, number, num_data)
        becomes = "" if width is None else f", here a scale of {width:.4g}"
        readings.append(f"{name}({argument}={shown}{more}), {_MEANING[family, argument]}{becomes}")
    asked = f"what is {number:g}? Write" if number is not None else "expected its number by name:"
    return f"prior {words!r}: {asked} {'; or '.join(readings)}."


def _width(argument: str, number: float, num_data: LossScale) -> float | None:
    if argument == "weight_decay":
        return math.sqrt(float(weight_decay_to_variance(number, num_data)))
    if argument == "coefficient":
        return float(l1_to_laplace_scale(number, num_data))
    return None
