"""The matrix Gaussian prior: one covariance between rows, one between columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self, final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import cholesky, promoted
from bayesreg.priors.correlated.cholesky_cache import CholeskyCache
from bayesreg.priors.correlated.multivariate_gaussian import CorrelatedGaussian
from bayesreg.priors.located.located import Loc

__all__ = ["MatrixGaussian"]


@register_family
@final
class MatrixGaussian(CorrelatedGaussian):
    r"""A matrix with ``log p(W) = −½·tr(U⁻¹·R·V⁻¹·R') − (q/2)·log det U − (p/2)·log det V − (pq/2)·log 2π``.

    R = W − loc is p × q, U = row_covariance (p × p) and V = col_covariance (q × q): cov(W_ij, W_kl) = U_ik·V_jl. The
    pairs (U, V) and (c·U, V/c) are the same prior. A tensor of more dimensions is taken as (first, all others).

    Args:
        row_covariance: U, symmetric positive definite, (p, p).
        col_covariance: V, symmetric positive definite, (q, q).
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If a covariance is no such matrix or `loc` not finite.

    Example:
        >>> import torch
        >>> prior = MatrixGaussian(row_covariance=4.0 * torch.eye(2), col_covariance=torch.eye(3))
        >>> import bayesreg as br
        >>> torch.allclose(prior.log_prob(torch.ones(2, 3)), br.Gaussian(2.0).log_prob(torch.ones(2, 3)))
        True

    References:
        Gupta and Nagar (1999), Matrix Variate Distributions, definition 2.2.1; Louizos and Welling (2016), Structured
        and Efficient Variational Deep Learning with Matrix Gaussian Posteriors, equation 1.
    """

    _not_shaped = frozenset({"row_covariance", "col_covariance"})
    row_covariance: Tensor
    col_covariance: Tensor

    def __init__(
        self,
        row_covariance: Tensor | Sequence[Sequence[float]],
        col_covariance: Tensor | Sequence[Sequence[float]],
        *,
        loc: Loc = 0.0,
    ) -> None:
        super().__init__(
            loc=loc,
            row_covariance=checks.covariance("row_covariance", row_covariance),
            col_covariance=checks.covariance("col_covariance", col_covariance),
        )
        self._cache = CholeskyCache()

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Cholesky factors of both covariances."""
        rows, columns = self._cache((self.row_covariance, self.col_covariance), like)
        return rows, columns

    @staticmethod
    def _matrix(value: Tensor) -> Tensor:
        return value.reshape(value.shape[0], -1)

    def _check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Raise unless the parameter has p rows and q elements in each; see `Prior`."""
        super()._check_shape(shape, what)
        p, q = len(self.row_covariance), len(self.col_covariance)
        if len(shape) < 2 or shape[0] != p or math.prod(shape[1:]) != q:
            raise InvalidArgumentError(
                f"{self.family}: expected {what} of {p} rows with {q} elements each, got shape {tuple(shape)}."
            )

    def precision_times(self, offset: Tensor) -> Tensor:
        matrix = self._matrix(offset)
        rows, columns = self._factors(matrix)
        left = torch.cholesky_solve(matrix, rows)
        return torch.cholesky_solve(left.mT, columns).mT.reshape(offset.shape)

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        self._check_shape(shape)
        p, q = len(self.row_covariance), len(self.col_covariance)
        rows, columns = (cholesky(part).diagonal().log().sum() for part in (self.row_covariance, self.col_covariance))
        return -q * rows - p * columns - 0.5 * p * q * math.log(2.0 * math.pi)

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        """Return the prox, for one step for all elements; see `Prior.prox`.

        Args:
            value: The point.
            step: > 0, a float.

        Returns:
            The minimiser.

        Raises:
            UnsupportedError: If `step` differs by element: the covariances' eigenvectors do not serve then.
        """
        if isinstance(step, Tensor) and step.numel() > 1:
            raise UnsupportedError(
                f"{self.family}: its proximal operator needs one step for all elements; the gradient route serves "
                f"every optimizer."
            )
        offset = self._shifted(value)
        matrix = self._matrix(offset)
        u, rows = torch.linalg.eigh(self.row_covariance.to(matrix))
        v, columns = torch.linalg.eigh(self.col_covariance.to(matrix))
        spectrum = u[:, None] * v
        shrunk: Tensor = rows @ ((rows.mT @ matrix @ columns) * (spectrum / (spectrum + float(step)))) @ columns.mT
        return (self.loc + shrunk.reshape(offset.shape)).to(value.dtype)

    def curvature(self, value: Tensor) -> Tensor:
        """Return the diagonal of U⁻¹ ⊗ V⁻¹, in the shape of the parameter; see `Prior.curvature`."""
        self._check_shape(value.shape)
        rows, columns = (
            torch.cholesky_inverse(cholesky(part.detach())).diagonal()
            for part in (self.row_covariance, self.col_covariance)
        )
        return torch.outer(rows, columns).to(promoted(value.detach())).reshape(value.shape)

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        matrix = self._matrix(noise)
        rows, columns = self._factors(matrix)
        drawn: Tensor = rows @ matrix @ columns.mT
        return drawn.reshape(noise.shape)

    def variance(self, shape: Sequence[int] | None = None) -> Tensor:
        """Return diag(U)·diag(V)', in the shape of the parameter where given; see `Prior.variance`."""
        table = torch.outer(self.row_covariance.detach().diagonal(), self.col_covariance.detach().diagonal())
        return table if shape is None else table.reshape(tuple(shape))

    def times(self, factor: float) -> Self:
        """Return the Gaussian of row_covariance/factor; see `Prior.times`."""
        return self.with_powers(factor, row_covariance=-1.0)

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        p, q = len(self.row_covariance), len(self.col_covariance)
        return f"matrix Gaussian, {p} x {p} row and {q} x {q} column covariance, {self._centre_in_words()}"
