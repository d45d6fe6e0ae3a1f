"""Sets of parameters by a condition: name patterns, module types, predicates, and what combines them."""

from __future__ import annotations

import fnmatch
import functools
import types
from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError, PatternError, kind_of, nearest
from bayesreg.selection.parameter import ParameterInfo

__all__ = [
    "Selection",
    "Selector",
    "SelectorLike",
    "any_of",
    "as_selector",
    "inside",
    "selected",
    "where",
]

Predicate: TypeAlias = Callable[[ParameterInfo], bool]


class Selector:
    """A set of parameters by a condition; combine with `|`, `&` and `~`.

    Args:
        predicate: Called with a `ParameterInfo`; true selects the parameter.
        label: How reports call it.

    Example:
        >>> from torch import nn
        >>> from bayesreg.selection import biases, norms, parameters_of
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        >>> [info.name for info in parameters_of(model) if (biases | norms)(info)]
        ['0.bias', '1.weight', '1.bias']
    """

    def __init__(self, predicate: Predicate, label: str) -> None:
        self._predicate = predicate
        self.label = label
        self.compound = False

    def __call__(self, info: ParameterInfo) -> bool:
        """Return whether the parameter is selected.

        Args:
            info: The parameter.

        Returns:
            Whether it is.

        Raises:
            InvalidArgumentError: If the condition answers with neither yes nor no. What it raises itself passes.
        """
        found = self._predicate(info)
        try:
            return bool(found)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidArgumentError(
                f"{self.label}: expected a condition that returns True or False, got {kind_of(found)} ({error})."
            ) from error

    def __or__(self, other: SelectorLike) -> Selector:
        right = as_selector(other)
        return _compound(lambda info: self(info) or right(info), f"{self.label} | {right.label}")

    def __ror__(self, other: SelectorLike) -> Selector:
        return as_selector(other) | self

    def __and__(self, other: SelectorLike) -> Selector:
        right = as_selector(other)
        return _compound(lambda info: self(info) and right(info), f"{_paren(self)} & {_paren(right)}")

    def __rand__(self, other: SelectorLike) -> Selector:
        return as_selector(other) & self

    def __invert__(self) -> Selector:
        return Selector(lambda info: not self(info), f"~{_paren(self)}")

    def __repr__(self) -> str:
        return self.label


SelectorLike: TypeAlias = Selector | str | type[nn.Module] | types.UnionType | Predicate
Selection: TypeAlias = "SelectorLike | Sequence[SelectorLike]"


def _compound(predicate: Predicate, label: str) -> Selector:
    selector = Selector(predicate, label)
    selector.compound = True
    return selector


def _paren(selector: Selector) -> str:
    return f"({selector.label})" if selector.compound else selector.label


@answering
def where(predicate: Predicate, label: str | None = None) -> Selector:
    """Return a selector from a condition on a `ParameterInfo`.

    Args:
        predicate: Called with each parameter's `ParameterInfo` (name, parameter, module, modules).
        label: How reports call it; default the function's name.

    Returns:
        The selector.

    Raises:
        InvalidArgumentError: If the condition takes no argument.

    Example:
        >>> from bayesreg.selection import biases
        >>> large = where(lambda info: info.parameter.numel() > 1000, "large")
        >>> large | biases
        large | biases
    """
    checks.accepts("predicate", predicate, 1, "a ParameterInfo")
    return Selector(predicate, label or str(getattr(predicate, "__name__", "predicate")))


def as_selector(rule: SelectorLike, argument: str = "rule") -> Selector:
    """Return the selector that a rule key stands for: a glob, a selector, a module type or a predicate.

    Args:
        rule: A glob over names (`*` crosses dots), a `Selector`, a module class or a union of them (all
            parameters inside such a module), or a predicate on `ParameterInfo`.
        argument: Whose it is, for the error.

    Returns:
        The selector.

    Raises:
        InvalidArgumentError: If it is none of these.

    Example:
        >>> from torch import nn
        >>> as_selector(nn.Conv1d | nn.Conv2d)
        Conv1d | Conv2d
    """
    if isinstance(rule, Selector):
        return rule
    if isinstance(rule, str):
        pattern = rule
        return Selector(lambda info: any(fnmatch.fnmatchcase(n, pattern) for n in info.names), repr(pattern))
    if isinstance(rule, types.UnionType):
        kinds = rule.__args__
        if all(isinstance(k, type) and issubclass(k, nn.Module) for k in kinds):
            return _by_type(*kinds)
    elif isinstance(rule, type):
        if issubclass(rule, nn.Module):
            return _by_type(rule)
    elif callable(rule) and not isinstance(rule, nn.Module):
        checks.accepts(argument, rule, 1, "a ParameterInfo")
        return where(rule)
    instance = isinstance(rule, nn.Module | Tensor)
    given = f"a {type(rule).__name__}; name it by a glob" if instance else repr(rule)[:200]
    raise InvalidArgumentError(
        f"{argument}: expected a glob such as 'head.*', a selector such as br.biases, an nn.Module class or a "
        f"predicate, got {given}."
    )


def any_of(rules: Selection, argument: str = "rule") -> Selector:
    """Return the selector of one rule key or of several together.

    Args:
        rules: As in `as_selector`, or a list of them.
        argument: Whose they are, for the error.

    Returns:
        The selector.

    Raises:
        InvalidArgumentError: If one is no rule, or the list is empty.

    Example:
        >>> from bayesreg.selection import biases
        >>> any_of(["head.*", biases])
        'head.*' | biases
    """
    if not isinstance(rules, list | tuple):
        return as_selector(rules, argument)  # type: ignore[arg-type]
    if not rules:
        raise InvalidArgumentError(f"{argument}: expected a rule key or a list of them, got an empty list.")
    return functools.reduce(Selector.__or__, [as_selector(rule, argument) for rule in rules])


def selected(argument: str, rule: Selection, infos: Sequence[ParameterInfo]) -> set[str]:
    """Return the names of the parameters that a rule, or any of several, selects.

    Args:
        argument: Whose rule it is, for the error.
        rule: As in `any_of`.
        infos: The parameters to choose from.

    Returns:
        Their names.

    Raises:
        PatternError: If it selects none, or one of several does not.
    """
    if isinstance(rule, list | tuple) and rule:
        return set().union(*(selected(argument, one, infos) for one in rule))
    selector = any_of(rule, argument)
    found = {info.name for info in infos if selector(info)}
    if not found:
        names = [name for info in infos for name in info.names]
        modules = dict.fromkeys(f"{name.rpartition('.')[0]}.*" for name in names if "." in name)
        hint = (nearest(rule, [*modules, *names]) if isinstance(rule, str) else "") or "."
        raise PatternError(f"{argument} {selector.label}: expected a rule that matches a parameter, got none{hint}")
    return found


def _by_type(*kinds: type) -> Selector:
    return Selector(lambda info: inside(info, *kinds), " | ".join(kind.__name__ for kind in kinds))


def inside(info: ParameterInfo, *kinds: type) -> bool:
    """Return whether a parameter is inside a module of one of these kinds, at any of its places.

    Args:
        info: The parameter.
        *kinds: Module classes.

    Returns:
        Whether it is.
    """
    return any(isinstance(module, kinds) for chain in (info.modules, *info.shared) for module in chain)
