"""Layers that standardise features and undo it for targets, kept in the model so that they are never lost."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Standardize", "Unstandardize"]


class Standardize(nn.Module):
    """(x − mean) / std with the mean and standard deviation of the training features.

    Args:
        features: (n, d) training features; constant columns keep a std of 1.

    Example:
        >>> import torch
        >>> Standardize(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))(torch.tensor([[2.0, 5.0]]))
        tensor([[0., 0.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        std = features.std(0, correction=0)
        std[std == 0] = 1.0
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised features."""
        return (x - self.mean) / self.std


class Unstandardize(nn.Module):
    """mean + std · x with the mean and standard deviation of the training targets.

    Args:
        targets: (n,) training targets.

    Example:
        >>> import torch
        >>> Unstandardize(torch.tensor([1.0, 3.0]))(torch.tensor([[-1.0]]))
        tensor([[1.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, targets: Tensor) -> None:
        super().__init__()
        std = targets.std(correction=0)
        self.register_buffer("mean", targets.mean())
        self.register_buffer("std", std if float(std) > 0 else std + 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the values in units of the target."""
        return self.mean + self.std * x
