"""One decomposition, and from it the evidence, leave-one-out and GCV at any strength."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesreg.strength.linear.design import Design

__all__ = ["Spectrum"]


class Spectrum:
    """Least squares with a penalty λ‖δ‖², at all λ = noise variance / scale² at once.

    Args:
        design: The problem. What is flat is projected out, which costs its rank in degrees of freedom and adds to every
            leverage: 1/n of an intercept.

    References:
        Golub, Heath and Wahba (1979), Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter;
        MacKay (1992), Bayesian Interpolation.
    """

    def __init__(self, design: Design) -> None:
        self.design = design
        self.rows, self.columns = design.targets.shape
        self._free = _basis(design.flat)
        self.inside = inside = design.features - self._free @ (self._free.T @ design.features)
        self.targets = design.targets - self._free @ (self._free.T @ design.targets)
        left, values, self._right = torch.linalg.svd(inside, full_matrices=False)
        kept = values > values.amax().clamp_min(1e-300) * max(inside.shape) * torch.finfo(values.dtype).eps
        self._left, self.squares, self._right = left[:, kept], values[kept].square(), self._right[kept]
        self._met = self._left.T @ self.targets
        self._missed = (self.targets - self._left @ self._met).square().sum()
        self.degrees = self.rows - self._free.shape[1]
        self._free_leverage = self._free.square().sum(1)

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return self.rows // self.design.block

    @property
    def many(self) -> int:
        """How many values of log λ to look at in one go, for memory."""
        return max(1, 2**22 // (self.rows * self.columns))

    def _share(self, log_ratio: Tensor) -> Tensor:
        share: Tensor = self.squares / (self.squares + log_ratio.exp().unsqueeze(-1))
        return share

    # -- what is minimised, nats: functions of log λ, a scalar or one of each of many ----------------------------

    def evidence(self, log_ratio: Tensor, noise: float | None) -> Tensor:
        """Return −log evidence.

        Args:
            log_ratio: log λ, (...).
            noise: Variance of the noise; None where it is at its maximum.

        Returns:
            Nats, (...).
        """
        square = self.square(log_ratio)
        free = self.degrees * self.columns
        volume = self.columns * torch.log1p(self.squares / log_ratio.exp().unsqueeze(-1)).sum(-1)
        if noise is not None:
            return 0.5 * (square / noise + volume + free * math.log(2.0 * math.pi * noise))
        return 0.5 * (free * torch.log(square / free) + volume + free * (1.0 + math.log(2.0 * math.pi)))

    def square(self, log_ratio: Tensor) -> Tensor:
        """Return zᵀ(I + XXᵀ/λ)⁻¹z summed over columns; over the degrees of freedom it is the evidence's noise."""
        square: Tensor = self._missed + (1.0 - self._share(log_ratio)) @ self._met.square().sum(1)
        return square

    def left_out(self, log_ratio: Tensor) -> Tensor:
        """Return the residuals of leave-one-out, (..., rows, columns)."""
        share = self._share(log_ratio)
        # One product for all strengths; `@` would make one for each.
        residual = self.targets - torch.einsum("nd,...dc->...nc", self._left, share.unsqueeze(-1) * self._met)
        if self.design.block == 1:
            apart: Tensor = residual / (1.0 - self.leverage(log_ratio)).unsqueeze(-1)
            return apart
        n, k = self.examples, self.design.block
        left, free = self._left.reshape(n, k, -1), self._free.reshape(n, k, -1)
        hat = torch.einsum("nka,...a,nla->...nkl", left, share, left) + torch.einsum("nka,nla->nkl", free, free)
        rest = torch.eye(k, dtype=hat.dtype, device=hat.device) - hat
        solved: Tensor = torch.linalg.solve(rest, residual.unflatten(-2, (n, k)))
        return solved.flatten(-3, -2)

    def leverage(self, log_ratio: Tensor) -> Tensor:
        """Return how much of its own prediction each row decides, (..., rows)."""
        leverage: Tensor = self._free_leverage + self._share(log_ratio) @ self._left.square().T
        return leverage

    def loo(self, log_ratio: Tensor, noise: float | None) -> Tensor:
        """Return the leave-one-out log score, with the noise given or at the mean square of what is left out."""
        return _score(self.left_out(log_ratio).square().sum((-2, -1)), self.rows * self.columns, noise)

    def gcv(self, log_ratio: Tensor, noise: float | None) -> Tensor:
        """Return the same with all leverages at their mean."""
        share = self._share(log_ratio)
        residual = self._missed + (1.0 - share).square() @ self._met.square().sum(1)
        rest = 1.0 - (share.sum(-1) + self._free.shape[1]) / self.rows
        return _score(residual / rest.square(), self.rows * self.columns, noise)

    # -- the fit -----------------------------------------------------------------------------------------------

    def effective_parameters(self, log_ratio: Tensor) -> Tensor:
        """Return how many parameters the data determine, flat ones included, (...)."""
        return self.columns * (self._share(log_ratio).sum(-1) + self._free.shape[1])

    def moved(self, log_ratio: Tensor, change: float) -> float:
        """Return half the mean square by which an example's predictions move when log λ changes."""
        shares = self._share(log_ratio + change) - self._share(log_ratio)
        return 0.5 * float((shares.unsqueeze(1) * self._met).square().sum()) / self.examples

    def write(self, log_ratio: Tensor) -> None:
        """Put the MAP into the model."""
        design = self.design
        gained = (self.squares.sqrt() / (self.squares + log_ratio.exp())).unsqueeze(1) * self._met
        moved = self._right.T @ gained
        added = design.flat.new_zeros(0, self.columns)
        if design.flat.shape[1]:
            added = torch.linalg.pinv(design.flat) @ (design.targets - design.features @ moved)
        design.write(moved, added)


def _score(square: Tensor, count: int, noise: float | None) -> Tensor:
    if noise is not None:
        return 0.5 * (square / noise + count * math.log(2.0 * math.pi * noise))
    return 0.5 * count * (torch.log(square / count) + 1.0 + math.log(2.0 * math.pi))


def _basis(flat: Tensor) -> Tensor:
    """Return an orthonormal basis of what flat parameters can do."""
    if not flat.shape[1]:
        return flat
    left, values, _ = torch.linalg.svd(flat, full_matrices=False)
    kept = values > values.amax() * max(flat.shape) * torch.finfo(values.dtype).eps
    basis: Tensor = left[:, kept]
    return basis
