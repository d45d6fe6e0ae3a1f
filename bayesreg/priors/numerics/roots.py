"""Roots of increasing functions, elementwise: Newton steps that never leave a bracket."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["increasing_root"]

Function = Callable[[Tensor], tuple[Tensor, Tensor]]


@torch.no_grad()
def increasing_root(
    function: Function, low: Tensor, high: Tensor, start: Tensor | None = None, steps: int = 100
) -> Tensor:
    """Return x in [low, high] with f(x) = 0, elementwise, to the last digits of the dtype.

    Args:
        function: x -> (f(x), f′(x)); f increases on the bracket, in units of x: a sum of x, −high and a pull.
        low: Where f <= 0 (or the root is `low`).
        high: Where f >= 0 (or the root is `high`).
        start: Where to begin; the middle by default. From the right of a convex function (the left of a concave one)
            Newton steps need no bracket.
        steps: Steps at most; halving alone would need one per bit.

    Returns:
        The roots.
    """
    low, high = torch.broadcast_tensors(low, high)
    low, high, scale = low.clone(), high.clone(), high.abs()
    x = 0.5 * (low + high) if start is None else start.clone()
    for _ in range(steps):
        value, slope = function(x)
        low = torch.where(value <= 0, x, low)
        high = torch.where(value >= 0, x, high)
        newton = x - value / slope
        inside = (newton >= low) & (newton <= high)
        new = torch.where(inside, newton, 0.5 * (low + high))
        eps = torch.finfo(x.dtype).eps
        # Where f cannot be told from 0 by its own rounding, steps would wander for ever.
        settled = ((new - x).abs() <= 2.0 * eps * x.abs()) | (value.abs() <= 2.0 * eps * scale)
        # A compiled graph takes all steps.
        if not torch.compiler.is_compiling() and bool(settled.all()):
            return torch.where(value == 0, x, new)
        x = new
    return x
