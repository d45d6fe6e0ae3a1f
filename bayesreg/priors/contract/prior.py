"""The contract every prior keeps."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg._support.drawing import draw
from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.errors import InvalidArgumentError, UnsupportedError, kind_of
from bayesreg.priors.contract.asking import require_proper
from bayesreg.priors.contract.belief import Belief
from bayesreg.priors.contract.readings import WeightDecayReadings, matched, over_variance
from bayesreg.priors.contract.tensors import promoted, sampling_device, wide_dtype
from bayesreg.priors.contract.traits import Traits

__all__ = ["Prior", "kept_on_side", "proximal_step_"]


class Prior(Belief):
    """A density over a parameter tensor.

    A family implements `penalty`, `log_constant`, `add_grad_`, `curvature`, `variance`, `hyperparameters` and, where it
    has them, draws (`_draw`), the parabola that it is (`quadratic`), a kink (`prox` and `subdiff_distance`) and powers
    of its own family (`times`); everything else follows. Classes are either this interface or final.

    Scalar hyper-parameters are float64 buffers that stay on the CPU, so neither `.bfloat16()` nor `.to("cuda")`
    changes what the prior says. Tensor ones move with the module and are never narrowed.
    """

    # -- to implement -----------------------------------------------------------------------------------

    @abstractmethod
    def penalty(self, value: Tensor) -> Tensor:
        """Return −log p(value) without its constant: a scalar, in nats, in float32 or better.

        Args:
            value: Tensor that broadcasts with the hyper-parameters.

        Returns:
            The sum over elements; 0 at the mode for the families that have one.
        """

    @abstractmethod
    def log_constant(self, shape: Sequence[int]) -> Tensor:
        """Return the constant of the log density of a tensor of this shape: log p = log_constant − penalty.

        Args:
            shape: Shape of the parameter.

        Returns:
            A float64 scalar, in nats; 0 for improper priors.
        """

    @abstractmethod
    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        """Add coefficient · ∇(−log p)(value) to each gradient, in place and without autograd.

        At a kink the subgradient 0 is taken. At most one tensor-sized workspace is used.

        Args:
            grads: Gradient tensors, changed in place.
            values: The parameters, same shapes.
            coefficient: The loss scale s (times −1 where an optimizer maximises).
        """

    @abstractmethod
    def curvature(self, value: Tensor) -> Tensor:
        """Return the diagonal of the Hessian of −log p, elementwise (0 in place of a kink).

        Args:
            value: The parameter.

        Returns:
            Tensor of the shape of `value`, in float32 or better.
        """

    def _draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return draws of w, of the shape, dtype (float32 or better) and device of `like`."""
        raise UnsupportedError(f"{self.family}: it does not say how to draw from it; write _draw(like, generator).")

    # -- what follows ----------------------------------------------------------------------------------

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value), normalised (improper priors: up to a constant), summed over elements, in nats.

        Args:
            value: Tensor that broadcasts with the hyper-parameters.

        Returns:
            A float64 scalar (float32 on devices without).

        Raises:
            InvalidArgumentError: If `value` is no tensor of real numbers, or of a shape that does not fit.
        """
        penalty = self.penalty(value)
        return self.log_constant(value.shape).to(penalty) - penalty

    @classmethod
    def _check_abilities(cls, traits: Any) -> None:
        if isinstance(traits, Traits) and traits.has_prox and cls.prox is Prior.prox:
            raise InvalidArgumentError(
                f"{cls.__name__}: its traits declare has_prox=True, and it has no prox(self, value, step): write it "
                f"or declare has_prox=False."
            )

    def forward(self, value: Tensor) -> Tensor:
        """Return `log_prob(value)`."""
        return self.log_prob(value)

    def _element_penalty(self, value: Tensor) -> Tensor:
        """Return −log p of each element without its constant; `penalty` is their sum.

        Args:
            value: The parameter.

        Returns:
            Tensor of its shape, in float32 or better.

        Raises:
            UnsupportedError: If the density joins its elements.
        """
        raise UnsupportedError(f"{self.family}: its elements have no penalties of their own.")

    def _log_normaliser(self) -> Tensor:
        """Return the log of the normaliser of one element: log p = −(element_penalty + log_normaliser).

        Returns:
            In float64: a scalar, or one per element; 0 for improper priors.

        Raises:
            UnsupportedError: If the density joins its elements.
        """
        raise UnsupportedError(f"{self.family}: its elements have no normaliser of their own.")

    def _slope_beside_kink(self, value: Tensor) -> Tensor:
        """Return the slope of −log p just beside the centre, elementwise: how far the subdifferential there reaches.

        Args:
            value: A tensor of the shape and dtype wanted.

        Returns:
            Tensor of slopes >= 0; 0 for smooth priors.
        """
        return torch.zeros_like(promoted(value.detach()))

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        """Return argmin_x Σ (x − value)²/(2·step) − log p(x).

        Args:
            value: The point, any shape.
            step: > 0; a float, or a tensor of the shape of `value` (a diagonal metric).

        Returns:
            The minimiser.

        Raises:
            UnsupportedError: If the family has no prox.
        """
        raise UnsupportedError(f"{self.family}: this prior has no proximal operator; use the gradient route.")

    def _prox_(self, value: Tensor, step: float | Tensor, longest: float | Tensor | None = None) -> None:
        """Replace `value` by `prox(value, step)`, in place; families override it where that saves memory traffic.

        Args:
            value: The point, changed in place.
            step: As in `prox`.
            longest: Shorten steps, one per element and changed in place, so that the prior's slope moves none further
                than this. Default: as they are.

        Raises:
            UnsupportedError: If the family has no prox.
        """
        if longest is not None and isinstance(step, Tensor):
            step = self._shortened(step, value, longest)
        value.copy_(self.prox(value, step))

    def _shortened(self, step: Tensor, value: Tensor, longest: float | Tensor) -> Tensor:
        slope = torch.zeros_like(step)
        self.add_grad_([slope], [value], 1.0)
        # On a kink the slope is 0, and so is the move.
        return torch.where(slope == 0, step, torch.minimum(step, longest / slope.abs()))

    def _rates(self) -> tuple[Tensor, Tensor] | None:
        """Return (l1, l2) where −log p is Σ l1·|w − loc| + ½·l2·(w − loc)² up to a constant; None for other shapes."""
        return None

    def _group_rate(self) -> Tensor | None:
        """Return the rate where −log p is Σ rate·‖w_g − loc_g‖₂ over groups, constant within each; None elsewhere."""
        return None

    def subdiff_distance(self, value: Tensor, grad: Tensor, coefficient: float = 1.0) -> Tensor:
        """Return how far −grad is from coefficient · ∂(−log p)(value), elementwise: 0 at a MAP.

        Args:
            value: The parameter.
            grad: Gradient of the training loss at `value`.
            coefficient: The loss scale s of that loss.

        Returns:
            Tensor of non-negative distances.
        """
        total = promoted(grad).clone()
        self.add_grad_([total], [promoted(value.detach())], coefficient)
        return total.abs()

    def at_kink(self, value: Tensor) -> Tensor:
        """Return which elements sit exactly at a kink of −log p: the exact zeros of a sparse MAP.

        Args:
            value: The parameter.

        Returns:
            Boolean tensor of the shape of `value`; all False for smooth priors.
        """
        return torch.zeros_like(value, dtype=torch.bool)

    def _kept_on_side(self, before: Tensor, after: Tensor) -> Tensor:
        """Return `after`, with elements that jumped over a kink or a boundary on the way put onto it.

        Args:
            before: Where a step began.
            after: Where it would end.

        Returns:
            Where it may end.
        """
        left, right = torch.zeros_like(before), torch.zeros_like(after)
        self.add_grad_([left], [before], 1.0)
        self.add_grad_([right], [after], 1.0)
        return torch.where(left.sign() * right.sign() < 0, self.centre().to(after), after)

    def curvature_times(self, value: Tensor, vector: Tensor) -> Tensor:
        """Return the Hessian of −log p times a vector; for priors on single elements curvature · vector.

        Args:
            value: The parameter.
            vector: A tensor of its shape.

        Returns:
            Tensor of the same shape.

        Raises:
            UnsupportedError: If the density joins its elements and the family does not say how.
        """
        if not self.traits.elementwise:
            raise UnsupportedError(f"{self.family}: this density joins its elements, its curvature is not diagonal.")
        return self.curvature(value) * vector

    def psd_curvature(self, value: Tensor) -> Tensor:
        """Return a diagonal curvature that is never negative, as a Laplace approximation needs it.

        Where −log p is convex it is `curvature`. Elsewhere it is the slope over the distance from the centre,
        ∂(−log p)/(w − loc): the curvature of the quadratic that touches −log p at the value and lies above it
        (for mixtures of Gaussians: the precision expected given the value).

        Args:
            value: The parameter.

        Returns:
            Tensor of the shape of `value`, >= 0, in float32 or better.
        """
        curved = self.curvature(value)
        if self.traits.convex:
            return curved.clamp_min(0.0)
        offset = promoted(value.detach()) - self.centre().to(value.device)
        slope = torch.zeros_like(offset)
        self.add_grad_([slope], [promoted(value.detach())], 1.0)
        return torch.where(offset == 0, curved, slope / torch.where(offset == 0, 1.0, offset)).clamp_min(0.0)

    @torch.no_grad()
    @answering
    def sample(
        self,
        shape: Sequence[int] = (),
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw independent elements.

        Args:
            shape: Shape of the result; must broadcast with the hyper-parameters.
            generator: Source of randomness; torch's global one by default.
            dtype: Default `torch.get_default_dtype()`.
            device: Default: the generator's device, else the CPU.

        Returns:
            The draws.

        Raises:
            InvalidArgumentError: If the shape does not fit.
            UnsupportedError: If the prior is improper.
        """
        if not isinstance(shape, tuple | list | range) or not all(
            isinstance(length, Integral) and int(length) >= 0 for length in shape
        ):
            raise InvalidArgumentError(
                f"shape: expected a tuple of integers >= 0, got {kind_of(shape)} {str(shape)[:60]}."
            )
        shape = tuple(int(length) for length in shape)
        require_proper(self, "sampling")
        self._require_bound()
        self._check_shape(shape, "the shape asked for")
        like = torch.empty(tuple(shape), dtype=wide_dtype(dtype), device=sampling_device(generator, device))
        return self._draw(like, generator).to(dtype or torch.get_default_dtype())

    def _require_bound(self) -> None:
        """Raise where it cannot be evaluated before a `ModelPrior` has bound it."""

    @answering
    def weight_decay_readings(self, num_data: int | LossScale, at: Tensor | None = None) -> WeightDecayReadings:
        s = as_loss_scale(num_data)
        if at is not None and not isinstance(at, Tensor):
            raise InvalidArgumentError(
                f"at: expected the tensor of one parameter, such as model[0].weight, got {type(at).__name__}."
            )
        if at is not None:
            checks.finite("at", at.detach())
        parabola = self.quadratic()
        centre = self.centre()
        gradient = curvature = None
        if at is not None:
            point = promoted(at.detach())
            slope = torch.zeros_like(point)
            self.add_grad_([slope], [point], s.value)
            gradient = matched(slope, point - centre.to(point.device))
        elif self.traits.elementwise:
            point = centre.expand(self._hyper_shape())
        else:
            point = centre
        if (at is not None or self.traits.elementwise or centre.ndim) and not bool(self.at_kink(point).any()):
            curvature = s.value * float(self.curvature(point).mean())
        return WeightDecayReadings(
            None if parabola is None else parabola.strength(s),
            gradient,
            curvature if curvature is not None and math.isfinite(curvature) else None,
            over_variance(s.value, self.variance(None if at is None else at.shape)),
        )

    @answering
    def plot(self, axes: Any = None, *, shape: Sequence[int] | None = None, reach: float | None = None) -> Any:
        """Draw density, penalty and shrinkage; of a prior that joins elements the contours over two of them.

        Args:
            axes: Three matplotlib axes, or one for contours; a new figure by default.
            shape: A shape of two elements, for contours.
            reach: How far from the centre to draw. Default: where 97.5 % of the mass is.

        Returns:
            The axes.

        Raises:
            ImportError: If matplotlib is not installed (`pip install 'bayesreg[viz]'`).
            UnsupportedError: If the prior cannot be drawn so.
        """
        if shape is None:
            return draw("plot_prior", self, axes, reach=reach)
        return draw("plot_pair", self, shape, axes, reach=reach)


def proximal_step_(prior: Prior, value: Tensor, step: float | Tensor, longest: float | Tensor | None = None) -> None:
    """Replace `value` by `prior.prox(value, step)`, in place and with the least memory traffic.

    Args:
        prior: A prior with a proximal operator.
        value: The point, changed in place.
        step: As in `prox`; a tensor may be changed.
        longest: Shorten steps, one per element, so that the prior's slope moves none further than this.

    Raises:
        UnsupportedError: If the family has no prox.
    """
    prior._prox_(value, step, longest)


def kept_on_side(prior: Prior, before: Tensor, after: Tensor) -> Tensor:
    """Return `after`, with elements that jumped over a kink or a boundary on the way put onto it.

    Args:
        prior: A prior with a kink or a boundary.
        before: Where a step began.
        after: Where it would end.

    Returns:
        Where it may end.
    """
    return prior._kept_on_side(before, after)
