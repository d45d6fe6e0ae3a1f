"""What multiplies the product of an adapter's factors, as the layer that holds them says."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from torch import Tensor, nn

from bayesreg.selection import ParameterInfo

__all__ = ["ADAPTER_NAMES", "adapter_place", "last_component", "said_scaling"]

#: The right factor's name, a component of the parameter's, and the left one's.
ADAPTER_NAMES = {
    "lora_A": "lora_B",
    "lora_a": "lora_b",
    "lora_embedding_A": "lora_embedding_B",
    "lora_down": "lora_up",
}


def last_component(tokens: Sequence[str], known: Container[str]) -> int | None:
    """Return the index of the last component of a name that is one of those known, None without."""
    return next((i for i in range(len(tokens) - 1, -1, -1) if tokens[i] in known), None)


def adapter_place(info: ParameterInfo) -> tuple[int, nn.Module, str] | None:
    """Return where a factor's name says that it is one: the component's index, the layer, the adapter's name.

    Args:
        info: A parameter.

    Returns:
        None where its name does not.
    """
    tokens = info.name.split(".")
    place = last_component(tokens, {*ADAPTER_NAMES, *ADAPTER_NAMES.values()})
    if place is None:
        return None
    inside = len(tokens) - place
    layer = info.modules[-inside] if inside <= len(info.modules) else info.module
    return place, layer, tokens[place + 1] if inside > 1 else ""


def said_scaling(layer: nn.Module, adapter: str) -> float | None:
    """Return scaling from where PEFT, loralib, torchtune or kohya-like layers keep it.

    Args:
        layer: The layer that holds the factors.
        adapter: The adapter's name, for layers that hold several.

    Returns:
        None where the layer does not say.
    """
    kept: Any = layer
    found: Any = getattr(kept, "scaling", None)
    if isinstance(found, dict):
        found = found.get(adapter)
    rank = getattr(kept, "rank", None) or getattr(kept, "r", None)
    alpha = getattr(kept, "alpha", None)
    if found is None and isinstance(rank, int | float) and isinstance(alpha, int | float | Tensor):
        found = float(alpha) / float(rank)
    if isinstance(found, Tensor) and found.numel() == 1:
        found = float(found)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
