"""How sure a linear model with Gaussian noise and Gaussian priors is of its predictions, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import block_diag, cho_factor, cho_solve
from torch import Tensor, nn

from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.trainer.full_batch.linear import Sums

__all__ = ["Spread"]

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """std² = τ² + φᵀ(ΦᵀWΦ/τ² + Λ)⁻¹φ, for each output.

    Attributes:
        variance: τ².
        gram: ΦᵀWΦ of centred features, with the column of ones last where there is an intercept.
        mean: What the features are centred by.
        precisions: Λ's diagonal, (outputs, columns of gram).
    """

    variance: float
    gram: Matrix
    mean: Matrix
    precisions: Matrix

    @classmethod
    def of(cls, layer: nn.Linear, prior: ModelPrior, likelihood: Likelihood, sums: Sums | None) -> Self | None:
        """Return it; None where the posterior is no Gaussian of this form, or too large.

        Args:
            layer: The model.
            prior: Its prior.
            likelihood: With its noise.
            sums: Over the examples.
        """
        noise = likelihood.gaussian_noise_std
        if noise is None or sums is None or sums.gram.ndim < 3:
            return None
        by_name: dict[str, Tensor] = {}
        for entry, belief in prior.active():
            parabola = belief.quadratic()
            if parabola is None:
                return None
            precision = torch.as_tensor(parabola.variance, dtype=torch.float64).reciprocal()
            rows = precision.expand(entry.parameter.shape).reshape(layer.out_features, -1)
            by_name[entry.info.attribute] = rows
        mean, gram = sums.mean[0].numpy(), sums.gram[0].numpy()
        if layer.bias is not None:
            if bool(by_name["bias"].any()):
                # The intercept is believed to be small at features of 0, not at their mean.
                gram, mean = gram + float(sums.total) * np.outer(mean, mean), np.zeros_like(mean)
            gram = block_diag(gram, float(sums.total))
            if not mean.any():
                gram[-1, :-1] = gram[:-1, -1] = float(sums.total) * sums.mean[0].numpy()
        precisions = torch.cat([by_name[name] for name in ("weight", "bias") if name in by_name], 1)
        return cls(noise**2, gram, mean, precisions.numpy())

    def __call__(self, X: Matrix) -> Matrix:
        """Return the standard deviations, (n, outputs)."""
        rows = X - self.mean
        if len(self.gram) > rows.shape[1]:
            rows = np.column_stack([rows, np.ones(len(rows))])
        found = np.empty((len(rows), len(self.precisions)))
        for j, precision in enumerate(self.precisions):
            if j and np.array_equal(precision, self.precisions[j - 1]):
                found[:, j] = found[:, j - 1]
                continue
            factor = cho_factor(self.gram / self.variance + np.diag(precision), lower=True)
            found[:, j] = np.sqrt(self.variance + np.einsum("nd,dn->n", rows, cho_solve(factor, rows.T)))
        return found
