"""The Gaussian prior: L2 regularisation, weight decay, and decay toward pretrained weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Self, final

import torch
from torch import Tensor

from bayesreg.conversion import variance_to_weight_decay, weight_decay_to_variance
from bayesreg.errors import InvalidArgumentError, NotEquivalentError
from bayesreg.optimizers import OptimizerLike, require_coupled
from bayesreg.priors.base import Traits
from bayesreg.priors.loc_scale import LocScalePrior
from bayesreg.priors.tensors import Hyperparameter, plain, promoted, total_constant
from bayesreg.scale import LossScale, as_loss_scale

__all__ = ["Gaussian"]


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
        >>> prior.weight_decay(loss_scale=1000)
        0.004
        >>> round(prior.log_prob(torch.zeros(3)).item(), 4)
        -0.6774

    References:
        MacKay (1992), A Practical Bayesian Framework for Backpropagation Networks, section 2.
    """

    traits = Traits(proper=True, convex=True, smooth=True, elementwise=True, has_prox=True)
    #: Where the width comes from, for describe().
    note: str | None = None

    @classmethod
    def from_weight_decay(
        cls,
        weight_decay: float,
        loss_scale: LossScale | int,
        *,
        loc: Hyperparameter | Mapping[str, Tensor] = 0.0,
        optimizer: OptimizerLike | None = None,
    ) -> Self:
        """Return the Gaussian of variance s / weight_decay.

        Args:
            weight_decay: λ > 0, in the ½ convention of `torch.optim`.
            loss_scale: s, or the size of the training set of a mean loss.
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
        if weight_decay == 0:
            raise InvalidArgumentError("weight_decay: expected a value > 0, got 0; no decay at all is br.Flat().")
        variance = weight_decay_to_variance(weight_decay, loss_scale, optimizer=optimizer)
        return cls(scale=math.sqrt(variance), loc=loc)

    def penalty(self, value: Tensor) -> Tensor:
        return self.element_penalty(value).sum()

    def element_penalty(self, value: Tensor) -> Tensor:
        return 0.5 * (self._shifted(value) / self.scale).square()

    def log_normaliser(self) -> Tensor:
        return self.scale.to(torch.float64).log() + 0.5 * math.log(2.0 * math.pi)

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        return -total_constant(self.log_normaliser(), shape)

    @torch.no_grad()
    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        self._require_bound()
        # In half precision two passes would cancel: the difference first, in float32.
        half = any(torch.finfo(grad.dtype).bits < 32 for grad in grads) and not self._centred_on_zero
        if self.scale.ndim == 0 and not half:
            strength = coefficient / float(self.scale) ** 2
            torch._foreach_add_(list(grads), list(values), alpha=strength)
            for grad in grads:
                if self.loc.ndim:
                    grad.add_(self.loc.to(grad.device), alpha=-strength)
                elif float(self.loc) != 0.0:
                    grad.sub_(strength * float(self.loc))
            return
        for grad, value in zip(grads, values, strict=True):
            work = self._shifted(value)
            work = work.div_(self.scale).div_(self.scale)
            grad.add_(work, alpha=coefficient)

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

    def weight_decay(
        self, loss_scale: LossScale | int, optimizer: OptimizerLike | None = None, *, about_loc: bool = False
    ) -> Hyperparameter:
        """Return weight_decay = s / scale².

        Args:
            loss_scale: s, or the size of the training set of a mean loss.
            optimizer: The optimizer in use; a coupled one is assumed if None.
            about_loc: Return the λ of the pull (λ/2)‖w − loc‖² toward a centre other than 0, which no optimizer's
                `weight_decay` can express. Default False: such a prior raises.

        Returns:
            A float; a tensor, one number per coordinate, for a diagonal prior.

        Raises:
            NotEquivalentError: If the centre is not 0 (unless `about_loc`), or the optimizer decouples its decay.

        Example:
            >>> Gaussian(scale=0.5).weight_decay(LossScale.mean(1000), torch.optim.SGD)
            0.004
        """
        s = as_loss_scale(loss_scale)
        variance = self.variance()
        if not self._centred_on_zero and not about_loc:
            pull = "" if isinstance(variance, Tensor) else f" (here lambda = {s.value / variance:.3g})"
            raise NotEquivalentError(
                f"An optimizer's weight_decay pulls toward 0, this prior toward loc{pull}: use br.attach(optimizer, "
                f"prior, num_data=n), or ask for the strength of the pull with about_loc=True."
            )
        if about_loc and not self._centred_on_zero:
            if optimizer is not None:
                require_coupled(optimizer)
            return s.value / variance
        if isinstance(variance, Tensor):
            return variance_to_weight_decay(variance, s, optimizer=optimizer)
        return variance_to_weight_decay(variance, s, optimizer=optimizer)

    def exact_pull(self, loss_scale: LossScale) -> Hyperparameter:
        return self.weight_decay(loss_scale, about_loc=True)

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        width = f"std {float(self.scale):.4g}" if self.scale.ndim == 0 else "one std per element"
        return f"Gaussian, {width}, {self._centre_in_words()}" + (f" ({self.note})" if self.note else "")
