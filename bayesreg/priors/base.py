"""The contract every prior keeps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from bayesreg.errors import InvalidArgumentError, NotEquivalentError, UnsupportedError
from bayesreg.optimizers import OptimizerLike
from bayesreg.priors.bindable import Bindable
from bayesreg.priors.readings import WeightDecayReadings, read_weight_decay
from bayesreg.priors.tensors import Hyperparameter, as_given, promoted, short
from bayesreg.priors.traits import Traits, require_map, require_proper
from bayesreg.scale import LossScale, as_loss_scale

__all__ = ["Prior", "Traits", "require_map", "require_proper"]


class Prior(Bindable):
    """A density over a parameter tensor.

    A family implements `penalty`, `log_constant`, `add_grad_`, `curvature`, `sample`, `variance`,
    `hyperparameters`, `weight_decay` and, where it has a kink, `prox` and `subdiff_distance`; everything else
    follows. Classes are either this interface or final.

    Scalar hyper-parameters are float64 buffers that stay on the CPU, so neither `.bfloat16()` nor `.to("cuda")`
    changes what the prior says. Tensor ones move with the module and are never narrowed.
    """

    #: Abilities; an instance may narrow them.
    traits: Traits

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

    @abstractmethod
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
        """

    @abstractmethod
    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return the variance of one element, or None where it has none (infinite or undefined).

        Args:
            shape: Shape of the parameter; needed only by families whose variance depends on it.

        Returns:
            A float, or a tensor where elements differ.
        """

    @abstractmethod
    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """Return the constructor's arguments, detached; what is saved in files."""

    def why_no_decay(self, loss_scale: LossScale) -> str:
        """Return why no `weight_decay` is this prior, and what to use; families with none say it.

        Args:
            loss_scale: s.

        Returns:
            Sentences, for the error.
        """
        return f"No weight_decay is equivalent to {self.family}: train it with br.attach or br.MAPTrainer."

    def weight_decay(self, loss_scale: LossScale | int, optimizer: OptimizerLike | None = None) -> Hyperparameter:
        """Return the `weight_decay` that makes an optimizer mean exactly this prior.

        Args:
            loss_scale: s, or the size of the training set of a mean loss.
            optimizer: The optimizer in use; a coupled one is assumed if None.

        Returns:
            The number (or, for a diagonal prior, the tensor of numbers).

        Raises:
            NotEquivalentError: If there is none, as for all but Gaussians and flat priors; the message says why and
                what to use.
        """
        raise NotEquivalentError(self.why_no_decay(as_loss_scale(loss_scale)))

    # -- what follows ----------------------------------------------------------------------------------

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value), normalised (improper priors: up to a constant), summed over elements, in nats.

        Args:
            value: Tensor that broadcasts with the hyper-parameters.

        Returns:
            A scalar, in the dtype of `value` or float32, whichever is wider.

        Raises:
            InvalidArgumentError: If `value` is no tensor, or of a shape that does not fit.
        """
        if not isinstance(value, Tensor):
            raise InvalidArgumentError(f"value: expected a tensor, got {type(value).__name__}.")
        penalty = self.penalty(value)
        return self.log_constant(value.shape).to(penalty) - penalty

    def forward(self, value: Tensor) -> Tensor:
        """Return `log_prob(value)`."""
        return self.log_prob(value)

    def element_penalty(self, value: Tensor) -> Tensor:
        """Return −log p of each element without its constant; `penalty` is their sum.

        Args:
            value: The parameter.

        Returns:
            Tensor of its shape, in float32 or better.

        Raises:
            UnsupportedError: If the density joins its elements.
        """
        raise UnsupportedError(f"{self.family}: its elements have no penalties of their own.")

    def log_normaliser(self) -> Tensor:
        """Return the log of the normaliser of one element: log p = −(element_penalty + log_normaliser).

        Returns:
            In float64: a scalar, or one per element; 0 for improper priors.

        Raises:
            UnsupportedError: If the density joins its elements.
        """
        raise UnsupportedError(f"{self.family}: its elements have no normaliser of their own.")

    def slope_beside_kink(self, value: Tensor) -> Tensor:
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

    def prox_(self, value: Tensor, step: float | Tensor) -> None:
        """Replace `value` by `prox(value, step)`, in place; families override it where that saves memory traffic.

        Args:
            value: The point, changed in place.
            step: As in `prox`.

        Raises:
            UnsupportedError: If the family has no prox.
        """
        value.copy_(self.prox(value, step))

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

    def steepest(self) -> float | None:
        """Return the slope that every element off its kink has, None where slopes differ or have no bound."""
        return None

    def at_kink(self, value: Tensor) -> Tensor:
        """Return which elements sit exactly at a kink of −log p: the exact zeros of a sparse MAP.

        Args:
            value: The parameter.

        Returns:
            Boolean tensor of the shape of `value`; all False for smooth priors.
        """
        return torch.zeros_like(value, dtype=torch.bool)

    def kept_on_side(self, before: Tensor, after: Tensor) -> Tensor:
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

    def centre(self) -> Tensor:
        """Return the point about which the prior is symmetric: a scalar or a tensor; 0 by default."""
        return torch.zeros((), dtype=torch.float64)

    def exact_pull(self, loss_scale: LossScale) -> Hyperparameter:
        """Return the weight decay toward the centre that is exactly this prior.

        Args:
            loss_scale: s.

        Returns:
            The number, or one per element.

        Raises:
            NotEquivalentError: If there is none.
        """
        raise NotEquivalentError(f"No weight_decay is equivalent to {self.family}.")

    def weight_decay_readings(self, loss_scale: LossScale | int, at: Tensor | None = None) -> WeightDecayReadings:
        """Return the weight decays that the prior resembles, each by its name; only the exact one has the same MAP.

        Args:
            loss_scale: s, or the size of the training set of a mean loss.
            at: Weights at which to match gradient and curvature. Default: the curvature at the centre, no gradient.

        Returns:
            The readings.

        Raises:
            InvalidArgumentError: If `at` has a shape that does not fit.
        """
        return read_weight_decay(self, as_loss_scale(loss_scale), at)

    def caution(self, shape: Sequence[int]) -> str | None:
        """Return what a user should know of the MAP of a parameter of this shape; None if nothing.

        Args:
            shape: Its shape.

        Returns:
            Words for `describe()`.
        """
        return None

    def why_improper(self) -> str:
        """Return why the density is not normalised, in words."""
        return "it has no total mass of 1"

    def why_no_map(self) -> str | None:
        """Return why −log p has no minimum to train to, and what to use; None where it has one."""
        return None

    def near_in_words(self, loss_scale: LossScale) -> str | None:
        """Return what comes nearest to a weight decay where it is none of `weight_decay_readings`, in words.

        Args:
            loss_scale: s.

        Returns:
            The words for a table; None where there are none.
        """
        return None

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
        from bayesreg.plots import plot_pair, plot_prior

        return plot_prior(self, axes, reach=reach) if shape is None else plot_pair(self, shape, axes, reach=reach)

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return repr(self)

    def saved_options(self) -> dict[str, Any]:
        """Return what a file must keep besides the hyper-parameters, ready for JSON."""
        return {}

    @classmethod
    def from_saved(cls, arguments: dict[str, Tensor], options: dict[str, Any]) -> Self:
        """Rebuild the prior from `hyperparameters()` and `saved_options()`.

        Args:
            arguments: The hyper-parameters as a file holds them; scalars have no dimension.
            options: The options.

        Returns:
            The prior.
        """
        return cls(**{name: as_given(held) for name, held in arguments.items()}, **options)

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={short(value)}" for name, value in self.hyperparameters().items())
        return f"{self.family}({inner})"
