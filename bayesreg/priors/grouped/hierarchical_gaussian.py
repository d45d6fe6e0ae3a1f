"""Gaussians whose scale is not known: a group of weights shares it, a hyper-prior says what is believed of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, final, get_args

import torch
from torch import Tensor

from bayesreg import hyperpriors
from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError, nearest
from bayesreg.hyperpriors import HyperPrior
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, summed
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.grouped import groups
from bayesreg.priors.grouped.unknown_scale import ScaleCoordinate, UnknownScale
from bayesreg.priors.located.located import Loc, LocatedPrior

__all__ = ["HierarchicalGaussian", "ScaleGroup"]

ScaleGroup: TypeAlias = Literal["element", "row", "column", "channel", "tensor"]


@register_family
@final
class HierarchicalGaussian(LocatedPrior):
    r"""w | σ ~ N(loc, σ²) for the m weights of a group, which share σ; σ ~ hyper. What is done about σ is named.

    With S = ‖w − loc‖² of a group and η = log σ, ``h(η) = S·e^(−2η)/2 + m·η − log p(η)``, and −log p is

    - coordinate "log" (default): min over η of h. Of all coordinates it alone gives, for a Gamma hyper-prior on the
      precision, the weights of the marginal density.
    - "scale", "variance", "precision": the same minimum, with the density of σ, σ² or 1/σ² in place of that of η, which
      is h + η, h + 2η, h − 2η: other weights, from the same belief.
    - "noncentered": over η and z with w = loc + σ·z, h − m·η: no group is pulled to its centre harder the smaller it
      is.
    - None: −log ∫ e^(−h) dη, the marginal density; proper, for evidence, draws and MAP.

    Noncentered maxima have a σ that grows with √m and is not the weights' own; only the pull S/σ² is that of the MAP.

    Where a hyper-prior has density near σ = 0 (all but `InverseGamma` on a scale or variance, `Gamma` or `HalfNormal`
    on a precision) weights at their centre with σ → 0 have −log p → −∞: that collapse is no MAP and is refused, as is
    learning a scale by adding its density to the loss. The others have a MAP, but it may be nearly as empty: m
    weights at their centre gain about m/2 times a logarithm over weights of the believed width, and where m is far
    more than the data can tell (a layer of a network on few examples) that wins. `describe()` of a `ModelPrior` says
    by how many nats; a concentration of the order of m/2 holds the scale, "noncentered" has no such mode. Each step
    costs one sum of squares per group.

    Args:
        hyper: Of `br.hyperpriors`: what is believed of σ.
        coordinate: See above.
        group: Which weights of a parameter share a scale: "tensor" (default: all of a layer), "row" (an output unit),
            "column" (an input unit: automatic relevance determination), "channel" or "element" (each its own).
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If an argument is none of these or `loc` not finite.

    Example:
        >>> import bayesreg as br
        >>> prior = HierarchicalGaussian(br.hyperpriors.InverseGamma(2.0, 0.05))
        >>> prior.expected_scale(torch.full((4, 5), 0.3)).item()  # √((S + 2·rate)/(m + 2·concentration))
        0.28136...
        >>> prior.describe()
        'Gaussian of unknown std per tensor, variance ~ InverseGamma(2, 0.05), at its maximum in log, centred on 0'

    References:
        Gelman (2006), Prior Distributions for Variance Parameters in Hierarchical Models; MacKay (1996),
        Hyperparameters: Optimize, or Integrate Out?; Tipping (2001), Sparse Bayesian Learning and the Relevance
        Vector Machine.
    """

    def __init__(
        self,
        hyper: HyperPrior | Mapping[str, Any],
        coordinate: ScaleCoordinate | None = "log",
        group: ScaleGroup = "tensor",
        *,
        loc: Loc = 0.0,
    ) -> None:
        if isinstance(hyper, Mapping):
            try:
                hyper = hyperpriors.from_dict(hyper)
            except InvalidArgumentError as error:
                raise InvalidArgumentError(f"hyper: {error}") from error
        if not isinstance(hyper, HyperPrior):
            raise InvalidArgumentError(
                f"hyper: expected one of br.hyperpriors, such as br.hyperpriors.InverseGamma(2.0, 0.05), got "
                f"{type(hyper).__module__}.{type(hyper).__name__}."
            )
        for name, given, known in (
            ("coordinate", coordinate, (*get_args(ScaleCoordinate), None)),
            ("group", group, get_args(ScaleGroup)),
        ):
            if given not in known:
                meant = "; did you mean group=?" if given in get_args(ScaleGroup) else ""
                raise InvalidArgumentError(
                    f"{name}: expected one of {', '.join(map(str, known))}, got {given!r}"
                    f"{meant or nearest(str(given), [str(one) for one in known])}"
                )
        super().__init__(loc=loc)
        self.hyper = hyper
        self.coordinate: ScaleCoordinate | None = coordinate
        self.group: ScaleGroup = group
        self.traits = Traits(
            proper=coordinate is None,
            convex=False,
            smooth=UnknownScale(hyper, 1, coordinate).bounded,
            elementwise=group == "element",
            has_prox=False,
        )

    # -- groups ----------------------------------------------------------------------------------------

    def _inside(self, shape: Sequence[int], what: str = "a parameter") -> list[int]:
        return groups.inside(self.group, shape, what, self.family)

    def _unknown(self, shape: Sequence[int]) -> UnknownScale:
        return UnknownScale(self.hyper, groups.group_size(shape, self._inside(shape)), self.coordinate)

    def _squares(self, offset: Tensor) -> Tensor:
        return groups.total(offset.to(torch.float64).square(), self._inside(offset.shape))

    def _check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Raise unless the centre fits, there are such groups, and a maximum over their scale; see `Prior`."""
        super()._check_shape(shape, what)
        self._inside(shape, what)
        unknown = self._unknown(shape)
        if not unknown.has_largest:
            raise InvalidArgumentError(
                f"{self.family}(coordinate={self.coordinate!r}): over groups of {unknown.size} the density of "
                f"{self.coordinate} and weights has no maximum with {self.hyper}; use coordinate='log'."
            )

    def _whole_in_shards(self, parameter: Tensor) -> bool:
        return self.group in ("row", "channel") and groups.rows_are_whole(parameter)

    @torch.no_grad()
    def expected_scale(self, value: Tensor) -> Tensor:
        """Return the σ of each group that its weights imply: 1/√precision at the maximum, or as expected given them.

        A weight decay of s/σ² has the gradient that the prior has at these weights. For "noncentered" it is only
        that: there σ grows with √m and is no standard deviation of the weights.

        Args:
            value: The parameter.

        Returns:
            One number per group, in float64; dimensions along which groups extend have size 1.
        """
        offset = self._shifted(value)
        return self._unknown(offset.shape).precision(self._squares(offset)).rsqrt()

    # -- the contract ----------------------------------------------------------------------------------

    def penalty(self, value: Tensor) -> Tensor:
        self._check_shape(value.shape)
        offset = self._shifted(value)
        if not offset.numel():
            return summed(offset)
        return self._unknown(offset.shape).penalty(self._squares(offset)).sum()

    def _element_penalty(self, value: Tensor) -> Tensor:
        if self.group != "element":
            return super()._element_penalty(value)
        offset = self._shifted(value)
        return self._unknown(offset.shape).penalty(self._squares(offset)).to(offset.dtype)

    def _constant_of_one(self, unknown: UnknownScale) -> float:
        if self.coordinate is not None or not unknown.conjugate or not unknown.size:
            return 0.0
        # The multivariate Student-t of 2a degrees of freedom and squared scale b/a.
        a, b = unknown._conjugate()
        half = 0.5 * unknown.size
        return math.lgamma(a + half) - math.lgamma(a) - half * math.log(2.0 * math.pi * b)

    def _log_normaliser(self) -> Tensor:
        if self.group != "element":
            return super()._log_normaliser()
        return torch.tensor(-self._constant_of_one(self._unknown(())), dtype=torch.float64)

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        count = groups.group_count(shape, self._inside(shape))
        return torch.tensor(count * self._constant_of_one(self._unknown(shape)), dtype=torch.float64)

    @torch.no_grad()
    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        for grad, value in zip(grads, values, strict=True):
            self._check_shape(value.shape)
            offset = self._shifted(value)
            if not offset.numel():
                continue
            precision = self._unknown(offset.shape).precision(self._squares(offset))
            # Weights exactly at an unbounded centre are pulled nowhere.
            precision = torch.where(precision.isfinite(), precision, 0.0)
            grad.add_(offset.mul_(precision.to(offset.dtype)), alpha=coefficient)

    def curvature(self, value: Tensor) -> Tensor:
        offset = self._shifted(value.detach())
        squares, unknown = self._squares(offset), self._unknown(offset.shape)
        bent = unknown.precision(squares) + 2.0 * offset.to(torch.float64).square() * unknown.precision_slope(squares)
        return torch.where(bent.isfinite(), bent, 0.0).to(offset.dtype)

    def curvature_times(self, value: Tensor, vector: Tensor) -> Tensor:
        offset = self._shifted(value.detach())
        squares, unknown = self._squares(offset), self._unknown(offset.shape)
        wide = offset.to(torch.float64)
        along = groups.total(wide * vector, self._inside(offset.shape))
        product = unknown.precision(squares) * vector + 2.0 * unknown.precision_slope(squares) * along * wide
        return product.to(offset.dtype)

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        dims = self._inside(like.shape)
        shape = [1 if dim in dims else size for dim, size in enumerate(like.shape)]
        scales = self.hyper.draw_scale(like.new_empty(shape, dtype=torch.float64), generator)
        noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        return (noise * scales).to(like.dtype)

    def _why_improper(self) -> str:
        return f"a maximum over scales and no density: draw from {self.family}(hyper, coordinate=None)"

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return E[σ²]; None for a maximum over scales, or where it is infinite. See `Prior.variance`."""
        found = self.hyper.mean_square()
        return None if self.coordinate is not None or found == math.inf else found

    def _caution(self, shape: Sequence[int]) -> str | None:
        """Return by how much an empty group beats one of the believed width; see `Prior.caution`."""
        unknown = self._unknown(shape)
        if self.coordinate == "noncentered" or not unknown.bounded or unknown.size < 2:
            return None
        believed = unknown.size * math.exp(2.0 * self.hyper.middle() / self.hyper.power)
        heights = unknown.penalty(torch.tensor([0.0, believed], dtype=torch.float64))
        gain = float(heights[1] - heights[0])
        return (
            f"a group of {unknown.size} weights at its centre has {gain:,.0f} nats more density than one of the "
            f"believed width; unless the data weigh more, it is the MAP (a larger concentration holds the scale, "
            f"coordinate='noncentered' has no such mode)"
        )

    def _why_no_map(self) -> str | None:
        """Return why −log p has no minimum, None where it has one."""
        if self.traits.smooth:
            return None
        over = "" if self.coordinate is None else " over weights and their scale"
        return (
            f"with {self.hyper} the density{over} has no bound where all weights are at their centre and the scale "
            f"goes to 0, which is a collapse and no MAP. Use coordinate='noncentered', a fixed scale "
            f"(br.Gaussian), a hyper-prior that vanishes at 0 and holds the scale (br.hyperpriors.InverseGamma, of a "
            f"concentration near half the number of weights), or for each weight's own scale br.Horseshoe(scale, "
            f"coordinate)"
        )

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            f"No weight_decay is equivalent to {self.family}: its pull follows from the weights themselves, s/σ² with "
            f"the σ of expected_scale(weights). Train it with br.attach or br.MAPTrainer, which add its gradient."
        )

    # -- words and files -------------------------------------------------------------------------------

    def saved_options(self) -> dict[str, Any]:
        return {"hyper": self.hyper.to_dict(), "coordinate": self.coordinate, "group": self.group}

    def get_extra_state(self) -> dict[str, Any]:
        """Return what the state dict keeps besides the centre."""
        return self.saved_options()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the hyper-prior, coordinate and groups of another state dict.

        Args:
            state: What `get_extra_state` returned.
        """
        fresh = type(self)(**state)
        self.hyper, self.coordinate, self.group, self.traits = fresh.hyper, fresh.coordinate, fresh.group, fresh.traits

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        numbers = [f"{value:.4g}" for key, value in self.hyper.to_dict().items() if key not in ("family", "of")]
        of = {1: "std", 2: "variance", -2: "precision"}[self.hyper.power]
        how = "integrated out" if self.coordinate is None else f"at its maximum in {self.coordinate}"
        belief = f"{of} ~ {type(self.hyper).__name__}({', '.join(numbers)})"
        return f"Gaussian of unknown std per {self.group}, {belief}, {how}, {self._centre_in_words()}"

    def __repr__(self) -> str:
        rest = super().__repr__().partition("(")[2]
        return f"{self.family}(hyper={self.hyper}, coordinate={self.coordinate!r}, group={self.group!r}, {rest}"
