"""How much of what Adam divides by is noise: read from its own state."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from bayesreg._support.sharding import local

__all__ = ["noise_share"]


@torch.no_grad()
def noise_share(optimizer: Optimizer) -> float | None:
    """Return the share of v̂ that is noise of minibatches, over all weights; None where there is no state to read.

    With signal g and noise variance ν, E[v̂] = g² + ν and E[m̂²] = g² + ν(1 − β₁)/(1 + β₁), as m̂ averages the noise of
    about (1 + β₁)/(1 − β₁) batches.

    Args:
        optimizer: Adam, AdamW or one with their state, after some steps.

    Returns:
        A number from 0, full batches, to 1.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(1000))
        >>> optimizer = torch.optim.AdamW([weight], betas=(0.9, 0.9))
        >>> for step in range(100):
        ...     weight.grad = torch.randn(1000, generator=torch.Generator().manual_seed(step))
        ...     optimizer.step()
        >>> round(noise_share(optimizer), 1)
        1.0
    """
    first, second, mixed = 0.0, 0.0, 0.0
    for group in optimizer.param_groups:
        if "betas" not in group:
            return None
        beta1, beta2 = (float(beta) for beta in group["betas"][:2])
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            m, v, step = (state.get(name) for name in ("exp_avg", "exp_avg_sq", "step"))
            if not isinstance(m, Tensor) or not isinstance(v, Tensor) or step is None or m.is_meta:
                continue
            count = float(step)
            if count < 1.0:
                continue
            here = float(local(m).double().square().sum()) / (1.0 - beta1**count) ** 2
            total = float(local(v).double().sum()) / (1.0 - beta2**count)
            # Of the first steps too: the weights of an average of so many, squared.
            left = (1.0 - beta1) / (1.0 + beta1) * (1.0 + beta1**count) / (1.0 - beta1**count)
            first, second, mixed = first + here, second + total, mixed + left * total
    if second <= 0.0 or mixed >= second:
        return None
    # Σ m̂² = Σ g² + c·Σ ν and Σ v̂ = Σ g² + Σ ν.
    noise = (second - first) / (second - mixed)
    return min(1.0, max(0.0, noise))
