"""The density of parameters through a function of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from bayesreg.errors import InvalidArgumentError, NonFiniteObjectiveError, UnsupportedError
from bayesreg.priors.base import Prior
from bayesreg.priors.functions import Named
from bayesreg.priors.joint import Joint
from bayesreg.priors.tensors import promoted
from bayesreg.selection import ParameterInfo

__all__ = ["JointFunction"]

# Where the density of a norm is looked at for a bound at 0.
_NEAR, _NEARER = 1e-6, 1e-12


class _Part(Protocol):
    """What each part gives."""

    named: Named
    function_name: str
    jacobian: str

    @property
    def outcome(self) -> Prior: ...
    @property
    def base(self) -> Prior: ...


class JointFunction(Joint):
    """−log p of all parameters of a function together.

    Args:
        names: The parameters, in the order in which the function takes them.
    """

    #: Why −log p has no minimum; None where none was seen.
    no_map: str | None = None
    _shapes: list[tuple[int, ...]] | None = None

    def bind(self, parts: Mapping[str, Prior], infos: Mapping[str, ParameterInfo]) -> None:
        own = cast("_Part", parts[self.names[0]])
        self._shapes = [tuple(infos[name].parameter.shape) for name in self.names]
        values = [promoted(infos[name].parameter.detach()) for name in self.names]
        if any(value.is_meta for value in values):
            return
        try:
            found = own.named.call(*values)
        except (RuntimeError, TypeError) as error:
            shapes = ", ".join(f"{name} {tuple(v.shape)}" for name, v in zip(self.names, values, strict=True))
            raise InvalidArgumentError(f"function: it does not take {shapes} ({error}).") from error
        if not isinstance(found, Tensor):
            raise InvalidArgumentError(f"function: expected it to return a tensor, got {type(found).__name__}.")
        own.outcome.check_shape(found.shape, "what the function returns,")
        if not bool(found.isfinite().all()):
            raise InvalidArgumentError(
                f"function: {own.function_name} of {', '.join(self.names)} is not finite at their present values; "
                f"start where it is (log takes positive weights only), or train the logarithm in their place."
            )
        if own.jacobian == "elementwise":
            self._require_elementwise(own, values[0], found)
        if own.jacobian == "radial":
            size = sum(value.numel() for value in values)
            radii = torch.tensor([_NEAR, _NEARER], dtype=torch.float64)
            near, nearer = (float(own.outcome.penalty(r)) + (size - 1) * math.log(float(r)) for r in radii)
            if nearer < near - 1e-6:
                self.no_map = (
                    f"with its Jacobian, r^{1 - size}, the density has no bound at 0, so that all weights at 0 are its "
                    f"mode; use jacobian='none' (the prior is then a penalty on the norm) or "
                    f"br.GroupLaplace(rate, group='tensor'), whose norm is Gamma and whose MAP exists"
                )

    def _require_elementwise(self, own: _Part, value: Tensor, found: Tensor) -> None:
        same = found.shape == value.shape
        if same and value.numel():
            # A diagonal Jacobian maps every direction element by element.
            with torch.enable_grad():
                leaf = value.clone().requires_grad_()
                direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
                outcome = own.named.call(leaf)
                along, ones = (
                    torch.autograd.grad(outcome, leaf, vector, retain_graph=True, materialize_grads=True)[0]
                    for vector in (direction, torch.ones_like(direction))
                )
            same = torch.allclose(along, ones * direction, rtol=1e-4, atol=1e-6)
        if not same:
            raise InvalidArgumentError(
                f"jacobian='elementwise': expected a function of each element apart, and {own.function_name} is "
                f"none: a "
                f"density of fewer numbers, or of mixed ones, does not determine the weights'. Say jacobian='none'."
            )

    # -- value and derivatives -------------------------------------------------------------------------

    def _whole(self, parts: Sequence[Prior], values: Sequence[Tensor]) -> Tensor:
        own = cast("_Part", parts[0])
        by_name = {str(part.part_name): promoted(value) for part, value in zip(parts, values, strict=True)}
        ordered = [by_name[name] for name in self.names]
        outcome = own.named.call(*ordered)
        total = own.outcome.penalty(outcome)
        if own.jacobian == "none":
            for part, value in zip(parts, values, strict=True):
                total = total + cast("_Part", part).base.penalty(value)
        elif own.jacobian == "radial":
            total = total + (sum(value.numel() for value in ordered) - 1) * outcome.log()
        else:
            # Elementwise: the sum's gradient is the diagonal of the Jacobian.
            with torch.enable_grad():
                leaf = ordered[0] if ordered[0].requires_grad else ordered[0].clone().requires_grad_()
                slope = torch.autograd.grad(own.named.call(leaf).sum(), leaf, create_graph=ordered[0].requires_grad)[0]
            total = total - slope.abs().log().sum()
        return total

    def penalty(self, parts: Sequence[Prior], values: Sequence[Tensor]) -> Tensor:
        return self._whole(parts, values)

    def _gradients(self, parts: Sequence[Prior], leaves: Sequence[Tensor], graph: bool) -> tuple[Tensor, ...]:
        whole = self._whole(parts, leaves)
        if not whole.requires_grad:
            return tuple(torch.zeros_like(leaf) for leaf in leaves)
        return torch.autograd.grad(whole, leaves, create_graph=graph, allow_unused=True, materialize_grads=True)

    def add_grad_(
        self, parts: Sequence[Prior], grads: Sequence[Tensor | None], values: Sequence[Tensor], coefficient: float
    ) -> None:
        with torch.enable_grad():
            leaves = [promoted(value.detach()).clone().requires_grad_() for value in values]
            slopes = self._gradients(parts, leaves, graph=False)
        if not all(bool(slope.isfinite().all()) for slope in slopes):
            own = cast("_Part", parts[0])
            raise NonFiniteObjectiveError(
                f"{', '.join(self.names)}: the last step led to where {own.function_name} or its density is not "
                f"finite; "
                f"take smaller steps, or train a coordinate without bounds (the logarithm of a positive weight).",
                epoch=0, batch=0, parameter=self.names[0],
            )  # fmt: skip
        with torch.no_grad():
            for grad, slope in zip(grads, slopes, strict=True):
                if grad is not None:
                    grad.add_(slope, alpha=coefficient)

    def curvature_times(
        self, parts: Sequence[Prior], values: Sequence[Tensor], vectors: Sequence[Tensor]
    ) -> list[Tensor]:
        with torch.enable_grad():
            leaves = [promoted(value.detach()).clone().requires_grad_() for value in values]
            slopes = self._gradients(parts, leaves, graph=True)
            along = sum(
                ((slope * vector).sum() for slope, vector in zip(slopes, vectors, strict=True)), leaves[0].new_zeros(())
            )
            if not along.requires_grad:
                return [torch.zeros_like(leaf) for leaf in leaves]
            found = torch.autograd.grad(along, leaves, allow_unused=True, materialize_grads=True)
        return [one.detach() for one in found]

    def log_constant(self, parts: Sequence[Prior]) -> Tensor:
        own, zero = cast("_Part", parts[0]), torch.zeros((), dtype=torch.float64)
        if own.jacobian == "none" or not own.outcome.traits.proper or self._shapes is None:
            return zero
        if own.jacobian == "elementwise":
            return own.outcome.log_constant(self._shapes[0])
        size = sum(math.prod(shape) for shape in self._shapes)
        sphere = math.log(2.0) + 0.5 * size * math.log(math.pi) - math.lgamma(0.5 * size)
        return own.outcome.log_constant(()) - sphere

    def draw(
        self, parts: Sequence[Prior], generator: torch.Generator | None, dtypes: Sequence[torch.dtype]
    ) -> list[Tensor]:
        own = cast("_Part", parts[0])
        assert self._shapes is not None
        wide = torch.float64
        if own.jacobian == "elementwise":
            if own.named.inverse is None:
                raise UnsupportedError(f"{own.function_name}: draws need its inverse, which only named functions have.")
            outcome = own.outcome.sample(self._shapes[0], generator=generator, dtype=wide)
            return [own.named.inverse(outcome).to(dtypes[0])]
        directions = [torch.randn(shape, generator=generator, dtype=wide) for shape in self._shapes]
        length = math.sqrt(sum(float(one.square().sum()) for one in directions))
        radius = own.outcome.sample((), generator=generator, dtype=wide)
        ordered = {name: radius * one / length for name, one in zip(self.names, directions, strict=True)}
        return [ordered[str(part.part_name)].to(dtype) for part, dtype in zip(parts, dtypes, strict=True)]
