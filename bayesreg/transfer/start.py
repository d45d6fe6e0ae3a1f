"""Starting a model at a reference."""

from __future__ import annotations

import fnmatch
from typing import Literal

import torch
from torch import Tensor, nn

from bayesreg._sharding import local, shard_like
from bayesreg.errors import ReferenceMismatchError, nearest
from bayesreg.references import Reference, Rename, load_reference
from bayesreg.references.names import rename_hint
from bayesreg.selection import ParameterInfo, Selection, buffers_of, parameters_of, selected
from bayesreg.transfer.methods import ReferenceLike

__all__ = ["load_into"]


@torch.no_grad()
def load_into(
    model: nn.Module,
    reference: ReferenceLike,
    *,
    new: Selection | None = None,
    resized: Selection | None = None,
    rename: Rename | None = None,
    extra: Literal["raise", "ignore"] = "raise",
) -> list[str]:
    """Copy a reference's weights and buffers into a model, all that should fit or nothing.

    Takes the same decisions as the priors of `br.transfer`, so that the start and the centre agree; running statistics
    of normalisation layers are copied too.

    Args:
        model: The model; changed in place.
        reference: A module, state dict, file, Hugging Face directory or `Reference`; see `load_reference`.
        new: Rule key, or a list of them, of the layers that keep their own initialisation; a glob also speaks of
            buffers.
        resized: Rule key, or a list, of parameters with another shape than in the reference: the elements that both
            have are copied, the others keep their initialisation.
        rename: From names in the reference to names in the model.
        extra: "raise" (default) or "ignore": reference tensors that the model has no place for.

    Returns:
        The names of parameters and buffers that keep their initialisation, wholly or in part.

    Raises:
        InvalidArgumentError: If an argument is of another type.
        PatternError: If `new` or `resized` matches nothing.
        PriorFileError: If a file cannot be read.
        ReferenceMismatchError: If the reference does not fit; every mismatch is listed and the model is unchanged.

    Example:
        >>> import bayesreg as br
        >>> def network(classes):
        ...     return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, classes))
        >>> model, pretrained = network(3), network(10)
        >>> br.transfer.load_into(model, pretrained, new="2.*")
        ['2.weight', '2.bias']
        >>> bool((model[0].weight == pretrained[0].weight).all())
        True
    """
    loaded = load_reference(reference, rename=rename, extra=extra)
    infos = parameters_of(model)
    fresh = set() if new is None else selected("new", new, infos)
    other_shape = set() if resized is None else selected("resized", resized, infos)
    copies: list[tuple[Tensor, Tensor]] = []
    left: list[str] = []
    missing: list[str] = []
    problems: list[str] = []
    for info in infos:
        held = next((name for name in info.names if name in loaded), None)
        if info.name in fresh:
            left.append(info.name)
        elif held is None:
            missing.append(info.name)
        else:
            problems += _differing(info, loaded)
            wrong = _compare(held, info.parameter, loaded[held], info.name in other_shape, copies)
            problems += wrong
            if not wrong and loaded[held].shape != info.parameter.shape:
                left.append(info.name)
    own: dict[int, list[str]] = {id(info.module): [] for info in infos}
    for info in infos:
        own[id(info.module)].append(info.name)
    globs = [rule for rule in (new if isinstance(new, list | tuple) else [new]) if isinstance(rule, str)]
    for name, module, attribute in buffers_of(model):
        mine = own.get(id(module), [])
        is_new = any(fnmatch.fnmatchcase(name, glob) for glob in globs)
        if is_new or (mine and all(parameter in fresh for parameter in mine)):
            left.append(name)
        elif name not in loaded:
            # Files from before torch 0.4.1 have no counters; torch's own loading lets them be, too.
            missing += [] if attribute == "num_batches_tracked" else [name]
        else:
            buffer = module._buffers[attribute]
            assert buffer is not None
            problems += _compare(name, buffer, loaded[name], False, copies)
    problems = [f"missing {name}{nearest(name, loaded)}" for name in missing] + problems
    places = {name for info in infos for name in info.names} | {name for name, _, _ in buffers_of(model)}
    if not loaded.ignore_extra:
        problems += [f"extra {name}, which the model does not have" for name in loaded if name not in places]
    if problems:
        raise ReferenceMismatchError(
            f"the reference {loaded.source} does not fit the model, which is unchanged: {'; '.join(problems)}. Layers "
            f"that it does not have are named by new=, other shapes by resized=, other names mapped by rename=, and "
            f"extra tensors ignored with extra='ignore'.{rename_hint(missing, list(loaded))}"
        )
    for target, value in copies:
        target.copy_(value)
    return left


def _differing(info: ParameterInfo, reference: Reference) -> list[str]:
    held = [name for name in info.names if name in reference]
    differ = [name for name in held[1:] if not torch.equal(reference[name], reference[held[0]])]
    if not differ:
        return []
    return [f"{held[0]} and {' and '.join(differ)} are one tied parameter of the model, with different values"]


def _compare(
    name: str, target: Tensor, value: Tensor, other_shape: bool, copies: list[tuple[Tensor, Tensor]]
) -> list[str]:
    """Note the copy to make, or return what stands against it."""
    if target.is_meta:
        return [f"{name} of the model is on the meta device; give it memory first, model.to_empty(device=...)"]
    if target.is_floating_point() and not value.is_floating_point():
        dtypes = [str(t.dtype).removeprefix("torch.") for t in (value, target)]
        return [f"{name} has dtype {dtypes[0]}, expected a floating one ({dtypes[1]})"]
    if value.shape == target.shape:
        copies.append((local(target), shard_like(value, target)))
        return []
    if not other_shape or value.ndim != target.ndim:
        return [f"{name} has shape {tuple(value.shape)}, expected {tuple(target.shape)}"]
    both = tuple(slice(0, min(sizes)) for sizes in zip(value.shape, target.shape, strict=True))
    copies.append((target[both], value[both]))
    return []
