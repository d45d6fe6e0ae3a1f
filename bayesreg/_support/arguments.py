"""Which argument of a call is of a kind that its annotation does not have, in words."""

from __future__ import annotations

import collections.abc
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from bayesreg.errors import kind_of

__all__ = ["wrong_kind"]

_EMPTY = inspect.Parameter.empty

# In the words of a user; a number may be NumPy's, or a tensor of one element.
_WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a text",
    dict: "a mapping",
    list: "a list",
    tuple: "a tuple",
    Tensor: "a tensor",
    nn.Module: "a torch module",
    nn.Parameter: "an nn.Parameter",
    Path: "a path",
    os.PathLike: "a path",
    torch.Generator: "a torch.Generator",
    torch.optim.Optimizer: "a torch optimizer",
    collections.abc.Mapping: "a mapping",
    collections.abc.Sequence: "a sequence",
    collections.abc.Iterable: "something to iterate over",
    collections.abc.Callable: "a function",
}


def wrong_kind(function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> str:
    """Return which argument is of another kind than the function says that it takes; an empty string where none is.

    Asked after a call has failed: annotations are then evaluated, and only their outermost kinds compared.

    Args:
        function: What was called.
        arguments: Given by position.
        keywords: Given by name.

    Returns:
        One sentence that names the argument, what was expected and what was given.

    Example:
        >>> def train(model: nn.Module, epochs: int = 1) -> None: ...
        >>> wrong_kind(train, ("resnet",), {})
        "model: expected a torch module, got str 'resnet'."
    """
    try:
        bound = inspect.signature(function).bind(*arguments, **keywords)
    except TypeError:
        return ""
    places = vars(sys.modules.get(function.__module__, sys))
    for name, value in bound.arguments.items():
        parameter = inspect.signature(function).parameters[name]
        if name in ("self", "cls") or parameter.annotation is _EMPTY or parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD,
        ):  # fmt: skip
            continue
        kinds = _kinds(_evaluated(parameter.annotation, places))
        if kinds is not None and not any(_is_a(value, kind) for kind in kinds):
            return f"{name}: expected {_in_words(kinds)}, got {_given(value)}."
    return ""


def _evaluated(annotation: Any, places: Mapping[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(places))
    except (NameError, AttributeError, TypeError, SyntaxError):
        # A name that is imported for type checkers only.
        return Any


def _kinds(annotation: Any) -> list[Any] | None:
    """Return the classes, None and literals an annotation allows; None where it allows anything."""
    if annotation is None or annotation is types.NoneType:
        return [types.NoneType]
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        inner = [_kinds(part) for part in typing.get_args(annotation)]
        return None if any(part is None for part in inner) else [kind for part in inner for kind in part or []]
    if origin is Literal:
        return [annotation]
    if origin is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if isinstance(origin, type):
        return [origin]
    if isinstance(annotation, str):
        return None
    if isinstance(annotation, TypeVar) or not isinstance(annotation, type):
        return None
    return None if annotation is object else [annotation]


def _is_a(value: object, kind: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(kind))
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        number = isinstance(value, int | float) or (hasattr(value, "__float__") and hasattr(value, "dtype"))
        return number and not isinstance(value, bool)
    if kind is collections.abc.Sequence and isinstance(value, str):
        return False
    try:
        return isinstance(value, kind)
    except TypeError:
        return True


def _in_words(kinds: list[Any]) -> str:
    said = []
    for kind in kinds:
        if typing.get_origin(kind) is Literal:
            said += [repr(choice) for choice in typing.get_args(kind)]
        elif kind is types.NoneType:
            said.append("None")
        else:
            said.append(_WORDS.get(kind) or f"a {getattr(kind, '__name__', kind)}")
    said = list(dict.fromkeys(said))
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"


def _given(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, bool | int | float | str | bytes):
        return f"{type(value).__name__} {value!r}"
    return kind_of(value)
