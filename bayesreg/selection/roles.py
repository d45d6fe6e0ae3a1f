"""What a parameter is in its model, told by its shape, its module and its name, never by its values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import ParametrizationList

from bayesreg.selection.parameter import ParameterInfo
from bayesreg.selection.selectors import Selector, inside

__all__ = ["Role", "biases", "embeddings", "kernels", "norms", "role_of", "vectors"]

Role: TypeAlias = Literal["weight", "embedding", "bias", "norm", "vector"]

# `bias`, `biases`, `bias_ih_l0`, `in_proj_bias`, `bias1`; never `debias`.
_BIAS = re.compile(r"(.*_)?bias(es)?(_.*|\d*)")
_SHORT_BIAS = re.compile(r"b\d*")
# A class that normalises: LlamaRMSNorm, T5LayerNorm, LayerNorm2d; never NormalHead, nor a NormedLinear's kernel.
_NORM_CLASS = re.compile(r"norm(?!al|ed|ali[sz])", re.IGNORECASE)
_KERNEL_CLASS = re.compile(r"linear|conv|dense|attention|embedding|mlp|block|layer\b|net\b|model", re.IGNORECASE)
# What multiplies or shifts each channel of what a module is given, whatever its shape.
_GAIN = re.compile(
    r"(.*_)?(gain|gamma|beta|scale|shift|slope|temperature|token|tokens|gate)(_?\d+)?|layer_?scale.*|logit_scale"
)
# Rates and widths that are held as logarithms: the A_log of state space models. 0 is no smaller there than 1.
_LOGARITHM = re.compile(r"(.*_)?logs?(_.*)?", re.IGNORECASE)
_TORCH_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_TABLES = (nn.Embedding, nn.EmbeddingBag)
_LAYERS = (nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, *_TABLES)


def _is_bias(info: ParameterInfo) -> bool:
    # Only the attribute counts, or the name of the list it is in.
    for words in (name.split(".") for name in info.names):
        if _BIAS.fullmatch(words[-1]):
            return True
    if isinstance(info.module, nn.ParameterList | nn.ParameterDict):
        above = [name.split(".")[-2] for name in info.names if "." in name]
        if any(_BIAS.fullmatch(word) or (_SHORT_BIAS.fullmatch(word) and _is_thin(info)) for word in above):
            return True
    return bool(_SHORT_BIAS.fullmatch(info.attribute)) and _is_thin(info)


def _is_norm(info: ParameterInfo) -> bool:
    if inside(info, *_TORCH_NORMS):
        return True
    # A norm written by hand owns its gain and shift itself; a kernel of several axes is never one of them.
    owner = type(info.module).__name__
    return bool(_NORM_CLASS.search(owner)) and (
        _is_thin(info) or not (_KERNEL_CLASS.search(owner) or re.fullmatch(r"weight.*|kernel", info.attribute))
    )


def _is_thin(info: ParameterInfo) -> bool:
    """Return whether it has one axis at most: a vector or a number, or one that is only shaped to broadcast."""
    shape = tuple(info.parameter.shape)
    if len(shape) <= 1:
        return True
    if _owned_by_layer(info):
        return False
    several = sum(size > 1 for size in shape)
    # (1, n) and (n, 1) are the matrices of one output or one input, unless their name says otherwise.
    return several <= 1 and (len(shape) > 2 or bool(_GAIN.fullmatch(info.attribute)))


def _owned_by_layer(info: ParameterInfo) -> bool:
    """Return whether a layer owns it whose weight is a kernel, whatever its sizes are."""
    owner = info.module
    if isinstance(owner, ParametrizationList) or hasattr(owner, "kernel_size"):
        return True
    return isinstance(owner, _LAYERS)


def _is_left_out(info: ParameterInfo) -> bool:
    """Return whether the model itself names it among what no decay should touch."""
    for module in info.modules:
        names: Any = getattr(module, "no_weight_decay", None)
        if callable(names):
            try:
                listed = [str(name) for name in names()]
            except Exception:  # noqa: BLE001 (a method of the user's that only has this name)
                continue
            if any(info.name == one or info.name.endswith("." + one) for one in listed):
                return True
    return False


def role_of(info: ParameterInfo) -> Role:
    """Return what a parameter is in its model.

    Args:
        info: The parameter.

    Returns:
        "bias"; "norm": gain or shift of a normalisation; "vector": anything else that is no matrix or kernel (slopes,
        temperatures, tokens, gains of layers), and what the model itself leaves out of its decay; "embedding"; or
        "weight": a matrix or a kernel.

    Example:
        >>> from bayesreg.selection import parameters_of
        >>> [role_of(info) for info in parameters_of(nn.Sequential(nn.Linear(2, 2), nn.PReLU(), nn.LayerNorm(2)))]
        ['weight', 'bias', 'vector', 'norm', 'bias']
    """
    if _is_bias(info):
        return "bias"
    if _is_norm(info):
        return "norm"
    if _is_thin(info) or _LOGARITHM.fullmatch(info.attribute) or _is_left_out(info):
        return "vector"
    return "embedding" if inside(info, *_TABLES) else "weight"


def _with_role(*roles: Role) -> Callable[[ParameterInfo], bool]:
    return lambda info: role_of(info) in roles


biases: Selector = Selector(_is_bias, "biases")
"""Every bias: `bias`, `bias_*`, `*_bias`, `bias1`, a vector called `b`, and all in a list of one of these names."""

norms: Selector = Selector(_is_norm, "norms")
"""Scale and shift of every normalisation layer: torch's, and those whose class is named like one (LlamaRMSNorm)."""

embeddings: Selector = Selector(lambda info: inside(info, *_TABLES), "embeddings")
"""The tables of `nn.Embedding` and `nn.EmbeddingBag`."""

kernels: Selector = Selector(_with_role("weight", "embedding"), "kernels")
"""Matrices, kernels and tables: what a single prior for a whole model is on."""

vectors: Selector = Selector(_with_role("vector"), "vectors and scalars")
"""What is no matrix, kernel, bias or norm: slopes, temperatures, tokens, gains, and what the model itself leaves out
of its decay (`no_weight_decay`)."""
