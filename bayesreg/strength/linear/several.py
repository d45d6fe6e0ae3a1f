"""The evidence of a linear model with several strengths, one for each group of its columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from bayesreg.strength.linear.design import Design
from bayesreg.strength.linear.spectrum import Spectrum

__all__ = ["best_ratios", "rescaled"]

# Beyond a factor of 10⁶ in the width a group is as good as flat, or as good as gone.
_REACH = math.log(1e12)
_GRADIENT = 1e-9


def best_ratios(
    spectrum: Spectrum, index: Tensor, start: float, noise: float | None, hyper: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the log λ_g, λ_g = noise variance / scale_g², of least −log evidence − Σ_g log p(log scale_g).

    The derivative in log λ_g is ½(‖m_g‖²/σ² − γ_g), of the posterior mean's length and of the number of parameters that
    the data determine, both of the group's.

    Args:
        spectrum: The problem.
        index: The group of each column, (weights,), from 0.
        start: log λ of all, to begin at.
        noise: Variance of the noise; None where it is at its maximum.
        hyper: From log scales to −log density of each, nats.

    Returns:
        (groups,).

    References:
        MacKay (1992), Bayesian Interpolation, eq. 4.9; Tipping (2001), Sparse Bayesian Learning and the Relevance
        Vector Machine.
    """
    free = spectrum.degrees * spectrum.columns
    many = int(index.max()) + 1
    zeros = torch.zeros(many, dtype=torch.float64, device=index.device)

    def objective(ratios: np.ndarray) -> tuple[float, np.ndarray]:
        ratio = torch.as_tensor(ratios, device=index.device)
        mean, determined, volume, square = _posterior(
            spectrum.inside * torch.exp(-0.5 * ratio)[index], spectrum.targets
        )
        lengths = zeros.index_add(0, index, mean.square().sum(1))
        counts = zeros.index_add(0, index, spectrum.columns * determined)
        variance = square / free if noise is None else torch.full_like(square, noise)
        value = 0.5 * (square / variance + spectrum.columns * volume + free * torch.log(2.0 * math.pi * variance))
        eta = (0.5 * (variance.log() - ratio)).requires_grad_()
        with torch.enable_grad():
            believed = hyper(eta).sum()
            pull = torch.autograd.grad(believed, eta)[0] if believed.requires_grad else torch.zeros_like(eta)
        slope = 0.5 * (lengths / variance - counts) - 0.5 * pull
        if noise is None:
            slope = slope + 0.5 * pull.sum() * lengths / square
        return float(value + believed.detach()), slope.cpu().numpy()

    found = minimize(
        objective, np.full(many, start), jac=True, method="L-BFGS-B", bounds=[(start - _REACH, start + _REACH)] * many,
        options={"ftol": 0.0, "gtol": _GRADIENT, "maxiter": 10_000, "maxfun": 20_000, "maxcor": 30},
    )  # fmt: skip
    return torch.as_tensor(found.x, device=index.device)


def _posterior(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return, for A = features: (I + AᵀA)⁻¹Aᵀz, the diagonal of I − (I + AᵀA)⁻¹, log det(I + AᵀA), zᵀ(I + AAᵀ)⁻¹z."""
    rows, columns = features.shape
    eye = torch.eye(min(rows, columns), dtype=features.dtype, device=features.device)
    if columns <= rows:
        factor = torch.linalg.cholesky(eye + features.T @ features)
        mean = torch.cholesky_solve(features.T @ targets, factor)
        determined = 1.0 - torch.cholesky_inverse(factor).diagonal()
        # ‖z − Am‖² + ‖m‖², which zᵀz − zᵀAm would round.
        square = (targets - features @ mean).square().sum() + mean.square().sum()
    else:
        factor = torch.linalg.cholesky(eye + features @ features.T)
        solved = torch.cholesky_solve(targets, factor)
        mean = features.T @ solved
        determined = (features * torch.cholesky_solve(features, factor)).sum(0)
        square = (targets * solved).sum()
    return mean, determined, 2.0 * factor.diagonal().log().sum(), square


def rescaled(design: Design, factors: Tensor) -> Design:
    """Return the problem with columns multiplied: at λ = 1 it is the one with a strength of each column's own.

    Args:
        design: The problem.
        factors: (weights,).

    Returns:
        The problem.
    """

    def write(moved: Tensor, added: Tensor) -> None:
        design.write(factors.unsqueeze(1) * moved, added)

    return replace(design, features=design.features * factors, write=write)
