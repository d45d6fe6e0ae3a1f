"""The Laplace prior: L1 regularisation and exact zeros."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self, final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.conversion import LossScale, as_loss_scale, l1_to_laplace_scale
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, plain, promoted, summed, total_constant
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.base import flat_words
from bayesreg.priors.located.loc_scale import LocScalePrior

__all__ = ["Laplace"]


@register_family
@final
class Laplace(LocScalePrior):
    r"""Independent Laplace elements, ``log p(w) = −Σ |w − loc|/scale − Σ log(2·scale)``.

    It is L1 regularisation: loss + (s/scale)·‖w − loc‖₁, with s the loss scale. The MAP has exact zeros (weights
    exactly at loc), which only the proximal route and solver find. The standard deviation is √2 · scale.

    Args:
        scale: b > 0, in units of the weights: a number, a tensor that broadcasts to the parameter, or an
            `nn.Parameter` when it is learned.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors, which `ModelPrior`
            binds to each parameter. Default 0.

    Raises:
        InvalidArgumentError: If `scale` is not > 0 or `loc` not finite.

    Example:
        >>> prior = Laplace(scale=0.5)
        >>> prior.prox(torch.tensor([-3.0, 0.1, 1.0]), step=0.25)
        tensor([-2.5000,  0.0000,  0.5000])
        >>> prior.log_prob(torch.tensor([1.0, -1.0])).item()
        -4.0

    References:
        Tibshirani (1996), Regression Shrinkage and Selection via the Lasso, section 5.
    """

    traits = Traits(proper=True, convex=True, smooth=False, elementwise=True, has_prox=True)

    @classmethod
    @answering
    def from_l1(cls, l1_coefficient: float, num_data: int | LossScale) -> Self:
        """Return the Laplace prior of scale s / l1_coefficient.

        Args:
            l1_coefficient: The factor > 0 in loss + l1_coefficient · ‖w‖₁.
            num_data: Size of the training set of a mean loss, or the `LossScale` of another.

        Returns:
            The prior.

        Raises:
            InvalidArgumentError: If the coefficient is not > 0 (for no penalty at all, the prior is `Flat`).

        Example:
            >>> Laplace.from_l1(1e-4, 50_000)
            Laplace(scale=0.2, loc=0)
        """
        coefficient = checks.non_negative_float("l1_coefficient", l1_coefficient)
        if coefficient == 0:
            raise InvalidArgumentError("l1_coefficient: expected a value > 0, got 0; no penalty at all is br.Flat().")
        scale = l1_to_laplace_scale(coefficient, num_data)
        return cls(scale=checks.width_from("l1_coefficient", coefficient, scale))

    def penalty(self, value: Tensor) -> Tensor:
        return summed(self._element_penalty(value))

    def _rates(self) -> tuple[Tensor, Tensor]:
        rate = self.scale.detach().reciprocal()
        return rate, torch.zeros_like(rate)

    def _element_penalty(self, value: Tensor) -> Tensor:
        return (self._shifted(value) / self.scale).abs()

    def _log_normaliser(self) -> Tensor:
        return (2.0 * self.scale.to(torch.float64)).log()

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        return -total_constant(self._log_normaliser(), shape)

    def _slope_beside_kink(self, value: Tensor) -> Tensor:
        return self.scale.detach().reciprocal().to(promoted(value)).expand(value.shape)

    @torch.no_grad()
    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        for grad, value in zip(grads, values, strict=True):
            sign = self._shifted(value).sign_().div_(self.scale)
            grad.add_(sign, alpha=coefficient)

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        shifted = self._shifted(value)
        threshold = step / self.scale
        # v − clamp(v, −t, t) is soft-thresholding, with an exact 0 inside the threshold.
        return (shifted - torch.clamp(shifted, -threshold, threshold) + self.loc).to(value.dtype)

    def _prox_(self, value: Tensor, step: float | Tensor, longest: float | Tensor | None = None) -> None:
        """Soft-threshold in place: one pass and no temporary for the plain L1 case; see `Prior.prox_`."""
        if longest is not None and isinstance(step, Tensor):
            # Off its kink every element has the same slope.
            step = (
                step.clamp_(max=longest * float(self.scale))
                if self.scale.ndim == 0
                else self._shortened(step, value, longest)
            )
        plain_l1 = self._centred_on_zero_scalar and self.scale.ndim == 0
        if not plain_l1 or value.dtype not in (torch.float32, torch.float64) or not value.is_contiguous():
            value.copy_(self.prox(value, step))
        elif isinstance(step, float):
            torch.ops.aten.softshrink.out(value, step / float(self.scale), out=value)
        else:
            # v − clamp(v, −t, t) with one workspace besides t.
            threshold = step / float(self.scale)
            inside = torch.minimum(value, threshold)
            torch.maximum(inside, threshold.neg_(), out=inside)
            value.sub_(inside)

    def subdiff_distance(self, value: Tensor, grad: Tensor, coefficient: float = 1.0) -> Tensor:
        shifted = self._shifted(value.detach())
        bound = coefficient / self.scale
        off_kink = (grad + bound * shifted.sign()).abs()
        at_kink = (grad.abs() - bound).clamp_min(0.0)
        return torch.where(shifted == 0, at_kink, off_kink)

    def at_kink(self, value: Tensor) -> Tensor:
        return self._shifted(value.detach()) == 0

    def curvature(self, value: Tensor) -> Tensor:
        """Return zeros: −log p is linear on either side of its kink."""
        return torch.zeros_like(promoted(value.detach()))

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        first, second = (torch.empty_like(like).exponential_(generator=generator) for _ in range(2))
        return self.scale.to(like.device) * (first - second)

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter:
        return plain(2.0 * self.scale.square())

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        strength = f" of {loss_scale.value / float(self.scale.detach()):.3g}" if self.scale.ndim == 0 else ""
        return (
            f"No weight_decay is equivalent to a Laplace prior: its pull s/scale does not shrink with the weight. It "
            f"is an L1 coefficient{strength} (Laplace.l1(loss_scale)); train it with br.MAPTrainer or br.attach, "
            f"which take proximal steps."
        )

    @answering
    def l1(self, num_data: int | LossScale) -> Hyperparameter:
        """Return the coefficient s / scale of the L1 penalty that the prior stands for.

        Args:
            num_data: Size of the training set of a mean loss, or the `LossScale` of another.

        Returns:
            A float; a tensor where the scale is one.

        Example:
            >>> Laplace(scale=0.2).l1(50_000)
            0.0001
        """
        return plain(as_loss_scale(num_data).value / self.scale)

    def times(self, factor: float) -> Self:
        """Return the Laplace prior of scale/factor; see `Prior.times`."""
        return self.with_powers(factor, scale=-1.0)

    def _near(self, loss_scale: LossScale, shape: Sequence[int] | None) -> str:
        strength = self.l1(loss_scale)
        return "none; L1 per element" if isinstance(strength, Tensor) else f"none; L1 coefficient {strength:.4g}"

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        width = f"one scale per element{flat_words(self.scale)}"
        if self.scale.ndim == 0:
            b = float(self.scale)
            width = f"scale {b:.4g} (std {math.sqrt(2.0) * b:.4g})"
        return f"Laplace, {width}, {self._centre_in_words()}"
