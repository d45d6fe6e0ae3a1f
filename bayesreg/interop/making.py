"""A prior over a model, from what a framework's user passes: an object, words, rules, or a function of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError, kind_of
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Belief
from bayesreg.priors.words import prior_from_words

__all__ = ["prior_over"]


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
