"""Cholesky factors that are computed once, and again where a matrix was changed."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesreg.priors.contract.tensors import cholesky

__all__ = ["CholeskyCache"]


class CholeskyCache:
    """The factors of the covariances of one prior, in the dtype and on the device of what they are applied to."""

    def __init__(self) -> None:
        self._key: object = None
        self._roots: tuple[Tensor, ...] = ()

    def __call__(self, matrices: tuple[Tensor, ...], like: Tensor) -> tuple[Tensor, ...]:
        """Return L with LL' = matrix, for each.

        Args:
            matrices: The covariances.
            like: A tensor of the dtype and device wanted.

        Returns:
            The factors; with gradients where a covariance is learned.
        """
        # In a compiled graph, or for tensors made in inference mode, no change could be noticed.
        blind = torch.compiler.is_compiling() or any(matrix.is_inference() for matrix in matrices)
        if blind or any(matrix.requires_grad for matrix in matrices):
            return tuple(cholesky(matrix).to(like) for matrix in matrices)
        key = ([(id(matrix), matrix._version) for matrix in matrices], like.dtype, like.device)
        if self._key != key:
            self._key, self._roots = key, tuple(cholesky(matrix).to(like) for matrix in matrices)
        return self._roots
