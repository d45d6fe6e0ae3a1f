"""Every parameter of a model once, by all of its names: tied, compiled, wrapped and parametrized ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bayesreg.selection.parameter import ParameterInfo

__all__ = ["buffers_of", "canonical_tensors", "parameters_of"]

# The inner module of torch's wrappers, by the key under which it is registered.
_TRANSPARENT = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel, AveragedModel)


@dataclass
class _Found:
    name: str
    alias: str | None
    modules: tuple[nn.Module, ...]
    attribute: str
    tensor: Tensor


def _walk(module: nn.Module, prefix: str, above: tuple[nn.Module, ...], buffers: bool) -> Iterator[_Found]:
    """Yield every parameter (and buffer) with its plain name, looking through wrappers and parametrizations."""
    held = dict(module._modules.items())
    inner = next((held[key] for key in _TRANSPARENT if held.get(key) is not None), None)
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
                yield _Found(prefix + attribute, _before_pruning(module, prefix, attribute), here, attribute, tensor)
    for key, child in held.items():
        if child is None:
            continue
        if key == "parametrizations" and isinstance(child, nn.ModuleDict):
            yield from _walk_parametrized(child, prefix, here, buffers)
        else:
            yield from _walk(child, f"{prefix}{key}.", here, buffers)


def _before_pruning(module: nn.Module, prefix: str, attribute: str) -> str | None:
    """Return the name that a parameter had before `torch.nn.utils.prune` masked it, None for any other."""
    plain = attribute.removesuffix("_orig")
    return prefix + plain if plain != attribute and f"{plain}_mask" in module._buffers else None


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
