"""Finding the factors of low-rank adapters in a model: PEFT's layers and others that name them alike."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from bayesreg._support import checks
from bayesreg.errors import InvalidArgumentError, PatternError, UnsupportedError, nearest
from bayesreg.priors.adapters.scaling import ADAPTER_NAMES, adapter_place, last_component, said_scaling
from bayesreg.selection import ParameterInfo

__all__ = ["AdapterPair", "Scaling", "find_pairs", "plain_name"]

Scaling = float | Mapping[str, float] | None

# Variants of PEFT's layers in which scaling·B·A is still what is added to the weight (for DoRA: to its direction).
_PLAIN_VARIANTS = ("Dora", "_Dora", "MiCA", "ALora", "Velora")


@dataclass(frozen=True)
class AdapterPair:
    """The two factors of one adapter.

    Attributes:
        left: B, of shape (p, r).
        right: A, of shape (r, q).
        scaling: What multiplies B·A.
        weight: The name of the weight that it is added to, in the model without adapters.
        transposed: Whether the update is added transposed (embeddings, `fan_in_fan_out`).
    """

    left: ParameterInfo
    right: ParameterInfo
    scaling: float
    weight: str
    transposed: bool

    @property
    def names(self) -> tuple[str, str]:
        """The names of left and right."""
        return self.left.name, self.right.name

    @property
    def known_as(self) -> tuple[str, ...]:
        """The names that a rule may call it by: the adapted weight's and the factors'."""
        return (self.weight, *self.left.names, *self.right.names)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of left·right."""
        rank = self.right.parameter.shape[0]
        return len(self.left.parameter), self.right.parameter.numel() // rank


def find_pairs(
    infos: Sequence[ParameterInfo], factors: Sequence[tuple[str, str]] | None = None, scaling: Scaling = None
) -> list[AdapterPair]:
    """Return the pairs of factors that a model names as LoRA does, and those that are named here.

    Args:
        infos: Its parameters.
        factors: Pairs (left, right) of names that are factors besides.
        scaling: What multiplies the products, in place of what the layers say: one number, or by globs.

    Returns:
        The pairs; those whose factors are both frozen (adapters that are not active) are left out.

    Raises:
        InvalidArgumentError: If a factor lacks its partner, or the scaling is not known.
        PatternError: If a glob of `scaling` matches no adapter.
        UnsupportedError: If a layer adds something else than scaling·B·A.
    """
    by_name = {name: info for info in infos for name in info.names}
    pairs: list[AdapterPair] = []
    used: set[str] = set()
    for left, right in _named(factors, by_name):
        kept = _given_scaling(scaling, (left.name, right.name), used)
        if kept is None:
            raise InvalidArgumentError(
                f"scaling: expected with factors=, as nothing says what multiplies {left.name}·{right.name}; give it, "
                f"such as scaling=alpha/rank."
            )
        pairs.append(AdapterPair(left, right, kept, left.name, transposed=False))
    taken = {name for pair in pairs for name in pair.names}
    for info in infos:
        at = adapter_place(info)
        if at is None or info.name in taken:
            continue
        place, layer, adapter = at
        tokens = info.name.split(".")
        if tokens[place] not in ADAPTER_NAMES:
            continue
        left = _partner(info, by_name)
        if not (left.parameter.requires_grad or info.parameter.requires_grad):
            continue
        _refuse_variants(layer, adapter, info.name)
        weight = _weight_name(tokens[:place], layer)
        given = _given_scaling(scaling, (weight, left.name, info.name), used)
        said = said_scaling(layer, adapter) if given is None else given
        if said is None:
            raise InvalidArgumentError(
                f"scaling: {type(layer).__name__} does not say what multiplies the product of {info.name} and its "
                f"partner; give it, such as scaling=alpha/rank, or {{{weight!r}: alpha/rank}}."
            )
        transposed = tokens[place] == "lora_embedding_A" or bool(getattr(layer, "fan_in_fan_out", False))
        pairs.append(AdapterPair(left, info, said, weight, transposed))
    if isinstance(scaling, Mapping) and pairs and set(scaling) - used:
        odd = next(key for key in scaling if key not in used)
        hint = nearest(odd, [pair.weight for pair in pairs])
        raise PatternError(f"scaling {odd!r}: expected a glob that decides for an adapter, got one that does not{hint}")
    _refuse_left_over(infos, pairs)
    return pairs


def _partner(right: ParameterInfo, by_name: Mapping[str, ParameterInfo]) -> ParameterInfo:
    """Return the left factor of a right one; one pair may be tied under several names, one factor may not."""
    found: dict[int, ParameterInfo] = {}
    for name in right.names:
        tokens = name.split(".")
        place = last_component(tokens, ADAPTER_NAMES)
        if place is None:
            continue
        partner = ".".join([*tokens[:place], ADAPTER_NAMES[tokens[place]], *tokens[place + 1 :]])
        if partner not in by_name:
            raise InvalidArgumentError(
                f"model: expected {partner} beside {name}, got none; name the factors by factors=[(left, right)]."
            )
        found[id(by_name[partner].parameter)] = by_name[partner]
    if len(found) > 1:
        raise UnsupportedError(
            f"{right.name} is shared by {len(found)} adapters ({', '.join(i.name for i in found.values())}): a prior "
            f"on each of their updates would join more than two factors."
        )
    return next(iter(found.values()))


def _refuse_left_over(infos: Sequence[ParameterInfo], pairs: Sequence[AdapterPair]) -> None:
    """Raise where a factor would be taken for another parameter, or an update be the sum of two."""
    taken = [name for pair in pairs for name in pair.names]
    for name in taken:
        if taken.count(name) > 1:
            raise UnsupportedError(f"{name} is shared by several adapters, which this prior does not cover.")
    for info in infos:
        tokens = info.name.split(".")
        # A bias of lora_B is no factor.
        factor = adapter_place(info) is not None and not tokens[-1].startswith("bias")
        if factor and info.parameter.requires_grad and info.name not in taken:
            raise InvalidArgumentError(
                f"model: {info.name} is a factor without a partner; name the pair by factors=[(left, right)]."
            )
    weights = [pair.weight for pair in pairs]
    twice = next((weight for weight in weights if weights.count(weight) > 1), None)
    if twice is not None:
        raise UnsupportedError(
            f"{twice}: several adapters of this weight are trained, whose updates add up; train one at a time "
            f"(model.set_adapter(name), then merge it), for a prior on the sum has no such form."
        )


def _named(
    factors: Sequence[tuple[str, str]] | None, by_name: Mapping[str, ParameterInfo]
) -> list[tuple[ParameterInfo, ParameterInfo]]:
    if factors is None:
        return []
    named = []
    for pair in factors:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(name, str) for name in pair)):
            raise InvalidArgumentError(f"factors: expected pairs (left, right) of parameter names, got {pair!r}.")
        unknown = [name for name in pair if name not in by_name]
        if unknown:
            raise InvalidArgumentError(
                f"factors: expected names of parameters, got {unknown[0]!r}{nearest(unknown[0], by_name)}"
            )
        named.append((by_name[pair[0]], by_name[pair[1]]))
    return named


def _given_scaling(scaling: Scaling, names: tuple[str, ...], used: set[str]) -> float | None:
    if scaling is None:
        return None
    if not isinstance(scaling, Mapping):
        return checks.positive_float("scaling", scaling)
    for key, value in scaling.items():
        if any(fnmatch.fnmatchcase(name, key) for name in names):
            used.add(key)
            return checks.positive_float(f"scaling of {key}", value)
    return None


def _weight_name(layer_name: Sequence[str], layer: nn.Module) -> str:
    """Return the name that an adapted weight has in the model without adapters."""
    base, own = getattr(layer, "base_layer", None), getattr(layer, "parameter_name", None)
    attribute = "in_proj_weight" if isinstance(base, nn.MultiheadAttention) else own or "weight"
    return plain_name(".".join([*layer_name, str(attribute)]))


def plain_name(name: str) -> str:
    """Return the name that a parameter has in the model without adapters.

    Args:
        name: Its name in the model with them.

    Returns:
        The name.

    Example:
        >>> plain_name("base_model.model.layer.0.query.base_layer.weight")
        'layer.0.query.weight'
    """
    inner: list[str] = []
    for token in name.split("."):
        inner.append(token)
        if inner[-2:] == ["base_model", "model"]:
            del inner[-2:]
        elif token == "base_layer":
            del inner[-1]
    return ".".join(inner)


def _refuse_variants(layer: nn.Module, adapter: str, name: str) -> None:
    """Raise where the update is not scaling·B·A."""
    why = ""
    variant = getattr(layer, "lora_variant", {})
    variant = variant.get(adapter) if isinstance(variant, dict) else None
    if variant is not None and not type(variant).__name__.startswith(_PLAIN_VARIANTS):
        why = f"it is of the variant {type(variant).__name__}"
    if getattr(layer, "num_experts", 1) not in (None, 1):
        why = f"it holds a product for each of {layer.num_experts} experts"
    if adapter in getattr(layer, "lora_E", ()):
        why = "AdaLoRA has a diagonal between its factors"
    base: Any = getattr(layer, "base_layer", layer)
    if getattr(base, "groups", 1) != 1:
        why = f"its convolution has {base.groups} groups"
    if why:
        raise UnsupportedError(
            f"{name}: what {type(layer).__name__} adds to the weight is not scaling·B·A: {why}. Give its factors a "
            f"prior of their own in br.ModelPrior."
        )
