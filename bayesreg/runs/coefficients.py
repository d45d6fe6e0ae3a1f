"""The coefficients of a linear model, in the units of the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["Coefficient", "coefficients_of"]


@dataclass(frozen=True)
class Coefficient:
    """What one feature does.

    Attributes:
        feature: Its name.
        per_unit: Change of the output (the target, or log odds) for one unit more, by output.
        per_std: For one standard deviation more, in those of the target; of features that are 0 or 1 from 0 to 1.
    """

    feature: str
    per_unit: tuple[float, ...]
    per_std: tuple[float, ...]

    @property
    def size(self) -> float:
        """By which they are sorted."""
        return max(abs(value) for value in self.per_std)

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"feature": self.feature, "per_unit": list(self.per_unit), "per_std": list(self.per_std)}


@torch.no_grad()
def coefficients_of(network: nn.Module, names: Sequence[str]) -> tuple[list[Coefficient], list[float]] | None:
    """Return the coefficients and the intercepts of a linear network, in the units of the columns.

    Args:
        network: From `build_network`, or a linear layer.
        names: Of the features.

    Returns:
        Both; None where the network is not linear.
    """
    parts: Any = network
    net = network if type(network) is nn.Linear else getattr(parts, "net", None)
    if type(net) is not nn.Linear or net.in_features != len(names):
        return None
    weight = net.weight.double()
    bias = weight.new_zeros(len(weight)) if net.bias is None else net.bias.double()
    mean, std = torch.zeros_like(weight[0]), torch.ones_like(weight[0])
    if hasattr(parts, "standardize"):
        mean, std = parts.standardize.mean.double(), parts.standardize.std.double()
    shift, gain = 0.0, 1.0
    if hasattr(parts, "unstandardize"):
        shift, gain = float(parts.unstandardize.mean), float(parts.unstandardize.std)
    raw = gain * weight / std
    intercepts = shift + gain * bias - raw @ mean
    found = [Coefficient(name, tuple(raw[:, j].tolist()), tuple(weight[:, j].tolist())) for j, name in enumerate(names)]
    return found, intercepts.tolist()
