"""The coefficients of a linear model by name, in the units of the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bayesreg._support.tables import Table
from bayesreg.cli.tabular.numbers import readable

__all__ = ["Coefficient", "coefficients_of", "table_of"]

_SHOWN = 20


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
        network: From `build_network`.
        names: Of the features.

    Returns:
        Both; None where the network is not linear.
    """
    parts: Any = network
    net = getattr(parts, "net", None)
    if type(net) is not nn.Linear or net.in_features != len(names):
        return None
    weight, bias = net.weight.double(), net.bias.double()
    mean, std = parts.standardize.mean.double(), parts.standardize.std.double()
    shift, gain = 0.0, 1.0
    if hasattr(parts, "unstandardize"):
        shift, gain = float(parts.unstandardize.mean), float(parts.unstandardize.std)
    raw = gain * weight / std
    intercepts = shift + gain * bias - raw @ mean
    found = [Coefficient(name, tuple(raw[:, j].tolist()), tuple(weight[:, j].tolist())) for j, name in enumerate(names)]
    return found, intercepts.tolist()


def table_of(found: Sequence[Coefficient], intercepts: Sequence[float], classes: Sequence[str], target: str) -> Table:
    """Return the largest coefficients as a table, with those that are exactly 0 by name.

    Args:
        found: All of them.
        intercepts: Of the outputs.
        classes: Labels; empty for regression.
        target: What the target is called.

    Returns:
        The table.
    """
    order = sorted(found, key=lambda one: -one.size)
    zeros = [one.feature for one in found if one.size == 0.0]
    shown = [one for one in order[:_SHOWN] if one.size > 0.0]
    if len(intercepts) == 1:
        what = f"log odds of {classes[1]!r}" if classes else target
        columns: tuple[str, ...] = ("feature", f"{what} per unit", "per std")
        rows: list[tuple[Any, ...]] = [
            (one.feature, readable(one.per_unit[0]), readable(one.per_std[0])) for one in shown
        ]
        rows.append(("(intercept)", readable(intercepts[0]), None))
    else:
        columns = ("feature", *(f"logit of {name!r}" for name in classes[:6]))
        rows = [(one.feature, *map(readable, one.per_unit[:6])) for one in shown]
        rows.append(("(intercept)", *map(readable, intercepts[:6])))
    notes = []
    if len(order) - len(zeros) > len(shown):
        notes.append(f"The {len(shown)} largest of {len(order) - len(zeros)}, by what a standard deviation does.")
    if zeros:
        more = "" if len(zeros) <= 40 else f", ... ({len(zeros)} in all)"
        notes.append(f"Exactly 0, {len(zeros)} of {len(found)}: {', '.join(zeros[:40])}{more}.")
    return Table("Coefficients, in the units of the columns", columns, rows, tuple(notes))
