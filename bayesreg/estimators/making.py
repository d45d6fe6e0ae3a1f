"""From the arguments of an estimator to a model, a prior and a likelihood."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg._support.calls import TELLING
from bayesreg.conversion import LossScale
from bayesreg.data import in_evaluation
from bayesreg.data.scaling import Unstandardize
from bayesreg.errors import InvalidArgumentError, kind_of
from bayesreg.priors import Belief
from bayesreg.priors.auto import asks_to_choose, at_scale_one
from bayesreg.priors.words import prior_from_words
from bayesreg.selection import SelectorLike

__all__ = ["Hidden", "Module", "PriorLike", "has_word_auto", "is_linear", "network", "rules_of"]

PriorLike: TypeAlias = str | Belief | Mapping[SelectorLike, str | Belief]
Hidden: TypeAlias = int | Sequence[int]
Module: TypeAlias = nn.Module | Callable[[int, int], nn.Module]


def has_word_auto(prior: object) -> bool:
    """Return whether a prior in words leaves a number to the data."""
    return isinstance(prior, str) and asks_to_choose(prior)


def rules_of(prior: PriorLike, num_data: float) -> Belief | dict[SelectorLike, Belief]:
    """Return what makes a `ModelPrior`, as a copy: an estimator's arguments stay as they are.

    Args:
        prior: An object, words, or rules whose values are either.
        num_data: n, the sum of the weights of examples, for words with a constant that is relative to it.

    Returns:
        A prior at scale 1 where it is to be chosen, or rules.

    Raises:
        InvalidArgumentError: If it is none of these.
    """
    if isinstance(prior, Mapping):
        if any(has_word_auto(one) for one in prior.values()):
            raise InvalidArgumentError(
                "prior: in rules auto has no place; write 1.0 there, and say strength={} to have all their widths "
                "multiplied by one scale that is chosen."
            )
        return {key: _one(value, num_data) for key, value in prior.items()}
    return _one(prior, num_data)


def _one(prior: object, num_data: float) -> Belief:
    if isinstance(prior, str):
        loss_scale = LossScale.mean(int(num_data)) if num_data == int(num_data) else LossScale(1.0 / num_data)
        return prior_from_words(at_scale_one(prior) if asks_to_choose(prior) else prior, loss_scale)
    if isinstance(prior, Belief):
        return copy.deepcopy(prior)
    raise InvalidArgumentError(
        f"prior: expected words such as 'laplace(0.1)' or 'gaussian(auto)', a prior such as br.Gaussian(1.0), or rules "
        f"{{'*.weight': br.Gaussian(1.0), ...}}, got {kind_of(prior)}."
    )


def is_linear(module: Module | None, hidden: Hidden) -> bool:
    """Return whether these arguments stand for a linear model of our own; raises where they are none."""
    sizes = _sizes(hidden)
    if module is not None and sizes:
        raise InvalidArgumentError("hidden: plays no part where module= is given; leave one of them out.")
    return module is None and not sizes


def network(
    module: Module | None, hidden: Hidden, features: Tensor, outputs: int, *, bias: bool, target: Tensor | None
) -> nn.Module:
    """Return the model, in float64.

    Args:
        module: A module, which is copied, or a function of (inputs, outputs) that makes one; None for our own.
        hidden: Hidden units, layer by layer; none for a linear model.
        features: (n, d).
        outputs: Of the last layer.
        bias: Whether layers have biases.
        target: Of a regression with hidden layers: the last layer is in units of its mean and spread.

    Returns:
        The model: a linear one at 0, a network as torch draws it.

    Raises:
        InvalidArgumentError: If the module is none, or takes other features or gives other outputs.
    """
    inputs = features.shape[1]
    if module is not None:
        return _fitting(_given(module, inputs, outputs).double(), features, outputs)
    sizes = _sizes(hidden)
    if not sizes:
        return _zero_layer(inputs, outputs, bias=bias)
    layers: list[nn.Module] = []
    for before, after in zip((inputs, *sizes), sizes, strict=False):
        # Smooth, so that a full-batch solver has a gradient everywhere.
        layers += [nn.Linear(before, after, bias=bias), nn.SiLU()]
    layers.append(nn.Linear(sizes[-1], outputs, bias=bias))
    if target is not None:
        layers.append(Unstandardize(target))
    return nn.Sequential(*layers).double()


def _zero_layer(inputs: int, outputs: int, *, bias: bool) -> nn.Linear:
    # Its constructor would draw weights, from the user's random state.
    layer = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(layer)
    layer.in_features, layer.out_features = inputs, outputs
    layer.weight = nn.Parameter(torch.zeros(outputs, inputs, dtype=torch.float64))
    layer.register_parameter("bias", nn.Parameter(torch.zeros(outputs, dtype=torch.float64)) if bias else None)
    return layer


def _sizes(hidden: object) -> tuple[int, ...]:
    if isinstance(hidden, int) and not isinstance(hidden, bool):
        return (checks.positive_int("hidden", hidden),)
    if not isinstance(hidden, Sequence) or isinstance(hidden, str):
        raise InvalidArgumentError(f"hidden: expected sizes of layers such as (64,), got {kind_of(hidden)}.")
    return tuple(checks.positive_int("hidden", size) for size in hidden)


def _fitting(module: nn.Module, features: Tensor, outputs: int) -> nn.Module:
    """Return the module, if it takes these features to so many outputs."""
    wanted = f"module: expected one that takes (n, {features.shape[1]}) to (n, {outputs}),"
    try:
        with torch.no_grad(), in_evaluation(module):
            found = module(features[:2])
    except TELLING as error:
        raise InvalidArgumentError(f"{wanted} got a {type(module).__name__} that does not ({error}).") from error
    shape = tuple(found.shape) if isinstance(found, Tensor) else kind_of(found)
    if shape not in ((len(features[:2]), outputs), (len(features[:2]),) if outputs == 1 else ()):
        raise InvalidArgumentError(f"{wanted} got one that returns {shape} for (2, {features.shape[1]}).")
    return module


def _given(module: Module, inputs: int, outputs: int) -> nn.Module:
    if isinstance(module, nn.Module):
        if not any(parameter.requires_grad for parameter in module.parameters()):
            raise InvalidArgumentError(f"module: expected one with parameters to train, got {kind_of(module)}.")
        return copy.deepcopy(module)
    checks.accepts("module", module, 2, "the numbers of features and of outputs")
    try:
        made = module(inputs, outputs)
    except TELLING as error:
        raise InvalidArgumentError(
            f"module: expected a function of ({inputs}, {outputs}), the numbers of features and of outputs, got "
            f"{kind_of(module)} ({error})."
        ) from error
    if not isinstance(made, nn.Module):
        raise InvalidArgumentError(f"module: expected a function that returns a torch module, got {kind_of(made)}.")
    return made
