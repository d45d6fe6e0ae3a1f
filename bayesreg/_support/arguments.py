"""Which argument of a call is of a kind that its annotation does not have, in words."""

from __future__ import annotations

import collections.abc
import decimal
import functools
import inspect
import numbers
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from bayesreg.errors import kind_of

__all__ = ["wrong_kind"]

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
    torch.dtype: "a torch dtype",
    type: "a class",
    collections.abc.Mapping: "a mapping",
    collections.abc.Sequence: "a sequence",
    collections.abc.Iterable: "something to iterate over",
    collections.abc.Callable: "a function",
}


# Kinds that nothing else behaves like.
_FIRM = {
    bool, str, types.NoneType, collections.abc.Callable, torch.dtype, torch.Generator, Path, os.PathLike,
}  # fmt: skip


def wrong_kind(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any], *, firm: bool = False
) -> str:
    """Return which argument is of another kind than the function says that it takes; an empty string where none is.

    Only the outermost kinds of annotations are compared.

    Args:
        function: What is called; a class, for its constructor.
        arguments: Given by position.
        keywords: Given by name.
        firm: Whether to look only at arguments that are plain: truths, texts, functions. Asked before
            the call; of the others the function says more itself, or takes what behaves like them.

    Returns:
        One sentence that names the argument, what was expected and what was given.

    Example:
        >>> def train(model: nn.Module, epochs: int = 1) -> None: ...
        >>> wrong_kind(train, ("resnet",), {})
        "model: expected a torch module, got str 'resnet'."
    """
    # Binding takes longer than most of what it is for.
    declared = _doubted(function, arguments, keywords) if firm else _declared(function)
    if not declared:
        return ""
    takes = _signature(function)
    try:
        given = takes.bind(*arguments, **keywords).arguments
    except TypeError:
        return ""
    for name, kinds in declared:
        if name not in given:
            continue
        value = given[name]
        if firm and isinstance(value, str) and any(typing.get_origin(kind) is Literal for kind in kinds):
            # Of words the function says which come near.
            continue
        if not any(_is_a(value, kind) for kind in kinds) and value is not takes.parameters[name].default:
            return f"{name}: expected {_in_words(kinds)}, got {_given(value)}."
    return ""


@functools.cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


@functools.cache
def _declared(function: Callable[..., Any]) -> list[tuple[str, list[Any]]]:
    """Return the arguments that are annotated, with the kinds they allow; those that allow anything are left out."""
    places = vars(sys.modules.get(function.__module__, sys))
    several = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    found = []
    for name, parameter in _signature(function).parameters.items():
        if name in ("self", "cls") or parameter.annotation is inspect.Parameter.empty or parameter.kind in several:
            continue
        kinds = _kinds(_evaluated(parameter.annotation, places))
        if kinds is not None:
            found.append((name, kinds))
    return found


@functools.cache
def _firm(function: Callable[..., Any]) -> list[tuple[str, list[Any]]]:
    """Return those that allow plain kinds alone."""
    return [(name, kinds) for name, kinds in _declared(function) if all(map(_is_firm, kinds))]


def _doubted(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> list[tuple[str, list[Any]]]:
    """Return those of `_firm` that may be of another kind, as far as can be seen without binding."""
    declared, places = _firm(function), _by_place(function)
    return [
        (name, kinds)
        for name, kinds in declared
        if (name in keywords or places.get(name, len(arguments)) < len(arguments))
        and not any(_is_a(keywords[name] if name in keywords else arguments[places[name]], kind) for kind in kinds)
    ]


@functools.cache
def _by_place(function: Callable[..., Any]) -> dict[str, int]:
    by_place = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return {name: at for at, (name, one) in enumerate(_signature(function).parameters.items()) if one.kind in by_place}


def _is_firm(kind: Any) -> bool:
    return typing.get_origin(kind) is Literal or kind in _FIRM


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
        return any(type(value) is type(choice) and value == choice for choice in typing.get_args(kind))
    if kind is bool:
        return isinstance(value, bool | np.bool_)
    if kind in (int, float):
        # Whatever is a number in some library; what it must be besides, the function says.
        return not isinstance(value, bool | np.bool_) and (
            isinstance(value, numbers.Number | decimal.Decimal | Tensor | np.ndarray | np.generic)
        )
    if kind is collections.abc.Sequence:
        listed = isinstance(value, collections.abc.Sequence) or getattr(value, "ndim", 0) > 0
        return listed and not isinstance(value, str | bytes)
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
