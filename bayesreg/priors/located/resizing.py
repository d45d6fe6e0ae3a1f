"""Priors of parameters that are larger or smaller than the reference they are centred on."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bayesreg.errors import InvalidArgumentError, ReferenceMismatchError
from bayesreg.priors.contract.prior import Prior
from bayesreg.priors.contract.tensors import as_given

__all__ = ["check_beyond", "resized"]

Located = TypeVar("Located", bound=Prior)


def check_beyond(prior: Prior, beyond: Prior) -> None:
    """Raise unless `beyond` can hold where the reference of `prior` ends.

    Args:
        prior: The prior about a reference.
        beyond: What was given as `resized`.

    Raises:
        InvalidArgumentError: If it is of another family or other options, has a centre or a hyper-parameter that is
            not a number.
    """
    if type(beyond) is not type(prior) or beyond.saved_options() != prior.saved_options():
        raise InvalidArgumentError(
            f"resized: expected a prior of the same family and options as {prior!r}, got {beyond!r}."
        )
    held = [*prior._tensors().items(), *beyond._tensors().items()]
    tensors = [name for name, tensor in held if tensor.ndim or isinstance(tensor, nn.Parameter)]
    if tensors or beyond.reference is not None:
        raise InvalidArgumentError(
            f"resized: expected fixed numbers as hyper-parameters, got others ({', '.join(tensors) or 'loc'}); for "
            f"one width per element give the parameter a rule of its own, with loc= and the family's arguments."
        )


def resized(prior: Located, beyond: Prior, reference: Tensor, parameter: Tensor) -> tuple[Located, Tensor, str]:
    """Return a prior that is `prior` where both the reference and the parameter have an element, else `beyond`.

    Args:
        prior: The prior about the reference.
        beyond: The prior of the other elements.
        reference: The reference tensor.
        parameter: The parameter, of as many dimensions.

    Returns:
        The prior without its centre, the centre, and words for the description.

    Raises:
        ReferenceMismatchError: If the reference has another number of dimensions.
    """
    shape, wide = tuple(parameter.shape), torch.promote_types(parameter.dtype, torch.float32)
    if reference.ndim != len(shape):
        raise ReferenceMismatchError(f"resized: expected {len(shape)} dimensions, got a reference of {reference.ndim}.")
    common = [min(sizes) for sizes in zip(reference.shape, shape, strict=True)]
    both = torch.ones((), dtype=torch.bool)
    for dim, (size, shared) in enumerate(zip(shape, common, strict=True)):
        if shared < size:
            along = torch.arange(size) < shared
            both = both & along.reshape(size, *(1,) * (len(shape) - dim - 1))
    loc = beyond.centre()
    elsewhere = loc.to(reference.dtype)
    dtype = reference.dtype if bool(elsewhere == loc) else torch.promote_types(reference.dtype, wide)
    centre = torch.full(shape, float(loc), dtype=dtype, device=reference.device)
    inside = tuple(slice(0, shared) for shared in common)
    centre[inside] = reference[inside]
    words = f", resized from {tuple(reference.shape)}"
    if bool(both.all()):
        return prior, centre, words
    arguments: dict[str, Any] = {}
    for name, held in prior._tensors().items():
        other = beyond._tensors()[name]
        if name == "loc":
            continue
        same = bool(held == other)
        arguments[name] = as_given(held) if same else torch.where(both, held, other).to(wide)
    made = type(prior)(**arguments, **prior.saved_options())
    return made, centre, f"{words}, elsewhere {beyond.describe()}"
