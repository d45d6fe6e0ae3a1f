"""Finding the factors of low-rank adapters in a model: PEFT's layers and others that name them alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.selection import ParameterInfo

__all__ = ["AdapterPair", "find_pairs"]

# The right factor's name, a component of the parameter's, and the left one's.
_NAMES = {
    "lora_A": "lora_B",
    "lora_a": "lora_b",
    "lora_embedding_A": "lora_embedding_B",
    "lora_down": "lora_up",
}

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


def find_pairs(infos: Sequence[ParameterInfo], scaling: float | None) -> list[AdapterPair]:
    """Return the pairs of factors that a model names as LoRA does.

    Args:
        infos: Its parameters.
        scaling: What multiplies every product, where the layers do not say.

    Returns:
        The pairs; those whose factors are both frozen (adapters that are not active) are left out.

    Raises:
        InvalidArgumentError: If a factor lacks its partner, or the scaling is not known.
        UnsupportedError: If a layer adds something else than scaling·B·A.
    """
    by_name = {name: info for info in infos for name in info.names}
    pairs = []
    for info in infos:
        tokens = info.name.split(".")
        place = next((i for i in range(len(tokens) - 1, -1, -1) if tokens[i] in _NAMES), None)
        if place is None:
            continue
        # lora_B may hold a bias beside its weight.
        partner = ".".join([*tokens[:place], _NAMES[tokens[place]], *tokens[place + 1 :]])
        if partner not in by_name:
            raise InvalidArgumentError(
                f"model: expected {partner} beside {info.name}, got none; name the factors by factors=[(left, right)]."
            )
        left = by_name[partner]
        if not (left.parameter.requires_grad or info.parameter.requires_grad):
            continue
        inside = len(tokens) - place
        layer = info.modules[-inside] if inside <= len(info.modules) else info.module
        adapter = tokens[place + 1] if inside > 1 else ""
        _refuse_variants(layer, adapter, info.name)
        pairs.append(
            AdapterPair(
                left,
                info,
                _scaling_of(layer, adapter, info.name) if scaling is None else scaling,
                _weight_name(tokens[:place]),
                tokens[place] == "lora_embedding_A" or bool(getattr(layer, "fan_in_fan_out", False)),
            )
        )
    return pairs


def _weight_name(layer: Sequence[str]) -> str:
    """Return the name of the adapted weight in the model that was wrapped."""
    inner = list(layer[2:] if list(layer[:2]) == ["base_model", "model"] else layer)
    return ".".join([*inner, "weight"])


def _scaling_of(layer: nn.Module, adapter: str, name: str) -> float:
    """Return scaling from where PEFT, loralib, torchtune or kohya-like layers keep it."""
    kept: Any = layer
    found: Any = getattr(kept, "scaling", None)
    if isinstance(found, dict):
        found = found.get(adapter)
    rank = getattr(kept, "rank", None) or getattr(kept, "r", None)
    if found is None and rank and hasattr(kept, "alpha"):
        found = float(kept.alpha) / float(rank)
    if isinstance(found, Tensor) and found.numel() == 1:
        found = float(found)
    if not isinstance(found, int | float) or isinstance(found, bool):
        raise InvalidArgumentError(
            f"scaling: {type(layer).__name__} does not say what multiplies the product of {name} and its partner; give "
            f"it, such as scaling=alpha/rank."
        )
    return float(found)


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
