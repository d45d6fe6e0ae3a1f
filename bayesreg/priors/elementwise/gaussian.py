"""The Gaussian prior: L2 regularisation, weight decay, and decay toward pretrained weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Self, final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.conversion import LossScale, weight_decay_to_variance
from bayesreg.errors import InvalidArgumentError
from bayesreg.optimizers import OptimizerLike
from bayesreg.priors.contract.quadratic import Quadratic
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, plain, promoted, summed, total_constant
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.base import flat_words
from bayesreg.priors.located.loc_scale import LocScalePrior

__all__ = ["Gaussian"]

_WIDTH = "; a variance v is scale=v**0.5, a standard deviation is the scale"


@register_family
@final
class Gaussian(LocScalePrior):
    r"""Independent Gaussian elements, ``log p(w) = −½ Σ ((w − loc)/scale)² − Σ log scale − (d/2) log 2π``.

    With loc = 0 and one scale it is L2 regularisation: weight_decay = s/scale², with s the loss scale.

    Args:
        scale: Standard deviation > 0, in units of the weights. A number (isotropic), a tensor that broadcasts to
            the parameter (diagonal), or an `nn.Parameter` when it is learned.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors, which `ModelPrior`
            binds to each parameter. Default 0.

    Raises:
        InvalidArgumentError: If `scale` is not > 0 or `loc` not finite.

    Example:
        >>> prior = Gaussian(scale=0.5)
        >>> prior.weight_decay(num_data=1000)
        0.004
        >>> round(prior.log_prob(torch.zeros(3)).item(), 4)
        -0.6774

    References:
        MacKay (1992), A Practical Bayesian Framework for Backpropagation Networks, section 2.
    """

    traits = Traits(proper=True, convex=True, smooth=True, elementwise=True, has_prox=True, gaussian=True)
    _hints = MappingProxyType(dict.fromkeys(("variance", "std", "sigma"), _WIDTH))

    @classmethod
    @answering
    def from_weight_decay(
        cls,
        weight_decay: float,
        num_data: int | LossScale,
        *,
        loc: Hyperparameter | Mapping[str, Tensor] = 0.0,
        optimizer: OptimizerLike | None = None,
    ) -> Self:
        """Return the Gaussian of variance s / weight_decay.

        Args:
            weight_decay: λ > 0, in the ½ convention of `torch.optim`.
            num_data: Size of the training set of a mean loss, or the `LossScale` of another.
            loc: The centre; as in the constructor.
            optimizer: The optimizer whose decay it is; decoupled ones are refused.

        Returns:
            The prior.

        Raises:
            InvalidArgumentError: If weight_decay is not > 0 (for no decay at all, the prior is `Flat`).
            NotEquivalentError: If the optimizer's decay is not that of a Gaussian prior.

        Example:
            >>> Gaussian.from_weight_decay(5e-4, 50_000)
            Gaussian(scale=0.2, loc=0)
        """
        decay = checks.non_negative_float("weight_decay", weight_decay)
        if decay == 0:
            raise InvalidArgumentError("weight_decay: expected a value > 0, got 0; no decay at all is br.Flat().")
        scale = math.sqrt(weight_decay_to_variance(decay, num_data, optimizer=optimizer))
        return cls(scale=checks.width_from("weight_decay", decay, scale), loc=loc)

    def penalty(self, value: Tensor) -> Tensor:
        return summed(self._element_penalty(value))

    def _element_penalty(self, value: Tensor) -> Tensor:
        return 0.5 * (self._shifted(value) / self.scale).square()

    def _log_normaliser(self) -> Tensor:
        return self.scale.to(torch.float64).log() + 0.5 * math.log(2.0 * math.pi)

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        return -total_constant(self._log_normaliser(), shape)

    @torch.no_grad()
    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        self._require_bound()
        if self.scale.ndim == 0 and self._centred_on_zero_scalar:
            torch._foreach_add_(list(grads), list(values), alpha=coefficient / float(self.scale) ** 2)
            return
        # The difference first: on the centre the pull is exactly 0.
        for grad, value in zip(grads, values, strict=True):
            work = self._shifted(value)
            if self.scale.ndim == 0:
                grad.add_(work, alpha=coefficient / float(self.scale) ** 2)
            else:
                grad.add_(work.div_(self.scale).div_(self.scale), alpha=coefficient)

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        shifted = self._shifted(value)
        return (self.loc + shifted / (1.0 + step / self.scale.square())).to(value.dtype)

    def curvature(self, value: Tensor) -> Tensor:
        like = promoted(value.detach())
        return self.scale.detach().to(like.device).square().reciprocal().to(like.dtype).expand(value.shape).clone()

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        return self.scale.to(like.device) * noise

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter:
        return plain(self.scale.square())

    def quadratic(self) -> Quadratic:
        """Return the parabola of variance scale²; see `Prior.quadratic`."""
        return self.parabola(self.scale.square())

    def times(self, factor: float) -> Self:
        """Return the Gaussian of std scale/√factor; see `Prior.times`."""
        return self.with_powers(factor, scale=-0.5)

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        width = (
            f"std {float(self.scale.detach()):.4g}"
            if self.scale.ndim == 0
            else f"one std per element{flat_words(self.scale)}"
        )
        return f"Gaussian, {width}, {self._centre_in_words()}" + (f" ({self.note})" if self.note else "")
