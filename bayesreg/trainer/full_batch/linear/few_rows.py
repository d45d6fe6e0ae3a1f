"""The Hessian of a linear layer on fewer examples than features, solved in as many dimensions as there are examples."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesreg.trainer.full_batch.linear.sums import share_of

__all__ = ["FewRows"]

# What rounding may take of the difference below; it takes more the weaker the prior is.
_ROUNDED = 1e-5


class FewRows:
    """Solves (ΦᵀHΦ + D)x = b, for each output, as D⁻¹b − D⁻¹Φᵀ(H⁻¹ + ΦD⁻¹Φᵀ)⁻¹ΦD⁻¹b (Woodbury).

    Args:
        features: Φ, (n, d).
        weights: H, (n, outputs), or (n, 1) for all alike; >= 0.
        alone: D, the priors' curvature, (outputs, d), > 0.
        on_bias: That of the bias, (outputs,); None without.
        centred: Whether the bias is taken out first.
    """

    #: Elements of all outputs' rows.
    most = 2**25

    def __init__(
        self, features: Tensor, weights: Tensor, alone: Tensor, on_bias: Tensor | None, *, centred: bool
    ) -> None:
        #: Σh, (outputs,), and the features' mean by it, (outputs, d).
        self.total = total = weights.sum(0)
        mean = features.new_zeros(weights.shape[1], features.shape[1])
        if centred:
            mean = weights.T @ features / share_of(total)[:, None]
        rows = (features - mean[:, None, :]) * weights.T.sqrt()[:, :, None]
        self.mean = mean
        if on_bias is not None:
            left = total * on_bias / share_of(total + on_bias)
            # What a prior on the bias leaves of the mean, which taking it out had removed.
            rest = (left.sqrt()[:, None] * mean)[:, None, :]
            rows = torch.cat([rows.expand(len(left), -1, -1), rest], 1)
        self._root = alone.sqrt()
        self._scaled = rows / self._root[:, None, :]
        inner = self._scaled @ self._scaled.mT
        inner.diagonal(dim1=1, dim2=2).add_(1.0)
        #: Whether rounding leaves enough of what it finds.
        self.sure = bool(inner.amax() * torch.finfo(inner.dtype).eps < _ROUNDED)
        self._factor = torch.linalg.cholesky(inner) if self.sure else inner

    def __call__(self, goal: Tensor) -> Tensor:
        """Return x for b, (outputs, d)."""
        part = (goal / self._root)[:, :, None]
        inside = torch.cholesky_solve(self._scaled @ part, self._factor)
        return (part - self._scaled.mT @ inside)[:, :, 0] / self._root
