"""Calls that answer a wrong keyword with the nearest one, and still know an old one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import torch

from bayesreg._support.arguments import wrong_kind
from bayesreg.errors import BayesRegError, InvalidArgumentError, nearest

__all__ = ["TELLING", "answering", "answering_class", "meant", "naming", "wrong_call"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

#: Keywords of earlier versions, and what they are called now.
_OLD = {"loss_scale": "num_data"}

# What a value of a wrong kind leads to, sooner or later.
TELLING = (
    TypeError, AttributeError, ValueError, LookupError, ArithmeticError, RuntimeError, AssertionError,
)  # fmt: skip

_MISSING = {
    "num_data": "pass the size of the training set, num_data=n, or a br.LossScale for a loss that is not a mean over "
    "examples",
}


# What the field calls it, and what it is called here.
_MEANT = {
    "n": "num_data", "num_examples": "num_data", "scale_": "scale", "sigma": "scale", "std": "scale", "b": "scale",
    "mean": "loc", "mu": "loc", "nu": "df", "noise": "noise_std", "tau": "noise_std", "tol": "tolerance",
    "epochs": "max_epochs", "seed": "generator",
}  # fmt: skip


def meant(name: str) -> str:
    """Return what an argument is called here, where the field has another name for it.

    Args:
        name: As it was written.

    Returns:
        The name here, or the same.
    """
    return _MEANT.get(name, name)


def wrong_call(name: str, takes: inspect.Signature, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> str:
    """Return what is wrong with a call, in words; an empty string where nothing is.

    Args:
        name: Of what was called.
        takes: Its signature.
        arguments: Given by position.
        keywords: Given by name.

    Returns:
        One sentence.
    """
    try:
        takes.bind(*arguments, **keywords)
    except TypeError as wrong:
        known = [p for p in takes.parameters if p not in ("self", "cls")]
        unknown = [given for given in keywords if given not in takes.parameters]
        missing = str(wrong).rpartition("argument: ")[2].strip("'") if "missing" in str(wrong) else ""
        if unknown:
            # Most of the name is wrong where only its end is right.
            close = nearest(meant(unknown[0]), known)
            return f"{name}: unexpected argument {unknown[0]!r}; it takes {', '.join(known) or 'no arguments'}{close}"
        if missing in _MISSING:
            return f"{missing}: {_MISSING[missing]}."
        by_name = [p for p in known if takes.parameters[p].kind is inspect.Parameter.KEYWORD_ONLY]
        only = f" ({', '.join(by_name)} by name only)" if by_name and "positional" in str(wrong) else ""
        return f"{name}: {wrong}; it takes {', '.join(known) or 'no arguments'}{only}"
    return ""


def _class_of(owner: object) -> str:
    return owner.__name__ if isinstance(owner, type) else type(owner).__name__


def answering_class(cls: type[T]) -> type[T]:
    """Let a dataclass answer a wrong call of its constructor as `answering` does; a class decorator."""
    cls.__init__ = answering(cls.__init__)  # type: ignore[method-assign]
    return cls


def naming(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function answer a misspelt keyword with the nearest one, and look at nothing else.

    Args:
        function: A constructor that may not check what it is given, as those of scikit-learn's estimators.

    Returns:
        The same, which raises `InvalidArgumentError` in place of a bare TypeError.
    """
    takes, name = inspect.signature(function), function.__qualname__

    @functools.wraps(function)
    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            return function(*arguments, **keywords)
        except TypeError as error:
            own = _class_of(arguments[0]) if arguments else name
            if said := wrong_call(own, takes, arguments, keywords):
                raise InvalidArgumentError(said) from error
            raise

    return call


def answering(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function answer a call that it cannot take by a clear error, and take the keywords of earlier versions.

    Args:
        function: A function, or a method.

    Returns:
        The same, which raises `InvalidArgumentError` in place of a bare TypeError, or of whatever a value of another
        kind than its annotation leads to.
    """
    takes = inspect.signature(function)
    name = function.__qualname__
    method, made = next(iter(takes.parameters), "") in ("self", "cls"), function.__name__ == "__init__"
    old = {was: now for was, now in _OLD.items() if now in takes.parameters and was not in takes.parameters}

    @functools.wraps(function)
    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        given: dict[str, Any] = keywords
        for was, now in old.items():
            value = given.pop(was, None)
            if value is None:
                continue
            if given.get(now) is not None:
                raise InvalidArgumentError(f"{now}: {was}= is an old name of it; pass one of the two.")
            given[now] = value
        # A compiler traces what is called, and need not trace the checks.
        if not torch.compiler.is_compiling() and (said := wrong_kind(function, arguments, given, firm=True)):
            raise InvalidArgumentError(said)
        try:
            return function(*arguments, **keywords)
        except TELLING as error:
            if isinstance(error, BayesRegError):
                raise
            owner = arguments[0] if method and arguments else None
            own = name if owner is None else f"{_class_of(owner)}{'' if made else '.' + function.__name__}"
            said = wrong_call(own, takes, arguments, given) if isinstance(error, TypeError) else ""
            said = said or wrong_kind(function, arguments, given)
            if said:
                raise InvalidArgumentError(said) from error
            raise

    return call
