"""From names and selectors to parameters: tied, compiled, wrapped and frozen ones handled once, here."""

from __future__ import annotations

import fnmatch
import functools
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import AveragedModel

from bayesreg.errors import InvalidArgumentError, PatternError, nearest

__all__ = [
    "ParameterInfo",
    "Selection",
    "Selector",
    "SelectorLike",
    "any_of",
    "as_selector",
    "biases",
    "buffers_of",
    "canonical_tensors",
    "embeddings",
    "norms",
    "parameters_of",
    "selected",
    "where",
]

# The inner module of torch's wrappers, by the key under which it is registered.
_TRANSPARENT = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel, AveragedModel)


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter as selectors see it.

    Attributes:
        name: Its name in the plain model, free of `module.`, `_orig_mod.` and the like.
        names: All names it goes by: tied weights have several, `weight_norm` adds the name before it.
        parameter: The parameter, as it is now.
        modules: The modules around it, outermost first; the last one owns it.
        attribute: Its attribute name in the owner.
        shared: The modules around it at its other places, for tied weights.
        keys: The names under which a state dict of the plain model holds it: `names` without those that only stand for
            it.
        raw: The names that it has in `model.named_parameters()`, as the model is: compiled, wrapped, parametrized.
    """

    name: str
    names: tuple[str, ...]
    modules: tuple[nn.Module, ...] = field(repr=False)
    attribute: str
    shared: tuple[tuple[nn.Module, ...], ...] = field(default=(), repr=False)
    keys: tuple[str, ...] = field(default=(), repr=False)
    raw: tuple[str, ...] = field(default=(), repr=False)

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter, looked up afresh: loading with assign=True or sharding replaces the object."""
        owner = self.modules[-1]
        found = owner._parameters.get(self.attribute)
        if found is None:
            found = cast(nn.Parameter, owner._buffers[self.attribute])
        return found

    @property
    def module(self) -> nn.Module:
        """The module that owns the parameter."""
        return self.modules[-1]


Predicate: TypeAlias = Callable[[ParameterInfo], bool]


class Selector:
    """A set of parameters by a condition; combine with `|`, `&` and `~`.

    Args:
        predicate: Called with a `ParameterInfo`; true selects the parameter.
        label: How reports call it.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        >>> [info.name for info in parameters_of(model) if (biases | norms)(info)]
        ['0.bias', '1.weight', '1.bias']
    """

    def __init__(self, predicate: Predicate, label: str) -> None:
        self._predicate = predicate
        self.label = label
        self.compound = False

    def __call__(self, info: ParameterInfo) -> bool:
        """Return whether the parameter is selected."""
        return bool(self._predicate(info))

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


def where(predicate: Predicate, label: str | None = None) -> Selector:
    """Return a selector from a condition on a `ParameterInfo`.

    Args:
        predicate: Called with each parameter's `ParameterInfo` (name, parameter, module, modules).
        label: How reports call it; default the function's name.

    Returns:
        The selector.

    Example:
        >>> large = where(lambda info: info.parameter.numel() > 1000, "large")
        >>> large | biases
        large | biases
    """
    return Selector(predicate, label or str(getattr(predicate, "__name__", "predicate")))


def as_selector(rule: SelectorLike) -> Selector:
    """Return the selector that a rule key stands for: a glob, a selector, a module type or a predicate.

    Args:
        rule: A glob over names (`*` crosses dots), a `Selector`, a module class or a union of them (all
            parameters inside such a module), or a predicate on `ParameterInfo`.

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
        return where(rule)
    instance = isinstance(rule, nn.Module | Tensor)
    raise InvalidArgumentError(
        f"rule: expected a glob such as 'head.*', a selector such as br.biases, an nn.Module class or a predicate, got "
        f"{f'a {type(rule).__name__}; name it by a glob' if instance else repr(rule)}."
    )


def any_of(rules: Selection) -> Selector:
    """Return the selector of one rule key or of several together.

    Args:
        rules: As in `as_selector`, or a list of them.

    Returns:
        The selector.

    Example:
        >>> any_of(["head.*", biases])
        'head.*' | biases
    """
    if not isinstance(rules, list | tuple):
        return as_selector(rules)  # type: ignore[arg-type]
    return functools.reduce(Selector.__or__, [as_selector(rule) for rule in rules])


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
    selector = any_of(rule)
    found = {info.name for info in infos if selector(info)}
    if not found:
        names = [name for info in infos for name in info.names]
        modules = dict.fromkeys(f"{name.rpartition('.')[0]}.*" for name in names if "." in name)
        hint = (nearest(rule, [*modules, *names]) if isinstance(rule, str) else "") or "."
        raise PatternError(f"{argument} {selector.label}: expected a rule that matches a parameter, got none{hint}")
    return found


def _by_type(*kinds: type) -> Selector:
    label = " | ".join(kind.__name__ for kind in kinds)

    def inside(info: ParameterInfo) -> bool:
        return any(isinstance(module, kinds) for chain in (info.modules, *info.shared) for module in chain)

    return Selector(inside, label)


def _is_bias(info: ParameterInfo) -> bool:
    # bias_ih_l0 of recurrent layers, in_proj_bias of attention; never `debias.weight`: only the attribute counts.
    attributes = {name.rsplit(".", 1)[-1] for name in info.names}
    return any(a == "bias" or a.startswith("bias_") or a.endswith("_bias") for a in attributes)


biases: Selector = Selector(_is_bias, "biases")
"""Every bias: attributes called `bias`, `bias_*` or `*_bias`."""

norms: Selector = Selector(_by_type(_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), "norms")
"""Scale and shift of every normalisation layer torch has; add your own with `br.norms | MyNorm`."""

embeddings: Selector = Selector(_by_type(nn.Embedding, nn.EmbeddingBag), "embeddings")
"""The tables of `nn.Embedding` and `nn.EmbeddingBag`."""


@dataclass
class _Found:
    name: str
    alias: str | None
    modules: tuple[nn.Module, ...]
    attribute: str
    tensor: Tensor


def _walk(module: nn.Module, prefix: str, above: tuple[nn.Module, ...], buffers: bool) -> Iterator[_Found]:
    """Yield every parameter (and buffer) with its plain name, looking through wrappers and parametrizations."""
    inner = next((module._modules[key] for key in _TRANSPARENT if module._modules.get(key) is not None), None)
    if inner is None and isinstance(module, _WRAPPERS):
        inner = module.module
    if inner is not None:
        yield from _walk(inner, prefix, above, buffers)
        return
    here = (*above, module)
    stores: list[dict[str, Any]] = [module._parameters, module._buffers] if buffers else [module._parameters]
    for store in stores:
        for attribute, tensor in store.items():
            if tensor is not None:
                yield _Found(prefix + attribute, None, here, attribute, tensor)
    for key, child in module._modules.items():
        if child is None:
            continue
        if key == "parametrizations" and isinstance(child, nn.ModuleDict):
            yield from _walk_parametrized(child, prefix, here, buffers)
        else:
            yield from _walk(child, f"{prefix}{key}.", here, buffers)


def _walk_parametrized(
    dictionary: nn.ModuleDict, prefix: str, above: tuple[nn.Module, ...], buffers: bool
) -> Iterator[_Found]:
    """Name the tensors behind a parametrized `weight` so that rules written for `weight` find them."""
    for attribute, listing in dictionary.items():
        plain = prefix + attribute
        for found in _walk(listing, "", (*above, dictionary), buffers):
            if found.name == "original":
                found.name = plain
            else:
                found.name, found.alias = f"{plain}.{found.name}", plain
            yield found


def parameters_of(model: nn.Module) -> list[ParameterInfo]:
    """List the parameters of a model, each once, under the names of the plain model.

    Args:
        model: Any module: plain, compiled, wrapped by DDP, FSDP or `AveragedModel`, or parametrized.

    Returns:
        One entry per parameter object, in the model's order; tied weights carry all their names.

    Example:
        >>> from torch import nn
        >>> tied = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
        >>> tied[1].weight = tied[0].weight
        >>> [info.names for info in parameters_of(tied)]
        [('0.weight', '1.weight')]
    """
    by_identity: dict[int, list[_Found]] = {}
    for found in _walk(model, "", (), buffers=False):
        by_identity.setdefault(id(found.tensor), []).append(found)
    raw: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        raw.setdefault(id(parameter), []).append(name)
    infos = []
    for group in by_identity.values():
        first = group[0]
        names = dict.fromkeys(n for found in group for n in (found.name, found.alias) if n is not None)
        shared = tuple(found.modules for found in group[1:])
        keys = tuple(dict.fromkeys(found.name for found in group))
        infos.append(
            ParameterInfo(
                first.name,
                tuple(names),
                first.modules,
                first.attribute,
                shared,
                keys,
                tuple(raw.get(id(first.tensor), keys)),
            )
        )
    return infos


def buffers_of(model: nn.Module) -> list[ParameterInfo]:
    """List the buffers that a state dict of the model holds, as selectors see them.

    Args:
        model: Any module, as in `parameters_of`.

    Returns:
        One entry per buffer.

    Example:
        >>> from torch import nn
        >>> [info.name for info in buffers_of(nn.Sequential(nn.BatchNorm1d(2)))]
        ['0.running_mean', '0.running_var', '0.num_batches_tracked']
    """
    return [
        ParameterInfo(found.name, (found.name,), found.modules, found.attribute, keys=(found.name,))
        for found in _walk(model, "", (), buffers=True)
        if found.attribute in found.modules[-1]._buffers
        and found.attribute not in found.modules[-1]._non_persistent_buffers_set
    ]


def canonical_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by plain name; tied ones under every name."""
    return {found.name: found.tensor for found in _walk(model, "", (), buffers=True)}
