"""Priors in words: `laplace(0.1)`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

from bayesreg._support.calls import answering, wrong_call
from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.errors import InvalidArgumentError, nearest
from bayesreg.priors.common_words import COMMON, in_families, net_in_rates
from bayesreg.priors.contract.belief import Belief
from bayesreg.priors.contract.registry import FAMILIES, NO_WORDS

__all__ = ["prior_from_words"]


# Arguments that convert a regularisation constant, by the constructor of the family that does it.
_CONSTANTS = {"weight_decay": "from_weight_decay", "l1": "from_l1"}


@answering
def prior_from_words(words: str, num_data: int | LossScale | None = None) -> Belief:
    """Return the prior that a short text names.

    The text is a family of bayesreg in any case, with its arguments: `gaussian(0.1)`, `student_t(df=4, scale=0.1)`,
    `group_laplace(5.0, group="row")`, `flat()`. Besides: `gaussian(weight_decay=5e-4)` and `laplace(l1=1e-4)` convert
    a regularisation constant, and `gaussian(0.05, center="weights.safetensors")` centres the prior on reference
    weights. The common words are understood with their number named: `l2(scale=0.1)`, `l2(weight_decay=5e-4)`,
    `l1(coefficient=1e-4)`, `ridge(alpha=1, noise_std=0.5)`, `lasso(alpha=0.05, noise_std=0.5)`,
    `elastic_net(alpha=0.05, l1_ratio=0.5, noise_std=0.5)`, `normal(scale=0.1)`; with a bare number, the answer is
    what it could mean. Nothing is evaluated.

    Args:
        words: The text.
        num_data: Size of the training set (or the `LossScale`), for `weight_decay=`, `l1=`, and `lasso(alpha=...)`.

    Returns:
        The prior.

    Raises:
        InvalidArgumentError: If the text is not of this form, names no family or has wrong arguments.

    Example:
        >>> prior_from_words("laplace(0.1)"), prior_from_words("gaussian(weight_decay=5e-4)", 50_000)
        (Laplace(scale=0.1, loc=0), Gaussian(scale=0.2, loc=0))
    """
    name, positional, keyword = _parse(words)
    scale = None if num_data is None else as_loss_scale(num_data)
    if name.lower() in COMMON:
        name, keyword = in_families(words, name.lower(), positional, keyword, scale)
        positional = []
    families = {family.lower().replace("_", ""): cls for family, cls in FAMILIES.items() if family not in NO_WORDS}
    plain = name.lower().replace("_", "")
    if plain not in families:
        known = [_snake(family) for family in FAMILIES if family not in NO_WORDS]
        if plain in {family.lower() for family in NO_WORDS}:
            raise InvalidArgumentError(
                f"prior: {name} takes tensors of the size of a model, which no words can say; make it in Python. In "
                f"words: {', '.join(known)}."
            )
        close = nearest(name, [*known, *COMMON])
        raise InvalidArgumentError(f"prior: expected one of {', '.join(known)}, got {name!r}{close}")
    family: Any = families[plain]
    if "alpha" in keyword and hasattr(family, "from_penalties"):
        keyword = net_in_rates(words, keyword, scale)
    for constant, constructor in _CONSTANTS.items():
        if constant in keyword and hasattr(family, constructor):
            if scale is None:
                raise InvalidArgumentError(f"prior {words!r}: {constant}= needs the size of the training set.")
            if positional or "scale" in keyword:
                raise InvalidArgumentError(f"prior {words!r}: expected a scale or {constant}=, not both.")
            given = [keyword.pop(constant), scale]
            return _call(words, getattr(family, constructor), given, keyword)
    if "center" in keyword:
        if not hasattr(family, "centered_at"):
            raise InvalidArgumentError(f"prior {words!r}: {family.__name__} has no centre.")
        return _call(words, family.centered_at, [keyword.pop("center"), *positional], keyword)
    if (positional or keyword) and not inspect.signature(family).parameters:
        raise InvalidArgumentError(f"prior {words!r}: {family.__name__} takes no arguments; write {_snake(name)}().")
    return _call(words, family, positional, keyword)


def _snake(family: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", family).lower()


def _parse(words: str) -> tuple[str, list[Any], dict[str, Any]]:
    if not isinstance(words, str):
        raise InvalidArgumentError(
            f"prior: expected a text such as 'laplace(0.1)', got {type(words).__name__} {words!r}."
        )
    text = words.strip() if "(" in words else f"{words.strip()}()"
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        names = [item.arg for item in call.keywords]
        if None in names or len(set(names)) < len(names):
            raise ValueError
        positional = [ast.literal_eval(argument) for argument in call.args]
        keyword = {str(item.arg): ast.literal_eval(item.value) for item in call.keywords}
    # MemoryError and RecursionError: what the parser makes of thousands of signs or brackets.
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise InvalidArgumentError(
            f"prior: expected a family with numbers, such as laplace(0.1) or gaussian(scale=0.2); text goes in "
            f"quotes, group_laplace(5.0, group='row') or gaussian(0.1, center='file.safetensors'). Got {words!r}."
        ) from error
    return call.func.id, positional, keyword


def _call(words: str, build: Callable[..., Belief], positional: list[Any], keyword: dict[str, Any]) -> Belief:
    try:
        return build(*positional, **keyword)
    except TypeError as error:
        name = getattr(build, "__qualname__", "").partition(".")[0]
        said = wrong_call(name, inspect.signature(build), tuple(positional), keyword) or f"wrong arguments; {error}."
        raise InvalidArgumentError(f"prior {words!r}: {said}") from error
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"prior {words!r}: {error}") from error
