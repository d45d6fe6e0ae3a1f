"""Mixtures of priors: each weight, or each whole parameter, follows one of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self, TypeAlias, final, get_args

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError, nearest
from bayesreg.priors.composed.composite import Composite, parts_from
from bayesreg.priors.contract.prior import Prior
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, promoted, summed
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.numerics.minima import lowest_minimum

__all__ = ["Mixture", "MixtureUnit"]

MixtureUnit: TypeAlias = Literal["element", "tensor"]

# Points, even and even in the logarithm, at which the proximal operator looks for minima.
_EVEN, _LOGARITHMIC = 97, 32


@register_family
@final
class Mixture(Composite):
    r"""``log p(w) = Σ_i log Σ_k weights_k · p_k(w_i)``; with per="tensor" ``log Σ_k weights_k · p_k(w)``, w as a whole.

    Per element each weight comes from one of the components: two `Laplace` of different scales are the spike-and-slab
    lasso, with exact zeros and hardly any shrinkage of large weights. Per tensor the whole parameter does: Gaussians
    about two pretrained networks say that it is like one of them, whichever fits.

    Computed in log space. Not convex: MAPs are local modes. The proximal operator of kinked components, which must
    share their centre, looks for the lowest minimum at any step, element by element: it is made for linear models and
    heads, as a quarter of a million weights take it seconds. Smooth components cost no more than their gradients.

    Args:
        components: Two or more normalised priors; per element they must be on single elements.
        weights: Mixing weights > 0 that sum to 1: a sequence or a tensor.
        per: "element" (default) or "tensor".

    Raises:
        InvalidArgumentError: If `weights` are out of range or not one per component, a component is improper or has no
            MAP, or kinked components have different centres or are mixed per tensor.

    Example:
        >>> import bayesreg as br
        >>> lasso = Mixture([br.Laplace(0.02), br.Laplace(1.0)], [0.9, 0.1])
        >>> lasso.prox(torch.tensor([0.05, 2.0]), step=0.01)
        tensor([0.0000, 1.9900])
        >>> lasso.responsibilities(torch.tensor([0.0, 1.0]))[1].round(decimals=3)
        tensor([0.0020, 1.0000])

    References:
        Ročková and George (2018), The Spike-and-Slab LASSO, equation 1.4; McLachlan and Peel (2000), Finite Mixture
        Models.
    """

    weights: Tensor

    _argument = "components"

    def __init__(
        self, components: Sequence[Prior], weights: Sequence[float] | Tensor, per: MixtureUnit = "element"
    ) -> None:
        super().__init__(components)
        mixing = checks.positive_vector("weights", weights)
        if len(mixing) != len(components):
            raise InvalidArgumentError(
                f"weights: expected one per component, got {len(mixing)} for {len(components)} components."
            )
        total = float(mixing.detach().sum())
        if abs(total - 1.0) > 1e-6:
            raise InvalidArgumentError(f"weights: expected weights that sum to 1, got a sum of {total:.6g}.")
        if per not in get_args(MixtureUnit):
            known = get_args(MixtureUnit)
            raise InvalidArgumentError(
                f"per: expected one of {', '.join(known)}, got {per!r}{nearest(str(per), known)}."
            )
        self._hold("weights", mixing)
        self.per: MixtureUnit = per
        smooth = all(part.traits.smooth for part in self.parts)
        for part in self.parts:
            if not part.traits.proper:
                raise InvalidArgumentError(
                    f"components: expected normalised densities, got {part.family}, which is not "
                    f"({part.remarks().improper})."
                )
            if part.remarks().no_map is not None:
                raise InvalidArgumentError(f"components: {part.remarks().no_map}.")
            if per == "element" and not part.traits.elementwise:
                raise InvalidArgumentError(
                    f"components: {part.family} joins its elements; mix whole parameters: per='tensor'."
                )
            # Without a kink of its own at the centre, or with a bound elsewhere.
            other = part.bounds() is not None or not part.traits.has_prox
            if not part.traits.smooth and (per == "tensor" or other):
                raise InvalidArgumentError(
                    f"components: {part.family} has a kink or a bound for which this mixture has no proximal step"
                    f"{'; mix per element' if per == 'tensor' else ''}."
                )
        self.traits = Traits(
            proper=True, convex=False, smooth=smooth, elementwise=per == "element", has_prox=not smooth
        )
        if not smooth:
            self._require_one_centre()

    def _require_one_centre(self) -> None:
        if any(getattr(part, "reference", None) is not None for part in self.parts):
            return  # looked at again once bound
        if not self._one_centre:
            raise InvalidArgumentError(
                "components: those with a kink must all have the same centre, or no proximal step is exact; smooth "
                "components may have any."
            )

    def _with(self, parts: Sequence[Prior]) -> Self:
        made = super()._with(parts)
        if not made.traits.smooth:
            made._require_one_centre()
        return made

    def _check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        for part in self.parts:
            part._check_shape(shape, what)

    # -- shares ----------------------------------------------------------------------------------------

    def _logs(self) -> list[Tensor]:
        wide = self.weights.to(torch.float64)
        return list((wide / wide.sum()).log().unbind())

    def _heights(self, value: Tensor) -> Tensor:
        """Return log(weights_k · p_k): per element, or one number each."""
        found = []
        for log_weight, part in zip(self._logs(), self.parts, strict=True):
            if self.per == "element":
                height = -part._element_penalty(value)
                found.append(height + (log_weight - part._log_normaliser()).to(height))
            else:
                found.append(log_weight + part.log_constant(value.shape) - part.penalty(value).to(torch.float64))
        return torch.stack(torch.broadcast_tensors(*found))

    def responsibilities(self, value: Tensor) -> Tensor:
        """Return the probability of each component given the weights.

        Args:
            value: The parameter.

        Returns:
            Probabilities that sum to 1 over the first dimension, one per component; per element, of the parameter's
            shape.
        """
        return self._heights(value.detach()).softmax(0).detach()

    def _at_centre(self, shape: Sequence[int]) -> Tensor:
        """Return log p at the first component's centre: per element, or one number."""
        centre = self.parts[0].centre().to(torch.float64)
        where = centre if self.per == "element" else centre.expand(tuple(shape))
        if self.per == "element" and self._hyper_shape():
            where = centre.expand(torch.broadcast_shapes(centre.shape, self._hyper_shape()))
        return self._heights(where).logsumexp(0)

    def _combined(self, shares: Tensor, per_part: Sequence[Tensor]) -> Tensor:
        total = torch.zeros_like(per_part[0])
        for share, one in zip(shares.unbind(), per_part, strict=True):
            total = total + share.to(one.dtype) * one
        return total

    def _slopes(self, value: Tensor) -> list[Tensor]:
        found = []
        for part in self.parts:
            slope = torch.zeros_like(promoted(value))
            part.add_grad_([slope], [promoted(value.detach())], 1.0)
            found.append(slope)
        return found

    # -- the contract ----------------------------------------------------------------------------------

    def _element_penalty(self, value: Tensor) -> Tensor:
        if self.per == "tensor":
            return super()._element_penalty(value)
        return self._at_centre(value.shape).to(promoted(value)) - self._heights(value).logsumexp(0)

    def _log_normaliser(self) -> Tensor:
        return super()._log_normaliser() if self.per == "tensor" else -self._at_centre(())

    def penalty(self, value: Tensor) -> Tensor:
        self._check_shape(value.shape)
        if self.per == "element":
            return summed(self._element_penalty(value))
        return (self._at_centre(value.shape) - self._heights(value).logsumexp(0)).to(promoted(value).dtype)

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        if self.per == "tensor":
            return self._at_centre(shape)
        one = self._at_centre(shape)
        return one.expand(tuple(shape)).sum() if one.ndim else math.prod(shape) * one

    @torch.no_grad()
    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        for grad, value in zip(grads, values, strict=True):
            grad.add_(self._combined(self.responsibilities(value), self._slopes(value)), alpha=coefficient)

    def curvature(self, value: Tensor) -> Tensor:
        shares, slopes = self.responsibilities(value), self._slopes(value)
        curved = self._combined(shares, [part.curvature(value) for part in self.parts])
        mean = self._combined(shares, slopes)
        return curved - self._combined(shares, [(slope - mean).square() for slope in slopes])

    def curvature_times(self, value: Tensor, vector: Tensor) -> Tensor:
        if self.per == "element":
            return self.curvature(value) * vector
        shares, slopes = self.responsibilities(value), self._slopes(value)
        mean = self._combined(shares, slopes)
        products = [
            part.curvature_times(value, vector) - (slope - mean) * ((slope - mean) * vector).sum()
            for part, slope in zip(self.parts, slopes, strict=True)
        ]
        return self._combined(shares, products)

    def psd_curvature(self, value: Tensor) -> Tensor:
        """Return slope over distance from the centre; with several, each component's by its share, as EM has it."""
        if self._one_centre:
            return super().psd_curvature(value)
        found = []
        for part, slope in zip(self.parts, self._slopes(value), strict=True):
            offset = promoted(value.detach()) - part.centre().to(value.device)
            at = offset == 0
            found.append(torch.where(at, part.curvature(value), slope / torch.where(at, 1.0, offset)).clamp_min(0.0))
        return self._combined(self.responsibilities(value), found)

    # -- the kink at the centre ------------------------------------------------------------------------

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        if self.traits.smooth:
            return super().prox(value, step)
        with torch.no_grad():
            wide = value.detach().to(torch.float64)
            centre = self.centre().to(wide)
            v, side = (wide - centre).abs(), torch.where(wide < centre, -1.0, 1.0).to(wide)
            given = step if isinstance(step, Tensor) else torch.tensor(step, dtype=torch.float64)
            h = given.to(wide).expand(v.shape)

            def objective(x: Tensor) -> Tensor:
                return (x - v).square() / (2.0 * h) + self._element_penalty(centre + side * x)

            def slope(x: Tensor) -> tuple[Tensor, Tensor]:
                at = centre + side * x
                grad = torch.zeros_like(x)
                self.add_grad_([grad], [at], 1.0)
                # At 0 the slope beside the kink.
                grad = torch.where(x > 0, side * grad, self._slope_beside_kink(x))
                return x - v + h * grad, 1.0 + h * self.curvature(at)

            shares = torch.cat([
                torch.linspace(0.0, 1.0, _EVEN, dtype=torch.float64),
                torch.logspace(-8.0, -2.0, _LOGARITHMIC, dtype=torch.float64),
            ]).unique()  # fmt: skip
            found = lowest_minimum(
                objective, slope, lambda part: part.reshape(-1, *[1] * v.ndim) * v, shares.to(v.device), v.numel()
            )
            found = torch.where(objective(torch.zeros_like(v)) <= objective(found), 0.0, found)
            return (centre + side * found).to(value.dtype)

    def at_kink(self, value: Tensor) -> Tensor:
        return super().at_kink(value) if self.traits.smooth else self._kinked()[0].at_kink(value)

    def _kinked(self) -> list[Prior]:
        return [part for part in self.parts if not part.traits.smooth]

    def _slope_beside_kink(self, value: Tensor) -> Tensor:
        wide = promoted(value.detach())
        if self.traits.smooth:
            return super()._slope_beside_kink(value)
        at = self.centre().to(wide).expand(wide.shape)
        return self._combined(self.responsibilities(at), [part._slope_beside_kink(wide) for part in self.parts])

    def subdiff_distance(self, value: Tensor, grad: Tensor, coefficient: float = 1.0) -> Tensor:
        total = super().subdiff_distance(value, grad, coefficient)
        if self.traits.smooth:
            return total
        on_kink = (promoted(grad).abs() - coefficient * self._slope_beside_kink(value)).clamp_min(0.0)
        return torch.where(self.at_kink(value), on_kink, total)

    def _kept_on_side(self, before: Tensor, after: Tensor) -> Tensor:
        return after if self.traits.smooth else self._kinked()[0]._kept_on_side(before, after)

    # -- draws -----------------------------------------------------------------------------------------

    def _draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        draws = [part._draw(like, generator) for part in self.parts]
        weights = self.weights.detach().to(generator.device if generator is not None else "cpu")
        if self.per == "tensor":
            return draws[int(torch.multinomial(weights, 1, generator=generator))]
        count = max(like.numel(), 1)
        which = torch.multinomial(weights, count, replacement=True, generator=generator)
        which = which[: like.numel()].reshape(like.shape).to(like.device)
        return torch.stack(draws).gather(0, which[None])[0]

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return the variance of an element; None where a component has none. See `Prior.variance`."""
        found = [part.variance(shape) for part in self.parts]
        if any(one is None for one in found):
            return None
        weights = (self.weights / self.weights.sum()).detach()
        centres = [part._mean() for part in self.parts]
        mean = sum((w * c for w, c in zip(weights, centres, strict=True)), torch.zeros((), dtype=torch.float64))
        total = torch.zeros((), dtype=torch.float64)
        for weight, variance, centre in zip(weights, found, centres, strict=True):
            total = total + weight * (torch.as_tensor(variance) + (centre - mean).square())
        return float(total) if total.ndim == 0 else total

    # -- words and files -------------------------------------------------------------------------------

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return {"weights": self.weights.detach(), **super().hyperparameters()}

    def saved_options(self) -> dict[str, Any]:
        return {**super().saved_options(), "per": self.per}

    @classmethod
    def from_saved(cls, arguments: dict[str, Tensor], options: dict[str, Any]) -> Self:
        own = {name: value for name, value in arguments.items() if name != "weights"}
        return cls(parts_from(own, options), arguments["weights"], options["per"])

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        steps = "which add its gradient" if self.traits.smooth else "which take proximal steps"
        return (
            f"No weight_decay is equivalent to a mixture, whose pull depends on which component a weight is likely "
            f"to come from: train it with br.attach or br.MAPTrainer, {steps}."
        )

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        shares = (100.0 * self.weights.detach() / float(self.weights.sum())).tolist()
        parts = "; ".join(f"{share:.3g}% {part.describe()}" for share, part in zip(shares, self.parts, strict=True))
        return f"mixture per {self.per}: {parts}"

    def __repr__(self) -> str:
        weights = ", ".join(f"{w:g}" for w in self.weights.tolist())
        return f"Mixture([{', '.join(map(repr, self.parts))}], weights=[{weights}], per={self.per!r})"
