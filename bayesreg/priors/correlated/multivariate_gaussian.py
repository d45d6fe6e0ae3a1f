"""The Gaussian prior with a full covariance, for small groups of weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self, final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import cholesky, promoted, summed
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.correlated.cholesky_cache import CholeskyCache
from bayesreg.priors.located.located import Loc, LocatedPrior

__all__ = ["CorrelatedGaussian", "MultivariateGaussian"]


class CorrelatedGaussian(LocatedPrior, ABC):
    """A Gaussian prior that joins elements: a family says how precision and covariance act on a tensor."""

    traits = Traits(proper=True, convex=True, smooth=True, elementwise=False, has_prox=True, gaussian=True)

    @abstractmethod
    def precision_times(self, offset: Tensor) -> Tensor:
        """Return Σ⁻¹·offset.

        Args:
            offset: w − loc, or any direction, in float32 or better.

        Returns:
            Tensor of the same shape.
        """

    def penalty(self, value: Tensor) -> Tensor:
        offset = self._shifted(value)
        return 0.5 * summed(offset * self.precision_times(offset))

    @torch.no_grad()
    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        for grad, value in zip(grads, values, strict=True):
            grad.add_(self.precision_times(self._shifted(value)), alpha=coefficient)

    def curvature_times(self, value: Tensor, vector: Tensor) -> Tensor:
        self._check_shape(value.shape)
        return self.precision_times(promoted(vector))

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            f"No weight_decay is equivalent to {self.family}, which joins elements: train it with br.attach or "
            f"br.MAPTrainer; prior.weight_decay_readings(loss_scale, at=weights) has what comes near, by name."
        )


@register_family
@final
class MultivariateGaussian(CorrelatedGaussian):
    r"""Correlated Gaussian elements, ``log p(w) = −½·r'·covariance⁻¹·r − ½·log det(2π·covariance)``, r = w − loc.

    Its k × k covariance is that of the whole parameter, flattened, where that has k elements; else that of each slice
    along the last dimension, which must have k (the rows of a Linear's weight), and the slices are independent.

    Args:
        covariance: Symmetric positive definite matrix of shape (k, k), in squared units of the weights. For small k:
            the cost of a step grows with k².
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `covariance` is no such matrix or `loc` not finite.

    Example:
        >>> import torch
        >>> prior = MultivariateGaussian(covariance=[[1.0, 0.9], [0.9, 1.0]])
        >>> together, apart = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
        >>> bool(prior.log_prob(together) > prior.log_prob(apart))
        True

    References:
        Bishop (2006), Pattern Recognition and Machine Learning, equation 2.43.
    """

    _not_shaped = frozenset({"covariance"})
    covariance: Tensor

    def __init__(self, covariance: Tensor | Sequence[Sequence[float]], *, loc: Loc = 0.0) -> None:
        super().__init__(loc=loc, covariance=checks.covariance("covariance", covariance))
        self._cache = CholeskyCache()

    def _factor(self, like: Tensor) -> Tensor:
        """Return the Cholesky factor of the covariance."""
        return self._cache((self.covariance,), like)[0]

    def _rows(self, value: Tensor) -> Tensor:
        """View a tensor as independent rows of k elements."""
        return value.reshape(-1, len(self.covariance))

    def _check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Raise unless the parameter has k elements, or k along its last dimension; see `Prior`."""
        super()._check_shape(shape, what)
        k = len(self.covariance)
        if math.prod(shape) != k and (not shape or shape[-1] != k):
            raise InvalidArgumentError(
                f"{self.family} covariance: expected {what} of {k} elements, or of {k} along its last dimension, got "
                f"shape {tuple(shape)}."
            )

    def precision_times(self, offset: Tensor) -> Tensor:
        rows = self._rows(offset)
        return torch.cholesky_solve(rows.mT, self._factor(rows)).mT.reshape(offset.shape)

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        self._check_shape(shape)
        log_det = cholesky(self.covariance).diagonal().log().sum()
        rows = math.prod(shape) // len(self.covariance)
        return -rows * log_det - 0.5 * math.prod(shape) * math.log(2.0 * math.pi)

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        offset = self._shifted(value)
        rows = self._rows(offset)
        # v − H(Σ + H)⁻¹v with the steps H on a diagonal: well conditioned for any step.
        if not isinstance(step, Tensor) or step.numel() == 1:
            # One matrix for all rows: Σ(Σ + h)⁻¹v.
            eye = torch.eye(len(self.covariance), dtype=rows.dtype, device=rows.device)
            covariance = self.covariance.to(rows)
            joined = torch.linalg.solve(covariance + float(step) * eye, covariance)
            shrunk: Tensor = rows @ joined
            return (self.loc + shrunk.reshape(offset.shape)).to(value.dtype)
        steps = self._rows(torch.as_tensor(step, dtype=rows.dtype, device=rows.device).expand(offset.shape))
        joined = self.covariance.to(rows) + torch.diag_embed(steps)
        inner: Tensor = torch.linalg.solve(joined, rows)
        shrunk = rows - steps * inner
        return (self.loc + shrunk.reshape(offset.shape)).to(value.dtype)

    def curvature(self, value: Tensor) -> Tensor:
        """Return the diagonal of covariance⁻¹, in the shape of the parameter; see `Prior.curvature`."""
        self._check_shape(value.shape)
        like = promoted(value.detach())
        precision = torch.cholesky_inverse(cholesky(self.covariance.detach()))
        return precision.diagonal().to(like).expand_as(self._rows(like)).reshape(value.shape).clone()

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        rows = self._rows(noise)
        return (rows @ self._factor(rows).mT).reshape(noise.shape)

    def variance(self, shape: Sequence[int] | None = None) -> Tensor:
        """Return the diagonal of the covariance, in the shape of the parameter where given; see `Prior.variance`."""
        diagonal = self.covariance.detach().diagonal().clone()
        if shape is None:
            return diagonal
        self._check_shape(shape)
        return diagonal.expand(math.prod(shape) // len(diagonal), -1).reshape(tuple(shape))

    def times(self, factor: float) -> Self:
        """Return the Gaussian of covariance/factor; see `Prior.times`."""
        return self.with_powers(factor, covariance=-1.0)

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        k = len(self.covariance)
        spread = self.covariance.detach().diagonal().sqrt()
        return (
            f"multivariate Gaussian, {k} x {k} covariance, std {float(spread.min()):.4g} to {float(spread.max()):.4g}, "
            f"{self._centre_in_words()}"
        )
