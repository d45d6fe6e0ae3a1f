"""Weights whose length the network does not see: those right in front of a normalisation."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from bayesreg.selection import parameters_of

__all__ = ["scale_free_weights"]


def scale_free_weights(model: nn.Module) -> dict[str, str]:
    """Find weights whose scale a normalisation removes again.

    A linear or convolutional layer whose every reader is a batch-norm (or an instance-, group- or layer-norm, if the
    layer has no bias) gives the same output for W and cW, up to the norm's epsilon. Found by tracing a copy without
    data; parts that cannot be traced are judged by their `nn.Sequential` order alone, so some may be missed.

    Args:
        model: The model.

    Returns:
        From the weight's name to the norm's.

    Example:
        >>> scale_free_weights(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Linear(4, 2)))
        {'0.weight': '1'}
    """
    modules = dict(model.named_modules())
    pairs = {}
    for layer, norm in _pairs(model, ""):
        frozen_norm = model.training and not modules[norm].training
        if _removes_scale(modules[layer], modules[norm]) and not frozen_norm:
            pairs[id(modules[layer])] = norm
    return {
        info.name: pairs[id(info.module)].replace("_orig_mod.", "").removeprefix("module.")
        for info in parameters_of(model)
        if info.attribute == "weight" and id(info.module) in pairs and not info.shared
    }


def _removes_scale(layer: nn.Module, norm: nn.Module) -> bool:
    if not isinstance(layer, nn.Linear | _ConvNd):
        return False
    # Their mean takes the layer's bias away, channel by channel.
    if isinstance(norm, _BatchNorm | _InstanceNorm):
        return True
    return isinstance(norm, nn.GroupNorm | nn.LayerNorm | nn.RMSNorm) and layer.bias is None


def _pairs(module: nn.Module, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield names of a layer and the norm that alone reads it."""
    graph = _traced(module)
    if graph is not None:
        calls = [node for node in graph.nodes if node.op == "call_module"]
        # A weight that is read directly, past its layer, is read without the norm.
        direct = [str(node.target).rsplit(".", 1)[0] for node in graph.nodes if node.op == "get_attr"]
        norms_of: dict[str, str | None] = dict.fromkeys(direct)
        for node in calls:
            readers = [str(user.target) if user.op == "call_module" else "" for user in node.users]
            all_norms = bool(readers) and all(name and _is_norm(module.get_submodule(name)) for name in readers)
            # A layer that is called twice must be in front of a norm both times.
            target = str(node.target)
            norms_of[target] = readers[0] if all_norms and norms_of.get(target, "") is not None else None
        yield from ((f"{prefix}{layer}", f"{prefix}{norm}") for layer, norm in norms_of.items() if norm is not None)
        return
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        names = list(module._modules)
        for first, second in itertools.pairwise(names):
            if _is_norm(module._modules[second]):
                yield f"{prefix}{first}", f"{prefix}{second}"
    for name, child in module.named_children():
        yield from _pairs(child, f"{prefix}{name}.")


def _is_norm(module: nn.Module | None) -> bool:
    return isinstance(module, _BatchNorm | _InstanceNorm | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm)


def _traced(module: nn.Module) -> fx.Graph | None:
    """Trace a copy that holds no data; None where the code cannot be traced."""
    tensors = [*module.parameters(), *module.buffers()]
    memo = {id(t): t.detach().to("meta").requires_grad_(t.requires_grad) for t in tensors}
    memo = {
        key: nn.Parameter(t, requires_grad=t.requires_grad) if isinstance(original, nn.Parameter) else t
        for (key, t), original in zip(memo.items(), tensors, strict=True)
    }
    try:
        with torch.no_grad():
            return fx.Tracer().trace(copy.deepcopy(module, memo))
    except Exception:  # noqa: BLE001 (a user's forward may raise anything when it meets a tracer)
        return None
