"""The group Laplace prior: whole rows, columns, channels or tensors that vanish together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self, TypeAlias, final, get_args

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError, nearest
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, plain, promoted, summed
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.grouped import groups
from bayesreg.priors.located.located import Loc, LocatedPrior

__all__ = ["GroupLaplace"]

Group: TypeAlias = Literal["row", "column", "channel", "tensor"]


@register_family
@final
class GroupLaplace(LocatedPrior):
    r"""Groups of m elements with ``log p(w) = −Σ_g [rate·‖w_g − loc_g‖₂ + log Z]``: group lasso, as a density.

    log Z = log 2 + (m/2)·log π + log Γ(m) − log Γ(m/2) − m·log rate. A group is pulled toward its centre with the
    constant force `rate`, so that its MAP is exactly there or nowhere near: rows, channels or tensors vanish as one.

    Args:
        rate: > 0, in 1/units of the weights: a number, or a tensor that broadcasts to the parameter and is constant
            within groups (one rate per row of a matrix has shape (rows, 1)). Group lasso with weights √m has
            rate·√m.
        group: What makes a group. "row": what shares the first index (an output unit of a Linear); "column": the
            second (an input unit); "channel": the first of a convolution kernel, an output channel (of a transposed
            convolution an input channel, its output channels are "column"); "tensor": all.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `rate` is not > 0, `group` is none of these or `loc` not finite.

    Example:
        >>> import torch
        >>> prior = GroupLaplace(rate=1.0, group="row")
        >>> prior.prox(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), step=1.0)
        tensor([[2.4000, 3.2000],
                [0.0000, 0.0000]])
        >>> round(prior.log_prob(torch.zeros(2, 1)).item(), 4)  # a group of one: Laplace(1), −log 2 each
        -1.3863

    References:
        Yuan and Lin (2006), Model Selection and Estimation in Regression with Grouped Variables, equation 2.1; Kyung,
        Gill, Ghosh and Casella (2010), Penalized Regression, Standard Errors, and Bayesian Lassos, section 3.1.
    """

    traits = Traits(proper=True, convex=True, smooth=False, elementwise=False, has_prox=True)
    rate: Tensor

    def __init__(self, rate: Hyperparameter, group: Group = "row", *, loc: Loc = 0.0) -> None:
        if group not in get_args(Group):
            known = get_args(Group)
            raise InvalidArgumentError(
                f"group: expected one of {', '.join(known)}, got {group!r}{nearest(str(group), known)}."
            )
        super().__init__(loc=loc, rate=checks.positive("rate", rate))
        self.group: Group = group

    @property
    def may_end(self) -> bool:
        """Yes: of another rate from there on."""
        return True

    # -- groups ----------------------------------------------------------------------------------------

    def _inside(self, shape: Sequence[int], what: str = "a parameter") -> list[int]:
        """Return the dimensions along which a group extends."""
        return groups.inside(self.group, shape, what, self.family)

    def group_size(self, shape: Sequence[int]) -> int:
        """Return m, the number of elements of one group of a parameter.

        Args:
            shape: Shape of the parameter.

        Returns:
            m.

        Raises:
            InvalidArgumentError: If the parameter has too few dimensions for such groups.
        """
        return groups.group_size(shape, self._inside(shape))

    def _total(self, squares: Tensor) -> Tensor:
        """Sum over each group, keeping dimensions."""
        return groups.total(squares, self._inside(squares.shape))

    def _norms(self, offset: Tensor) -> Tensor:
        # Relative to the largest element, whose square alone may leave the dtype at either end.
        inside = self._inside(offset.shape)
        if not inside or not offset.numel():
            return self._total(offset.abs())
        largest = offset.abs().amax(inside, keepdim=True)
        safe = torch.where(largest > 0, largest, 1.0)
        return self._total((offset / safe).square()).sqrt() * largest

    def _check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Raise unless the hyper-parameters fit and `rate` is constant within groups; see `Prior`."""
        super()._check_shape(shape, what)
        inside = self._inside(shape, what)
        padded = (1,) * (len(shape) - self.rate.ndim) + tuple(self.rate.shape)
        if any(padded[dim] != 1 for dim in inside):
            raise InvalidArgumentError(
                f"GroupLaplace rate: expected one rate per group (size 1 along dimensions {inside} of "
                f"{what} of shape {tuple(shape)}), got shape {tuple(self.rate.shape)}."
            )

    def _whole_in_shards(self, parameter: Tensor) -> bool:
        return self.group in ("row", "channel") and groups.rows_are_whole(parameter) and self.rate.ndim == 0

    def _group_rate(self) -> Tensor:
        return self.rate.detach()

    # -- the contract ----------------------------------------------------------------------------------

    def penalty(self, value: Tensor) -> Tensor:
        offset = self._shifted(value)
        inside = self._inside(offset.shape)
        if not offset.numel():
            return summed(offset)
        # Relative to the largest element, as in _norms. The root of 0 has an infinite derivative: groups on their
        # centre get the subgradient 0.
        largest = offset.detach().abs()
        largest = largest.amax(inside, keepdim=True) if inside else largest
        safe = torch.where(largest > 0, largest, 1.0)
        squares = self._total((offset / safe).square())
        roots = torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0)
        return summed(self.rate * safe * roots)

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        m = self.group_size(shape)
        if m == 0:
            return torch.zeros((), dtype=torch.float64)
        apart = [1 if dim in self._inside(shape) else size for dim, size in enumerate(shape)]
        fixed = math.lgamma(0.5 * m) - math.log(2.0) - 0.5 * m * math.log(math.pi) - math.lgamma(m)
        log_rate = self.rate.to(torch.float64).log()
        total = log_rate.expand(apart).sum() if log_rate.ndim else math.prod(apart) * log_rate
        return math.prod(apart) * fixed + m * total

    @torch.no_grad()
    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        for grad, value in zip(grads, values, strict=True):
            offset = self._shifted(value)
            norms = self._norms(offset)
            grad.add_(offset.mul_(torch.where(norms > 0, self.rate / norms, 0.0)), alpha=coefficient)

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        offset = self._shifted(value)
        if isinstance(step, Tensor) and step.numel() > 1:
            shrunk = self._prox_in_metric(offset, step.to(offset).expand_as(offset))
        else:
            norms = self._norms(offset)
            threshold = float(step) * self.rate
            shrunk = offset * torch.where(norms > threshold, 1.0 - threshold / norms, 0.0)
        return (self.loc + shrunk).to(value.dtype)

    def _prox_in_metric(self, v: Tensor, step: Tensor) -> Tensor:
        """Return the prox with one step per element.

        x_i = v_i·t/(t + step_i·rate), where t = ‖x‖ solves ‖v/(t + step·rate)‖ = 1; 0 where no t > 0 does.
        """
        wide = torch.float64 if v.dtype == torch.float64 else torch.float32
        pull = (step * self.rate).to(wide)
        inside = self._inside(v.shape)
        alive = self._norms(v / pull) > 1.0
        largest = pull.amax(inside, keepdim=True) if inside else pull
        t = (self._norms(v) - largest).clamp_min(0.0)
        # Newton steps on 1/‖v/(t + pull)‖ − 1, which is concave and increases: from the left they never overshoot.
        for _ in range(100):
            shifted = pull + t
            shares = (v / shifted).square()
            squares, cubes = self._total(shares), self._total(shares / shifted)
            new = t + squares * (squares.sqrt() - 1.0) / cubes
            new = torch.where(alive, torch.maximum(new, t), 0.0)
            settled = (new - t) <= 4.0 * torch.finfo(wide).eps * new
            t = new
            if bool(settled.all()):
                break
        return v * torch.where(alive, t / (t + pull), 0.0)

    def subdiff_distance(self, value: Tensor, grad: Tensor, coefficient: float = 1.0) -> Tensor:
        """Return the smallest subgradient, elementwise and without its sign: its norm over a group is the distance.

        Args:
            value: The parameter.
            grad: Gradient of the training loss at `value`.
            coefficient: The loss scale s of that loss.

        Returns:
            Tensor of non-negative distances.
        """
        offset, slope = self._shifted(value.detach()), promoted(grad)
        norms, steepness = self._norms(offset), self._norms(slope)
        bound = coefficient * self.rate
        off = slope + offset * torch.where(norms > 0, bound / norms, 0.0)
        on = slope * torch.where(steepness > bound, 1.0 - bound / steepness, 0.0)
        return torch.where(norms > 0, off, on).abs()

    def at_kink(self, value: Tensor) -> Tensor:
        offset = self._shifted(value.detach())
        return (self._norms(offset) == 0).expand(value.shape)

    def _kept_on_side(self, before: Tensor, after: Tensor) -> Tensor:
        """Return `after`: single elements of a group cross their centre freely."""
        return after

    def curvature(self, value: Tensor) -> Tensor:
        """Return the diagonal of the Hessian, (rate/‖r‖)(1 − r²/‖r‖²) per element; 0 for a group on its centre."""
        offset = self._shifted(value.detach())
        norms = self._norms(offset)
        safe = torch.where(norms > 0, norms, 1.0)
        return (self.rate / safe * (1.0 - (offset / safe).square()) * (norms > 0)).to(offset.dtype)

    def curvature_times(self, value: Tensor, vector: Tensor) -> Tensor:
        offset = self._shifted(value.detach())
        norms = self._norms(offset)
        safe = torch.where(norms > 0, norms, 1.0)
        unit = offset / safe
        across = vector - unit * self._total(unit * vector)
        return (self.rate / safe * across * (norms > 0)).to(offset.dtype)

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        direction = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        norms = self._norms(direction)
        radius = torch._standard_gamma(torch.full_like(norms, self.group_size(like.shape)), generator=generator)
        return direction * (radius / norms / self.rate.to(like.device))

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return (m + 1)/rate²; None without a shape, as m is not known then. See `Prior.variance`."""
        return None if shape is None else plain((self.group_size(shape) + 1) / self.rate.square())

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            "No weight_decay is equivalent to a group Laplace prior: its pull does not shrink with the group, it is s "
            "times the sum of rate·‖group‖. Train it with br.attach or br.MAPTrainer, which take proximal steps."
        )

    def saved_options(self) -> dict[str, Any]:
        return {"group": self.group}

    def groups(self, shape: Sequence[int]) -> list[int]:
        """Return the dimensions along which a group extends; see `Prior.groups`."""
        return self._inside(shape)

    def times(self, factor: float) -> Self:
        """Return the prior of factor·rate; see `Prior.times`."""
        return self.with_powers(factor, rate=1.0)

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        words = f"rate {float(self.rate.detach()):.4g}" if self.rate.ndim == 0 else "one rate per group"
        return f"group Laplace by {self.group}, {words}, {self._centre_in_words()}"

    def __repr__(self) -> str:
        return super().__repr__()[:-1] + f", group={self.group!r})"
