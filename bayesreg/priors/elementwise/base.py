"""Families of independent elements, each written as a function of the offset from the centre."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.contract.tensors import Hyperparameter, promoted, summed, total_constant
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.located.located import LocatedPrior

__all__ = ["ElementwisePrior"]


class ElementwisePrior(LocatedPrior, ABC):
    """A prior on independent elements, ``log p(w) = −Σ [offset_penalty(w − loc) + log_normaliser]``.

    The place to start for a family of your own: give its penalty, slope, curvature, normaliser and draws as functions
    of the offset r = w − loc, and call `super().__init__(loc=loc, name=value, ...)` with the checked hyper-parameters,
    by the names of the constructor's arguments. Everything else follows.

    Args:
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors, which `ModelPrior`
            binds to each parameter. Default 0.
        **hyperparameters: The others: numbers, or tensors that broadcast to the parameter.
    """

    @abstractmethod
    def offset_penalty(self, offset: Tensor) -> Tensor:
        """Return −log p of each element up to a constant, differentiably.

        Args:
            offset: r = w − loc, in float32 or better.

        Returns:
            Tensor of the same shape; 0 at r = 0.
        """

    @abstractmethod
    def offset_slope(self, offset: Tensor) -> Tensor:
        """Return the derivative of `offset_penalty`, 0 at a kink.

        Args:
            offset: r.

        Returns:
            Tensor of the same shape.
        """

    @abstractmethod
    def offset_curvature(self, offset: Tensor) -> Tensor:
        """Return the second derivative of `offset_penalty`, 0 at a kink.

        Args:
            offset: r.

        Returns:
            Tensor of the same shape.
        """

    @abstractmethod
    def log_normaliser(self) -> Tensor:
        """Return log ∫ exp(−offset_penalty(r)) dr of one element, in float64: a scalar, or one per element."""

    def _log_normaliser(self) -> Tensor:
        return self.log_normaliser()

    def offset_prox(self, offset: Tensor, step: Tensor) -> Tensor:
        """Return argmin_x Σ (x − r)²/(2·step) + offset_penalty(x), where the family's traits say `has_prox`.

        Args:
            offset: r.
            step: > 0; a scalar, or one per element.

        Returns:
            The minimisers, where two tie the one nearer to the centre.

        Raises:
            UnsupportedError: If the family has no prox.
        """
        return super().prox(offset, step)

    @classmethod
    def _check_abilities(cls, traits: Any) -> None:
        super()._check_abilities(traits)
        own = cls.offset_prox is not ElementwisePrior.offset_prox or cls.prox is not ElementwisePrior.prox
        if isinstance(traits, Traits) and traits.has_prox and not own:
            raise InvalidArgumentError(
                f"{cls.__name__}: its traits declare has_prox=True, and it has no offset_prox(self, offset, step): "
                f"write it or declare has_prox=False."
            )

    # -- the contract ----------------------------------------------------------------------------------

    def _element_penalty(self, value: Tensor) -> Tensor:
        return self.offset_penalty(self._shifted(value))

    def penalty(self, value: Tensor) -> Tensor:
        return summed(self._element_penalty(value))

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        return -total_constant(self.log_normaliser(), shape)

    @torch.no_grad()
    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        for grad, value in zip(grads, values, strict=True):
            grad.add_(self.offset_slope(self._shifted(value)), alpha=coefficient)

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        shifted = self._shifted(value)
        if not self.traits.has_prox:
            return super().prox(value, step)
        wide = step if isinstance(step, Tensor) else torch.tensor(step, dtype=torch.float64)
        return (self.loc + self.offset_prox(shifted, wide)).to(value.dtype)

    def curvature(self, value: Tensor) -> Tensor:
        return self.offset_curvature(self._shifted(value.detach())).detach()

    def at_kink(self, value: Tensor) -> Tensor:
        if self.traits.smooth:
            return super().at_kink(value)
        return self._shifted(value.detach()) == 0

    def _slope_beside_kink(self, value: Tensor) -> Tensor:
        if self.traits.smooth:
            return super()._slope_beside_kink(value)
        wide = promoted(value.detach())
        return self.offset_slope(torch.full_like(wide, torch.finfo(wide.dtype).tiny)).abs()

    def subdiff_distance(self, value: Tensor, grad: Tensor, coefficient: float = 1.0) -> Tensor:
        if self.traits.smooth:
            return super().subdiff_distance(value, grad, coefficient)
        offset = self._shifted(value.detach())
        # At the kink the subdifferential reaches to the slopes just beside it.
        on_kink = (grad.abs() - coefficient * self._slope_beside_kink(value)).clamp_min(0.0)
        return torch.where(offset == 0, on_kink, (promoted(grad) + coefficient * self.offset_slope(offset)).abs())

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return None; families that have a variance say so. See `Prior.variance`."""
        return None

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        near = self.weight_decay_readings(loss_scale)
        return (
            f"No weight_decay is equivalent to {self.family}: its pull is not in proportion to the weight ({near}). "
            f"Train it with br.attach or br.MAPTrainer; weight_decay_readings(loss_scale) has the numbers by name."
        )

    # -- for describe() --------------------------------------------------------------------------------

    def _in_words(self, **names: str) -> str:
        """Return hyper-parameters in words: "scale 0.1", or "one scale per element"."""
        parts = []
        for name, label in names.items():
            held = getattr(self, name)
            parts.append(f"one {label} per element{flat_words(held)}" if held.ndim else f"{label} {float(held):.4g}")
        return ", ".join([*parts, self._centre_in_words()])


def flat_words(scale: Tensor) -> str:
    """Return how many elements of a scale are infinite, in words after "one per element"; nothing if none is."""
    flat = int(torch.isinf(scale).sum())
    return f" ({flat} of them flat)" if flat else ""


def soft_threshold(offset: Tensor, threshold: Tensor) -> Tensor:
    """Return sign(r)·max(|r| − threshold, 0), with an exact 0 inside."""
    return offset - torch.clamp(offset, -threshold, threshold)
