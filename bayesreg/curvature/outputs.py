"""How the NLL of each example curves in the model's output."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayesreg.errors import DataError, UnsupportedError
from bayesreg.likelihoods import Likelihood

__all__ = ["OutputCurvature", "output_curvature", "output_slope"]

# Of the largest eigenvalue: what of a Hessian is rounding.
_ROUNDING = 1e-8


class OutputCurvature(NamedTuple):
    """First and second derivative of each example's NLL in its flattened output, in float64.

    Attributes:
        slope: (examples, outputs).
        root: (examples, outputs, rank); root · rootᵀ is the Hessian. A softmax over C classes has rank C − 1.
    """

    slope: Tensor
    root: Tensor

    def coordinates(self) -> Tensor | None:
        """Return ρ with root · ρ = slope, (examples, rank); None if a slope is outside of what the root reaches."""
        squares = self.root.square().sum(1)
        large = squares > torch.finfo(squares.dtype).eps * squares.amax(1, keepdim=True)
        inverse = torch.where(large, 1.0 / torch.where(large, squares, 1.0), 0.0)
        found = torch.einsum("nkr,nk->nr", self.root, self.slope) * inverse
        missed = (torch.einsum("nkr,nr->nk", self.root, found) - self.slope).abs().amax()
        return found if float(missed) <= 1e-9 * max(1.0, float(self.slope.abs().amax())) else None


def output_slope(likelihood: Likelihood, output: Tensor, target: Tensor, *, graph: bool = False) -> tuple[Tensor, ...]:
    """Return the outputs as (examples, outputs) in float64, and the derivative of the NLL in them.

    Args:
        likelihood: The likelihood.
        output: The model's output.
        target: The targets.
        graph: Whether the derivative is to be differentiated again.

    Returns:
        Outputs (a leaf) and derivative.
    """
    with torch.enable_grad():
        flat = output.detach().to(torch.float64).reshape(len(output), -1).requires_grad_()
        nll = likelihood.nll(flat.reshape(output.shape), target).sum()
        (slope,) = torch.autograd.grad(nll, flat, create_graph=graph)
    return flat, slope


def output_curvature(likelihood: Likelihood, output: Tensor, target: Tensor) -> OutputCurvature:
    """Return how the NLL of each example curves in its output, by automatic differentiation.

    Args:
        likelihood: The likelihood; its NLL twice differentiable and convex in the output.
        output: The model's output.
        target: The targets.

    Returns:
        Slopes and roots of the Hessians.

    Raises:
        DataError: If a derivative is NaN or infinite.
        UnsupportedError: If the NLL is not convex in the output.
    """
    flat, slope = output_slope(likelihood, output, target, graph=True)
    rows = []
    for k in range(flat.shape[1]):
        row: Tensor | None = None
        if slope.requires_grad:
            (row,) = torch.autograd.grad(slope[:, k].sum(), flat, retain_graph=True, allow_unused=True)
        rows.append(torch.zeros_like(flat) if row is None else row)
    hessian = torch.stack(rows, 1).detach()
    if not bool(torch.isfinite(hessian).all() and torch.isfinite(slope).all()):
        raise DataError(f"{likelihood.describe()}: expected finite derivatives of the NLL, got NaN or infinity.")
    values, vectors = torch.linalg.eigh(hessian)
    largest = float(values.abs().max()) if values.numel() else 0.0
    if values.numel() and float(values.min()) < -_ROUNDING * max(1.0, largest):
        raise UnsupportedError(
            f"{likelihood.describe()}: expected an NLL that is convex in the output, which its curvature needs, and "
            f"it has a second derivative of {float(values.min()):.3g}."
        )
    # Directions that no example's NLL depends on, such as the common shift of all logits, come first.
    kept = int((values.amax(0) > torch.finfo(values.dtype).eps * 8 * max(largest, 1e-300)).sum()) or 1
    root = vectors[..., -kept:] * values[..., -kept:].clamp_min(0.0).sqrt().unsqueeze(1)
    return OutputCurvature(slope.detach(), root)
