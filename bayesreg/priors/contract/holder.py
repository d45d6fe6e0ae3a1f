"""How a prior keeps its hyper-parameters, and answers wrong ones."""

from __future__ import annotations

import copy
import functools
import inspect
from abc import ABCMeta
from collections import OrderedDict
from collections.abc import Callable, Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg._support.arguments import wrong_kind
from bayesreg._support.calls import TELLING, wrong_call
from bayesreg._support.plain import from_plain, to_plain
from bayesreg.errors import BayesRegError, InvalidArgumentError, kind_of
from bayesreg.priors.contract.tensors import Hyperparameter, promoted

__all__ = ["Holder"]


# What families answer of a tensor of weights: each looks at it before it computes.
_OF_A_VALUE = {"log_prob", "penalty", "prox", "curvature", "curvature_times", "psd_curvature", "at_kink"}


def _of_real_weights(method: Any) -> Any:
    """Let a method refuse what is no tensor of real weights, and a step that leads nowhere."""
    if not inspect.isfunction(method):
        return method
    takes = inspect.signature(method)
    named = {p.name for p in takes.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    open_ended = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in takes.parameters.values())
    # A family of one's own may call it otherwise.
    first = next(iter([*takes.parameters][1:]), "")
    if first not in named:
        return method

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if not open_ended and (not keywords.keys() <= named or not (arguments or first in keywords)):
            said = wrong_call(f"{type(self).__name__}.{method.__name__}", takes, (self, *arguments), keywords)
            if said:
                raise InvalidArgumentError(said)
        if not arguments and first not in keywords:
            return method(self, *arguments, **keywords)
        value = arguments[0] if arguments else keywords[first]
        if not isinstance(value, Tensor):
            raise InvalidArgumentError(f"{first}: expected a tensor, got {kind_of(value)}.")
        if value.dtype is torch.bool or (value.is_complex() and not self._takes_complex):
            raise InvalidArgumentError(
                f"{first}: expected real values, got {str(value.dtype).removeprefix('torch.')}; a density over real "
                f"and imaginary parts takes torch.view_as_real({first})."
            )
        if "step" in named:
            step = keywords["step"] if "step" in keywords else arguments[1] if len(arguments) > 1 else None
            checked = _step(step, value)
            if "step" in keywords:
                keywords["step"] = checked
            else:
                arguments = (value, checked, *arguments[2:])
        return method(self, *arguments, **keywords)

    return call


def _step(step: Any, value: Tensor) -> float | Tensor:
    """Return a step as a float or a tensor, checked."""
    # The numbers in a tensor of steps are not looked at: on a GPU that would wait for them.
    if isinstance(step, Tensor):
        if step.numel() != 1 and step.shape != value.shape:
            raise InvalidArgumentError(
                f"step: expected one number or the shape of value, {tuple(value.shape)}, got shape {tuple(step.shape)}."
            )
        if step.is_complex() or step.dtype is torch.bool:
            raise InvalidArgumentError(f"step: expected real numbers, got dtype {step.dtype}.")
        return step
    number: Any = step.item() if getattr(step, "ndim", 1) == 0 and hasattr(step, "item") else step
    real = isinstance(number, Real) and not isinstance(number, bool)
    # Compared as it is: an integer may be too large for a float.
    if not real or not 0 <= number < 1e300:
        raise InvalidArgumentError(f"step: expected a number or tensor >= 0, got {kind_of(step)} {step!r}.")
    return float(number)


def _by_a_factor(method: Any) -> Any:
    """Let `times` refuse what is no factor."""
    if not inspect.isfunction(method):
        return method
    takes = inspect.signature(method)

    @functools.wraps(method)
    def times(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if said := wrong_call(f"{type(self).__name__}.times", takes, (self, *arguments), keywords):
            raise InvalidArgumentError(said)
        return method(self, checks.positive_float("factor", (*arguments, *keywords.values())[0]))

    return times


class _Strict(ABCMeta):
    """Answers wrong arguments of a constructor with those that it takes; has classes check what they declare."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
        super().__init__(name, bases, namespace)
        own = inspect.signature(cls.__init__)  # type: ignore[misc]
        # Said outright: help() would show the arguments of __call__ below.
        cls.__signature__ = own.replace(parameters=list(own.parameters.values())[1:])
        if "times" in namespace:
            cls.times = _by_a_factor(namespace["times"])
        for asked in _OF_A_VALUE & namespace.keys():
            if not getattr(namespace[asked], "__isabstractmethod__", False):
                setattr(cls, asked, _of_real_weights(namespace[asked]))
        if not inspect.isabstract(cls):
            cls._check_abilities(getattr(cls, "traits", None))  # type: ignore[attr-defined]

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        if not torch.compiler.is_compiling() and (said := wrong_kind(cls, arguments, keywords, firm=True)):
            raise InvalidArgumentError(said)
        try:
            made = super().__call__(*arguments, **keywords)
            own: Any = getattr(made, "__dict__", {})
            if "traits" in own:
                made._check_abilities(own["traits"])
            return made
        except TELLING as error:
            if isinstance(error, BayesRegError):
                raise
            said = wrong_call(cls.__name__, inspect.signature(cls), arguments, keywords)
            if said:
                hints: Mapping[str, str] = getattr(cls, "_hints", {})
                raise InvalidArgumentError(said + "".join(hints.get(given, "") for given in keywords)) from error
            if said := wrong_kind(cls, arguments, keywords):
                raise InvalidArgumentError(said) from error
            raise


class Holder(nn.Module, metaclass=_Strict):
    """A module whose hyper-parameters are buffers, or Parameters where they are learned.

    Scalars are float64 buffers that stay on the CPU; tensors move with the module and are never narrowed.
    """

    #: Hyper-parameters that are tensors but do not broadcast to the parameter.
    _not_shaped: frozenset[str] = frozenset()
    #: Whether complex weights have a density too: the flat one alone.
    _takes_complex: bool = False
    #: What to write in place of an argument that people give and the constructor does not take.
    _hints: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def _check_abilities(cls, traits: Any) -> None:
        """Raise if these are abilities that the class does not have; asked when it is made, or its object."""

    def _tensors(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters(recurse=False)), **dict(self.named_buffers(recurse=False))}

    def _hold(self, name: str, value: Hyperparameter) -> None:
        """Keep a hyper-parameter: learned ones as Parameters, the rest as buffers, scalars in float64."""
        if isinstance(value, nn.Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Tensor) and value.requires_grad:
            raise InvalidArgumentError(
                f"{name}: expected a number, a tensor or an nn.Parameter, got a tensor that requires a gradient; wrap "
                f"it, nn.Parameter({name}), to learn it, or write {name}.detach()."
            )
        elif isinstance(value, Tensor) and value.ndim > 0:
            # A copy: the tensor may be the very weight that is about to be trained.
            # In float32 or better, which holds a narrower number exactly: squares of a scale leave float16.
            self.register_buffer(name, promoted(value.detach()).clone())
        else:
            self.register_buffer(name, torch.tensor(float(value), dtype=torch.float64))

    # -- copies and pickles ----------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Pickles hold plain values; a copy keeps Parameters that are shared, and devices.
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        made.__dict__.update({name: _copied(value, memo) for name, value in self.__dict__.items()})
        return made

    def __copy__(self) -> Self:
        made = self.__class__.__new__(self.__class__)
        made.__dict__.update(self.__dict__)
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Return plain values in place of tensors, so that equal priors are equal pickles and hash alike."""
        state = dict(self.__dict__)
        plain = {name: to_plain(held) for name, held in self._buffers.items()}
        if any(parameter is not None for parameter in self._parameters.values()) or not all(plain.values()):
            return super().__reduce_ex__(protocol)
        return _remade, (type(self), {**state, "_buffers": plain})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            if old is None or new is None:
                continue
            if old.ndim == 0:
                self._buffers[name] = old
            elif torch.promote_types(new.dtype, old.dtype) != new.dtype:
                self._buffers[name] = old.to(new.device)
        return self


# A module holds a dozen of these.
_EMPTY = (dict, OrderedDict, set)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """Return a deep copy; of what needs none in no time."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in _EMPTY and not value:
        return kind()
    if kind is dict:
        return {name: _copied(held, memo) for name, held in value.items()}
    if kind is Tensor and value.ndim == 0 and id(value) not in memo and not value.requires_grad:
        memo[id(value)] = value.clone()
    return copy.deepcopy(value, memo)


def _remade(cls: type[Holder], state: dict[str, Any]) -> Holder:
    made = cls.__new__(cls)
    made.__dict__.update({**state, "_buffers": {name: from_plain(held) for name, held in state["_buffers"].items()}})
    return made
