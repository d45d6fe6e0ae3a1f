"""A prior over a model, from what a framework's user passes: an object, words, rules, or a function of the model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bayesreg.conversion import LossScale
from bayesreg.errors import CoverageError, InvalidArgumentError, kind_of
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Belief, Gaussian
from bayesreg.priors.words import prior_from_words
from bayesreg.transfer import lora_prior

__all__ = ["about_itself", "of_the_weights", "prior_about", "prior_over"]

_OF_THE_WEIGHTS = re.compile(r"\s*(pretrained|lora)\s*(?:\(([^)]*)\))?\s*")


def prior_over(model: nn.Module, given: Any, num_data: int | LossScale) -> ModelPrior:
    """Return the prior over a model.

    Args:
        model: The model.
        given: A prior, words, rules, a `ModelPrior` over this model, or a function from the model to one.
        num_data: For words with a constant that is relative to n.

    Returns:
        The prior.

    Raises:
        InvalidArgumentError: If it is none of these.
    """
    if isinstance(given, str):
        given = prior_from_words(given, num_data)
    elif not isinstance(given, Belief | Mapping | ModelPrior) and callable(given):
        given = given(model)
    if isinstance(given, ModelPrior):
        return given
    if isinstance(given, Belief | Mapping):
        return ModelPrior(model, given)
    raise InvalidArgumentError(
        f"prior: expected a prior such as br.Gaussian(0.5), words such as 'laplace(0.1)', rules {{'*.weight': ...}}, "
        f"or a function from the model to a br.ModelPrior, got {kind_of(given)}."
    )


def of_the_weights(given: Any) -> bool:
    """Return whether a prior may depend on the weights that a model has when it is made: a centre on them, a function.

    Args:
        given: What the user passed.

    Returns:
        Whether it may.
    """
    if isinstance(given, str):
        return _OF_THE_WEIGHTS.fullmatch(given) is not None
    return not isinstance(given, Belief | Mapping | ModelPrior) and callable(given)


def about_itself(prior: ModelPrior) -> bool:
    """Return whether a prior is centred on the weights that its model has right now.

    Args:
        prior: The prior.

    Returns:
        Whether one of its centres is a tensor of these very values.
    """
    for entry in prior:
        centre = getattr(entry.prior, "loc", None)
        if not isinstance(centre, torch.Tensor) or centre.ndim == 0 or centre.shape != entry.parameter.shape:
            continue
        if torch.equal(centre.to(entry.parameter), entry.parameter.detach()):
            return True
    return False


def prior_about(model: nn.Module, given: Any, num_data: int | LossScale) -> ModelPrior:
    """Return the prior over a model, "pretrained(std)" and "lora(std)" among the words.

    Args:
        model: The model, with the weights that it came with.
        given: As in `prior_over`, or a Gaussian about those weights, or on the update that LoRA adapters add.
        num_data: As in `prior_over`.

    Returns:
        The prior.

    Raises:
        InvalidArgumentError: If it is none of these, or has no width.
        CoverageError: If something is trained beside adapters that the words do not cover.
    """
    own = _OF_THE_WEIGHTS.fullmatch(given) if isinstance(given, str) else None
    if own is None:
        return prior_over(model, given, num_data)
    name, std = own.groups()
    try:
        scale = float(std or "")
    except ValueError:
        raise InvalidArgumentError(
            f"prior: expected the width of {name!r} as a number, such as '{name}(0.05)', got {given!r}; how to choose "
            f"it where a fit costs hours: docs/frameworks.md, Which width."
        ) from None
    if name == "pretrained":
        return ModelPrior(model, Gaussian.centered_at(model, scale))
    try:
        prior = lora_prior(model, scale)
    except CoverageError as error:
        raise CoverageError(
            f"prior: {error} With words there is no place for it: pass a function, prior=lambda model: "
            f"br.transfer.lora_prior(model, {scale:g}, head=br.Gaussian(1.0))."
        ) from None
    if float(prior.penalty().detach()) > 0.0:
        raise InvalidArgumentError(
            f"prior: the adapters add something to the weights already, so {given!r} could be about no update or about "
            f"this one; pass a function. Where the start was subtracted from the weights (PiSSA, OLoRA), or the "
            f"adapters as they are should be remembered: prior=lambda model: br.transfer.lora_prior(model, {scale:g}, "
            f"reference=model). Where they were trained before and should be drawn to no update: without reference=."
        )
    return prior
