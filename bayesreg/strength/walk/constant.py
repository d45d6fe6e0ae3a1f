"""What can be said without inputs: the NLL of the best constant output."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesreg.likelihoods import Likelihood

__all__ = ["best_constant_nll", "saturated_nll"]


def best_constant_nll(likelihood: Likelihood, output: Tensor, targets: Tensor) -> float:
    """Return the mean NLL of the best output that is the same for all examples: of the frequencies of classes.

    Args:
        likelihood: The likelihood; what it learns stays as it is.
        output: Any output of the model, for its shape.
        targets: The targets.

    Returns:
        The mean NLL.
    """
    return _least(likelihood, targets, (1, *output.shape[1:]))


def saturated_nll(likelihood: Likelihood, output: Tensor, targets: Tensor) -> float:
    """Return the mean NLL of outputs that are free for each example: less is not possible.

    Args:
        likelihood: The likelihood; what it learns stays as it is.
        output: Any output of the model, for its shape.
        targets: The targets.

    Returns:
        The mean NLL; 0 of classes.
    """
    return _least(likelihood, targets, (len(targets), *output.shape[1:]))


def _least(likelihood: Likelihood, targets: Tensor, shape: tuple[int, ...]) -> float:
    with torch.enable_grad():
        made = torch.zeros(shape, dtype=torch.float64, device=targets.device, requires_grad=True)
        solver = torch.optim.LBFGS([made], max_iter=100, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            nll = likelihood.nll(made.expand(len(targets), *shape[1:]), targets).sum()
            (made.grad,) = torch.autograd.grad(nll, made)
            return nll.detach()

        solver.step(closure)
        return float(closure()) / len(targets)
