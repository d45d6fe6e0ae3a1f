"""Starting a model at a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from bayesreg._support.calls import answering
from bayesreg._support.sharding import local, shard_like
from bayesreg.errors import InvalidArgumentError, ReferenceMismatchError
from bayesreg.model_prior.binding import tied_problem, value_problem
from bayesreg.references import Rename, read_reference
from bayesreg.references.names import missing_words, rename_hint
from bayesreg.selection import (
    ParameterInfo,
    Selection,
    any_of,
    buffers_of,
    canonical_tensors,
    parameters_of,
    selected,
)
from bayesreg.transfer.methods import ReferenceLike

__all__ = ["load_into"]


@torch.no_grad()
@answering
def load_into(
    model: nn.Module,
    reference: ReferenceLike,
    *,
    new: Selection | None = None,
    resized: Selection | None = None,
    rename: Rename | None = None,
    extra: Literal["raise", "ignore"] = "raise",
) -> list[str]:
    """Copy a reference's weights and buffers into a model: all of them, or nothing where something does not fit.

    Takes the same decisions as the priors of `br.transfer`, so that the start and the centre agree; running statistics
    of normalisation layers are copied too.

    Args:
        model: The model; changed in place.
        reference: A module, state dict, file, Hugging Face directory or `Reference`; see `load_reference`.
        new: Rule key, or a list of them, of the layers (and buffers) that keep their own initialisation.
        resized: Rule key, or a list, of parameters and buffers with another shape than in the reference: the elements
            that both have are copied, the others keep their initialisation.
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
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model: expected a module, got {type(model).__name__}; the reference comes second.")
    loaded = read_reference(reference, rename=rename, extra=extra)
    parameters, buffers = parameters_of(model), buffers_of(model)
    infos = [*parameters, *buffers]
    fresh = set() if new is None else selected("new", new, infos) | _buffers_of_new_layers(new, parameters, buffers)
    other_shape = set() if resized is None else selected("resized", resized, infos)
    copies: list[tuple[Tensor, Tensor]] = []
    left: list[str] = []
    missing: list[str] = []
    problems: list[str] = []
    for info in infos:
        held = next((name for name in info.keys if name in loaded), None)
        if info.name in fresh:
            left.append(info.name)
        elif held is None:
            # Files from before torch 0.4.1 have no counters; torch's own loading lets them be, too.
            (left if info.attribute == "num_batches_tracked" else missing).append(info.name)
        else:
            wrong = tied_problem(info, loaded)
            wrong += _compare(held, info.parameter, loaded[held], info.name in other_shape, copies)
            problems += wrong
            if not wrong and loaded[held].shape != info.parameter.shape:
                left.append(info.name)
    shapes = {info.name: tuple(info.parameter.shape) for info in infos if info.name in missing}
    problems = missing_words(shapes, loaded) + problems
    places = set(canonical_tensors(model)) | {name for info in infos for name in info.keys}
    if not loaded.ignore_extra:
        problems += [f"extra {name}, which the model does not have" for name in loaded if name not in places]
    unsound = loaded.problems()
    if problems or unsound:
        cure = (
            " Layers that it does not have are named by new=, other shapes by resized=, other names mapped by rename=, "
            "and extra tensors ignored with extra='ignore'."
        )
        raise ReferenceMismatchError(
            f"the reference {loaded.source} does not fit the model, which is unchanged:{rename_hint(missing, loaded)} "
            f"{'; '.join([*problems, *unsound])}.{cure if problems else ''}"
        )
    for target, value in copies:
        target.copy_(value)
    return left


def _buffers_of_new_layers(
    new: Selection, parameters: Sequence[ParameterInfo], buffers: Sequence[ParameterInfo]
) -> set[str]:
    """Return the buffers of modules all of whose parameters are new, and those that a rule selects itself."""
    chosen = any_of(new, "new")
    own: dict[int, bool] = {}
    for info in parameters:
        own[id(info.module)] = own.get(id(info.module), True) and chosen(info)
    return {info.name for info in buffers if chosen(info) or own.get(id(info.module), False)}


def _compare(
    name: str, target: Tensor, value: Tensor, other_shape: bool, copies: list[tuple[Tensor, Tensor]]
) -> list[str]:
    """Note the copy to make, or return what stands against it."""
    if isinstance(target, UninitializedParameter):
        return [f"{name} of the model has no shape yet; run one batch through the model first"]
    if target.is_meta:
        return [f"{name} of the model is on the meta device; give it memory first, model.to_empty(device=...)"]
    if target.is_inference() and not torch.is_inference_mode_enabled():
        return [f"{name} of the model was made under torch.inference_mode and cannot be written"]
    if any(stride == 0 and size > 1 for stride, size in zip(target.stride(), target.shape, strict=True)):
        return [f"{name} of the model is an expanded tensor and cannot be written"]
    wrong = value_problem(name, value, target)
    same = value.shape == target.shape
    if not same and (not other_shape or value.ndim != target.ndim):
        wrong.append(f"{name} has shape {tuple(value.shape)}, expected {tuple(target.shape)}")
    if wrong or value.is_meta or value.layout != torch.strided:
        return wrong
    if same:
        copies.append((local(target), shard_like(value, target)))
    else:
        both = tuple(slice(0, min(sizes)) for sizes in zip(value.shape, target.shape, strict=True))
        copies.append((target[both], value[both]))
    return []
