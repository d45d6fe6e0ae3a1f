"""Seeing that a model is one trained linear layer on features that do not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bayesreg.data import Batch, Reading
from bayesreg.data.scaling import Unstandardize
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Prior

__all__ = ["LinearView", "linear_view"]


@dataclass(frozen=True)
class LinearView:
    """output = shift + gain · (features · weightᵀ + bias).

    Attributes:
        features: (n, d), what the layer takes.
        target: The targets.
        weight: (n,), how much each example counts; None: all the same.
        layer: The layer.
        gain: What its output is multiplied by.
        shift: What is added then.
    """

    features: Tensor
    target: Tensor
    weight: Tensor | None
    layer: nn.Linear
    gain: float = 1.0
    shift: float = 0.0


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def _layers(model: nn.Module) -> tuple[list[nn.Module], nn.Linear, list[nn.Module]] | None:
    """Return what comes before the trained layer, that layer, and what comes after it."""
    # A class of one's own may do anything in forward; these are known.
    parts = list(model) if type(model) is nn.Sequential else [model]
    trained = [index for index, part in enumerate(parts) if any(p.requires_grad for p in part.parameters())]
    if len(trained) != 1 or any(_hooked(module) for module in model.modules()):
        return None
    (at,) = trained
    layer = parts[at]
    if type(layer) is not nn.Linear or not layer.weight.requires_grad or "forward" in vars(layer):
        return None
    if layer.bias is not None and not layer.bias.requires_grad:
        return None
    after = parts[at + 1 :]
    return (parts[:at], layer, after) if all(type(part) is Unstandardize for part in after) else None


@torch.no_grad()
def linear_view(model: nn.Module, prior: ModelPrior, reading: Reading, batches: Sequence[Batch]) -> LinearView | None:
    """Return a model as a linear layer on features, if it is one and its objective has closed derivatives.

    Args:
        model: The model, in evaluation mode.
        prior: Its prior.
        reading: The likelihood, as it reads batches.
        batches: All the data.

    Returns:
        The view; None for other models, priors that join parameters, and likelihoods without closed derivatives.
    """
    found = _layers(model)
    if found is None or reading.pick is not None or reading.likelihood.counts_within:
        return None
    if not all(isinstance(belief, Prior) for _, belief in prior.active()):
        return None
    before, layer, after = found
    inputs: list[Any] = [batch.inputs for batch in batches]
    if not all(isinstance(one, Tensor) and one.ndim == 2 and one.is_floating_point() for one in inputs):
        return None
    if sum(parameter.numel() for parameter in reading.likelihood.parameters() if parameter.requires_grad) > 1:
        return None
    features = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
    for part in before:
        features = part(features)
    if not isinstance(features, Tensor) or features.ndim != 2 or features.shape[1] != layer.in_features:
        return None
    target = batches[0].target if len(batches) == 1 else torch.cat([batch.target for batch in batches])
    if reading.likelihood._local(layer(features[:1]), target[:1]) is None:
        return None
    # Refuses bad targets, once for all places to come.
    reading.likelihood.nll(layer(features), target)
    gain, shift = 1.0, 0.0
    for part in after:
        assert isinstance(part, Unstandardize)
        gain, shift = gain * float(part.std), float(part.mean) + float(part.std) * shift
    return LinearView(features, target, _weights(reading, batches), layer, gain, shift)


def _weights(reading: Reading, batches: Sequence[Batch]) -> Tensor | None:
    if batches[0].weight is None:
        return None
    return reading.counting.factor * torch.cat([batch.weight for batch in batches if batch.weight is not None])
