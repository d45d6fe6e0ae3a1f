"""Products of priors: a weight must please all of them at once."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor

from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.priors.composed.composite import Composite, parts_from
from bayesreg.priors.contract.prior import Prior
from bayesreg.priors.contract.quadratic import Quadratic
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, as_number, promoted, total_constant
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.gaussian import Gaussian
from bayesreg.priors.elementwise.laplace import Laplace
from bayesreg.priors.elementwise.uniform import Uniform
from bayesreg.priors.grouped.group_laplace import GroupLaplace
from bayesreg.priors.heavy_tailed.log_uniform import LogUniform

__all__ = ["Product"]

# The quadrature between two points, and the points, in widths from the centre.
_T, _W = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(40))
_T, _W = 0.5 * (_T + 1.0), 0.5 * _W
_REACH = torch.tensor([-30, -12, -6, -3, -1, -0.3, 0, 0.3, 1, 3, 6, 12, 30], dtype=torch.float64)
_ZERO = torch.zeros((), dtype=torch.float64)
# How often a draw may be refused before sampling gives up.
_ROUNDS = 2000


@register_family
@final
class Product(Composite):
    r"""``p(w) ∝ Π_k p_k(w)``: penalties add. Sparse *and* near a reference, Laplace within bounds, and the like.

    On single elements with one set of numbers the normaliser is found by quadrature, and the product is a density like
    any other; else it is known up to its constant, which a MAP does not need, and `proper` is False.

    Proximal steps are exact for: any number of Gaussians (about any centres) with one prior that has a proximal
    operator; `Laplace` with `GroupLaplace` about one centre (the sparse group lasso); a convex prior on single elements
    with `Uniform` bounds; and these together. Smooth products need none.

    Args:
        factors: Two or more priors over the same parameter.

    Raises:
        InvalidArgumentError: If a factor has no MAP of its own, or a product with a kink has no exact proximal step.

    Example:
        >>> import bayesreg as br
        >>> near_and_sparse = Product([br.Laplace(0.1), br.Gaussian(0.5, loc=1.0)])
        >>> near_and_sparse.prox(torch.tensor([0.02, 2.0]), step=0.05)
        tensor([0.0000, 1.4167])
        >>> round(Product([br.Laplace(0.5), br.Gaussian(1.0)]).log_prob(torch.zeros(1)).item(), 4)  # an elastic net
        0.1711

    References:
        Combettes and Pesquet (2011), Proximal Splitting Methods in Signal Processing, table 10.1 (quadratic
        perturbation); Simon, Friedman, Hastie and Tibshirani (2013), A Sparse-Group Lasso, section 3.
    """

    _argument = "factors"

    def __init__(self, factors: Sequence[Prior]) -> None:
        super().__init__(factors)
        for part in self.parts:
            if part.remarks().no_map is not None:
                raise InvalidArgumentError(f"factors: {part.remarks().no_map}.")
        smooth = all(part.traits.smooth for part in self.parts)
        self.traits = Traits(
            proper=self._has_normaliser(),
            convex=all(part.traits.convex for part in self.parts),
            smooth=smooth,
            elementwise=all(part.traits.elementwise for part in self.parts),
            has_prox=not smooth,
        )
        if not smooth:
            self._require_prox()

    def _has_normaliser(self) -> bool:
        return (
            all(part.traits.elementwise for part in self.parts)
            and any(part.traits.proper for part in self.parts)
            and not self._hyper_shape()
            # Its pole is too narrow for the quadrature.
            and not any(isinstance(part, LogUniform) for part in self.parts)
            and not any(getattr(part, "reference", None) is not None for part in self.parts)
        )

    def _with(self, parts: Sequence[Prior]) -> Self:
        return type(self)(parts)

    # -- which proximal step ---------------------------------------------------------------------------

    @property
    def _gaussians(self) -> list[Gaussian]:
        return [part for part in self.parts if isinstance(part, Gaussian)]

    @property
    def _bounds(self) -> list[Uniform]:
        return [part for part in self.parts if isinstance(part, Uniform)]

    @property
    def _rest(self) -> list[Prior]:
        """The factors of a proximal step that are neither Gaussian nor bounds, single weights before groups."""
        rest = [part for part in self.parts if not isinstance(part, Gaussian | Uniform)]
        return sorted(rest, key=lambda part: isinstance(part, GroupLaplace))

    def _require_prox(self) -> None:
        rest = self._rest
        sparse_group = (
            len(rest) == 2 and isinstance(rest[0], Laplace) and isinstance(rest[1], GroupLaplace)
        ) and self._same_centre(rest)
        alone = len(rest) <= 1 and all(part.traits.has_prox for part in rest)
        bounded = not self._bounds or all(part.traits.convex and part.traits.elementwise for part in rest)
        if (sparse_group or alone) and bounded and len(self._bounds) <= 1:
            return
        names = " · ".join(part.family for part in self.parts)
        raise InvalidArgumentError(
            f"factors: no proximal step of {names} is exact. With a kink: Gaussians and one other prior that has a "
            f"proximal operator, or Laplace and GroupLaplace about the same centre, or a convex prior on single "
            f"elements and one Uniform."
        )

    def _same_centre(self, parts: Sequence[Prior]) -> bool:
        if any(getattr(part, "reference", None) is not None for part in parts):
            return len({id(getattr(part, "reference", None)) for part in parts}) == 1
        first, *others = (part.centre() for part in parts)
        return all(bool((first == other).all()) for other in others)

    # -- the contract ----------------------------------------------------------------------------------

    def _element_penalty(self, value: Tensor) -> Tensor:
        first, *others = (part._element_penalty(value) for part in self.parts)
        return sum(others, first)

    def penalty(self, value: Tensor) -> Tensor:
        first, *others = (part.penalty(value) for part in self.parts)
        return sum(others, first)

    def _log_normaliser(self) -> Tensor:
        if not self.traits.proper:
            return torch.zeros((), dtype=torch.float64)
        return _log_integral(self.parts)

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        return -total_constant(self._log_normaliser(), shape)

    def _why_improper(self) -> str:
        return "a product known up to its constant only"

    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        for part in self.parts:
            part.add_grad_(grads, values, coefficient)

    def curvature(self, value: Tensor) -> Tensor:
        first, *others = (part.curvature(value) for part in self.parts)
        return sum(others, first)

    def curvature_times(self, value: Tensor, vector: Tensor) -> Tensor:
        first, *others = (part.curvature_times(value, vector) for part in self.parts)
        return sum(others, first)

    def psd_curvature(self, value: Tensor) -> Tensor:
        first, *others = (part.psd_curvature(value) for part in self.parts)
        return sum(others, first)

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        if self.traits.smooth:
            return super().prox(value, step)
        wide = promoted(value.detach())
        h = step.to(wide.device) if isinstance(step, Tensor) else torch.tensor(step, dtype=torch.float64)
        # (x − v)²/(2h) and the Gaussians are one parabola.
        precision, pull = 1.0 / h.to(wide.dtype), torch.zeros_like(wide)
        for gaussian in self._gaussians:
            own = gaussian.scale.detach().to(wide.device).square().reciprocal()
            precision = precision + own.to(wide.dtype)
            pull = pull + own * (gaussian.centre().to(wide) - wide)
        if self._gaussians:
            # From v, so that nothing large cancels where they hardly pull.
            wide = wide + (pull / precision).to(wide.dtype)
            h = precision.reciprocal()
        how: float | Tensor = h if h.ndim else float(h)
        for part in (*self._rest, *self._bounds):
            wide = part.prox(wide, how)
        return wide.to(value.dtype)

    def at_kink(self, value: Tensor) -> Tensor:
        found = torch.zeros_like(value, dtype=torch.bool)
        for part in self.parts:
            found = found | part.at_kink(value)
        return found

    def _slope_beside_kink(self, value: Tensor) -> Tensor:
        first, *others = (part._slope_beside_kink(value) for part in self.parts)
        return sum(others, first)

    def subdiff_distance(self, value: Tensor, grad: Tensor, coefficient: float = 1.0) -> Tensor:
        last = [part for part in self.parts if isinstance(part, GroupLaplace | Uniform)]
        left = promoted(grad).clone()
        for part in self.parts:
            if part not in last:
                part.add_grad_([left], [promoted(value.detach())], coefficient)
        for part in self.parts:
            if part not in last and not part.traits.smooth:
                # What a kink's subgradient can take away.
                taken = coefficient * part._slope_beside_kink(value)
                left = torch.where(part.at_kink(value), left.sign() * (left.abs() - taken).clamp_min(0.0), left)
        if len(last) == 2:
            raise UnsupportedError(f"{self.family}: groups and bounds together have no certificate.")
        return last[0].subdiff_distance(value, left, coefficient) if last else left.abs()

    def _kept_on_side(self, before: Tensor, after: Tensor) -> Tensor:
        for part in self.parts:
            if not part.traits.smooth:
                after = part._kept_on_side(before, after)
        return after

    # -- draws -----------------------------------------------------------------------------------------

    def _draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        proper = [part for part in self.parts if part.traits.proper]
        widths = [math.inf if (v := part.variance()) is None else float(v) for part in proper]
        base = proper[widths.index(min(widths))]
        others = [part for part in self.parts if part is not base]
        count = like.numel()
        # The least that the others can be: e^(least − penalty) is a probability.
        least = float(_heights(others, _nodes(self.parts)[0]).min())
        found = like.new_empty(0, dtype=torch.float64)
        for _ in range(_ROUNDS):
            draws = base._draw(like.new_empty((max(2 * count, 64),), dtype=torch.float64), generator)
            keep = sum((part._element_penalty(draws) for part in others), torch.zeros_like(draws))
            dice = torch.rand(draws.shape, generator=generator, dtype=torch.float64, device=draws.device)
            found = torch.cat([found, draws[dice < torch.exp(least - keep)]])
            if len(found) >= count:
                return found[:count].reshape(like.shape)
        raise UnsupportedError(
            f"{self.family}: its factors agree so little that hardly any draw of {base.family} pleases the others."
        )

    def quadratic(self) -> Quadratic | None:
        """Return the parabola that the factors' add up to, where each is one; see `Prior.quadratic`."""
        found = [parabola for part in self.parts if (parabola := part.quadratic()) is not None]
        if len(found) < len(self.parts) or any(isinstance(parabola.centre, Mapping) for parabola in found):
            return None
        precision = sum((1.0 / torch.as_tensor(p.variance, dtype=torch.float64) for p in found), _ZERO)
        wide = torch.float64
        pulls = [
            p.centre.to(wide) / torch.as_tensor(p.variance, dtype=wide) for p in found if isinstance(p.centre, Tensor)
        ]
        about = sum(pulls, _ZERO) / precision if pulls else None
        moved = about is not None and bool((about != 0).any())
        variance = as_number(1.0 / precision)
        return (
            None if variance is None else Quadratic(variance, about if moved else None, any(p.learned for p in found))
        )

    def centre(self) -> Tensor:
        parabola = self.quadratic()
        if parabola is None:
            return super().centre()
        return parabola.centre if isinstance(parabola.centre, Tensor) else _ZERO

    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """Return the tightest bounds of the factors; see `Prior.bounds`."""
        found = [ends for part in self.parts if (ends := part.bounds()) is not None]
        if not found:
            return None
        low, high = zip(*found, strict=True)
        return functools.reduce(torch.maximum, low), functools.reduce(torch.minimum, high)

    def groups(self, shape: Sequence[int]) -> list[int] | None:
        """Return those of a factor that has groups; see `Prior.groups`."""
        return next((dims for part in self.parts if (dims := part.groups(shape)) is not None), None)

    def times(self, factor: float) -> Self | None:
        """Return the product of the factors' multiples, where each has one; see `Prior.times`."""
        found = [part.times(factor) for part in self.parts]
        return None if any(one is None for one in found) else type(self)([one for one in found if one is not None])

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return the variance of an element, by quadrature; None without a normaliser. See `Prior.variance`."""
        if not self.traits.proper:
            return None
        return _variance(self.parts)

    # -- words and files -------------------------------------------------------------------------------

    @classmethod
    def from_saved(cls, arguments: dict[str, Tensor], options: dict[str, Any]) -> Self:
        return cls(parts_from(arguments, options))

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            "No weight_decay is equivalent to a product of priors (of Gaussians about named weights, none before a "
            "br.ModelPrior has bound them): train it with br.attach or br.MAPTrainer."
        )

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return "product: " + "; ".join(part.describe() for part in self.parts)

    def __repr__(self) -> str:
        return f"Product([{', '.join(map(repr, self.parts))}])"


def _nodes(parts: Sequence[Prior]) -> tuple[Tensor, Tensor]:
    """Return points and weights of a Gauss-Legendre rule that is dense where any factor is narrow."""
    points, widths = [], []
    for part in parts:
        centre = part.centre().to(torch.float64)
        if isinstance(part, Uniform):
            points.append(torch.stack([part.low, part.high]).to(torch.float64))
        scale = getattr(part, "scale", None)
        if not isinstance(scale, Tensor):
            variance = part.variance() if part.traits.proper else None
            scale = torch.tensor(1.0 if variance is None else variance, dtype=torch.float64).sqrt()
        widths.append(scale.detach().to(torch.float64))
        points.append(centre + widths[-1] * _REACH)
    ends, width = torch.cat(points).sort().values, torch.stack(widths).max()
    spans = ends.diff()[:, None]
    # Beyond the outermost points x = end ± width·t/(1 − t): powers of x become powers of 1 − t.
    far, stretch = width * _T / (1.0 - _T), width * _W / (1.0 - _T).square()
    at = torch.cat([(ends[:-1, None] + spans * _T).reshape(-1), ends[0] - far, ends[-1] + far])
    return at, torch.cat([(spans * _W).reshape(-1), stretch, stretch])


def _log_integral(parts: Sequence[Prior]) -> Tensor:
    """Return log ∫ exp(−Σ penalties)."""
    at, weights = _nodes(parts)
    return (weights.log() - _heights(parts, at)).logsumexp(0)


@torch.no_grad()
def _variance(parts: Sequence[Prior]) -> float:
    at, weights = _nodes(parts)
    share = (weights.log() - _heights(parts, at)).softmax(0)
    mean = (share * at).sum()
    return float((share * (at - mean).square()).sum())


def _heights(parts: Sequence[Prior], at: Tensor) -> Tensor:
    return sum((part._element_penalty(at) for part in parts), torch.zeros_like(at))
