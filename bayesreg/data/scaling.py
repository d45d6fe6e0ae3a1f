"""Layers that put features and targets on a common scale, inside of a model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Standardize", "Unstandardize"]


class Standardize(nn.Module):
    """(x − mean) / std with the mean and standard deviation of the training features.

    Args:
        features: (n, d) training features; constant columns keep a std of 1.

    Example:
        >>> Standardize(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))(torch.tensor([[2.0, 5.0]]))
        tensor([[0., 0.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        mean, std = features.mean(0), features.std(0, correction=0)
        # A constant column has a std of round-off, not of 0.
        std[std <= 1e-12 * mean.abs().clamp_min(1.0)] = 1.0
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised features."""
        return (x - self.mean) / self.std


class Unstandardize(nn.Module):
    """mean + std · x with the mean and standard deviation of the training targets.

    Args:
        targets: (n,) training targets.

    Example:
        >>> Unstandardize(torch.tensor([1.0, 3.0]))(torch.tensor([[-1.0]]))
        tensor([[1.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, targets: Tensor) -> None:
        super().__init__()
        mean, std = targets.mean(), targets.std(correction=0)
        constant = bool(std <= 1e-12 * mean.abs().clamp_min(1.0))
        self.register_buffer("mean", mean)
        self.register_buffer("std", torch.ones_like(std) if constant else std)

    def forward(self, x: Tensor) -> Tensor:
        """Return the values in units of the target."""
        return self.mean + self.std * x
