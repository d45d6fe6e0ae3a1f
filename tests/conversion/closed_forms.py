"""Closed forms and plain-torch training that the tests compare with; nothing here uses bayesreg."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def newton(function: Callable[[Tensor], Tensor], start: Tensor, steps: int = 60) -> Tensor:
    """Minimise a strictly convex function in float64 by damped Newton steps on its exact Hessian."""
    x = start.double().clone()
    for _ in range(steps):
        grad = torch.autograd.functional.jacobian(function, x)
        step = torch.linalg.solve(torch.autograd.functional.hessian(function, x), grad)
        rate = 1.0
        while rate > 1e-8 and function(x - rate * step) > function(x):
            rate /= 2
        x = x - rate * step
        if float(grad.abs().max()) < 1e-13:
            break
    return x


def ridge(X: Tensor, Y: Tensor, noise_std: float, variance: float) -> Tensor:
    """The MAP of Y = X W + N(0, noise_std²) with W ~ N(0, variance)."""
    d = X.shape[1]
    return torch.linalg.solve(X.T @ X + noise_std**2 / variance * torch.eye(d, dtype=X.dtype), X.T @ Y)


def train_with_weight_decay(
    loss: Callable[[Tensor], Tensor], start: Tensor, weight_decay: float, steps: int = 6000
) -> Tensor:
    """Minimise a loss with `torch.optim.SGD(weight_decay=...)`, the way a user would, to convergence."""
    weights = start.double().clone().requires_grad_()
    flat = torch.autograd.functional.hessian(lambda v: loss(v.reshape(start.shape)), start.double().reshape(-1))
    steepest = float(torch.linalg.eigvalsh(flat).max()) + weight_decay
    optimizer = torch.optim.SGD([weights], lr=1.0 / steepest, momentum=0.9, weight_decay=weight_decay)
    for step in range(steps):
        before = weights.detach().clone()
        optimizer.zero_grad()
        loss(weights).backward()
        optimizer.step()
        if step > 50 and float((weights.detach() - before).abs().max()) < 1e-14:
            break
    return weights.detach()
