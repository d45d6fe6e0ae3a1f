"""The density of parameters through a function of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from bayesreg.errors import InvalidArgumentError, NonFiniteObjectiveError, UnsupportedError
from bayesreg.priors.composed.functions import Named
from bayesreg.priors.contract.joint import Term, Values, refuse_apart
from bayesreg.priors.contract.prior import Prior
from bayesreg.priors.contract.tensors import promoted
from bayesreg.selection import ParameterInfo

__all__ = ["JointFunction"]

# Where the density of a norm is looked at for a bound at 0.
_NEAR, _NEARER = 1e-6, 1e-12


class Whole(Protocol):
    """What the prior on the function says."""

    named: Named
    function_name: str
    outcome: Prior

    @property
    def jacobian(self) -> str: ...


class JointFunction(Term):
    """−log p of all parameters of a function together.

    Args:
        whole: The prior on the function.
        bases: What it says of each parameter besides.
        infos: The parameters by name, in the order in which the function takes them.

    Raises:
        InvalidArgumentError: If the function does not take their shapes, or is not finite at their values.
    """

    def __init__(self, whole: Whole, bases: Mapping[str, Prior], infos: Mapping[str, ParameterInfo]) -> None:
        super().__init__(infos)
        self._whole, self._bases = whole, dict(bases)
        #: Why −log p has no minimum; None where none was seen.
        self.no_map: str | None = None
        own = whole
        self._shapes = [tuple(info.parameter.shape) for info in infos.values()]
        values = [promoted(info.parameter.detach()) for info in infos.values()]
        if any(value.is_meta for value in values):
            return
        try:
            found = own.named.call(*values)
        except (RuntimeError, TypeError) as error:
            shapes = ", ".join(f"{name} {tuple(v.shape)}" for name, v in zip(self.names, values, strict=True))
            raise InvalidArgumentError(f"function: it does not take {shapes} ({error}).") from error
        if not isinstance(found, Tensor):
            raise InvalidArgumentError(f"function: expected it to return a tensor, got {type(found).__name__}.")
        own.outcome._check_shape(found.shape, "what the function returns,")
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

    def _require_elementwise(self, own: Whole, value: Tensor, found: Tensor) -> None:
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

    def require(self, names: Iterable[str]) -> None:
        refuse_apart("FunctionPrior", self.names, names)

    def penalty(self, values: Values) -> Tensor:
        own = self._whole
        wide = {name: promoted(values[name]) for name in self.names}
        outcome = own.named.call(*wide.values())
        total = own.outcome.penalty(outcome)
        if own.jacobian == "none":
            for name in self.names:
                total = total + self._bases[name].penalty(values[name])
        elif own.jacobian == "radial":
            total = total + (sum(value.numel() for value in wide.values()) - 1) * outcome.log()
        else:
            # Elementwise: the sum's gradient is the diagonal of the Jacobian.
            (first,) = wide.values()
            with torch.enable_grad():
                leaf = first if first.requires_grad else first.clone().requires_grad_()
                slope = torch.autograd.grad(own.named.call(leaf).sum(), leaf, create_graph=first.requires_grad)[0]
            total = total - slope.abs().log().sum()
        return total

    def _leaves(self, values: Values) -> dict[str, Tensor]:
        return {name: promoted(values[name].detach()).clone().requires_grad_() for name in self.names}

    def _gradients(self, leaves: Mapping[str, Tensor], graph: bool) -> tuple[Tensor, ...]:
        whole = self.penalty(leaves)
        if not whole.requires_grad:
            return tuple(torch.zeros_like(leaf) for leaf in leaves.values())
        held = list(leaves.values())
        return torch.autograd.grad(whole, held, create_graph=graph, allow_unused=True, materialize_grads=True)

    def add_grad_(self, grads: Mapping[str, Tensor | None], values: Values, coefficient: float) -> None:
        with torch.enable_grad():
            slopes = self._gradients(self._leaves(values), graph=False)
        if not all(bool(slope.isfinite().all()) for slope in slopes):
            raise NonFiniteObjectiveError(
                f"{', '.join(self.names)}: the last step led to where {self._whole.function_name} or its density is "
                f"not finite; take smaller steps, or train a coordinate without bounds (the logarithm of a positive "
                f"weight).",
                epoch=0, batch=0, parameter=self.names[0],
            )  # fmt: skip
        with torch.no_grad():
            for name, slope in zip(self.names, slopes, strict=True):
                grad = grads[name]
                if grad is not None:
                    grad.add_(slope, alpha=coefficient)

    def curvature_times(self, values: Values, vectors: Values) -> dict[str, Tensor]:
        with torch.enable_grad():
            leaves = self._leaves(values)
            held = list(leaves.values())
            slopes = self._gradients(leaves, graph=True)
            along = sum(
                ((slope * vectors[name]).sum() for name, slope in zip(self.names, slopes, strict=True)),
                held[0].new_zeros(()),
            )
            if not along.requires_grad:
                return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
            found = torch.autograd.grad(along, held, allow_unused=True, materialize_grads=True)
        return {name: one.detach() for name, one in zip(self.names, found, strict=True)}

    def log_constant(self, shapes: Mapping[str, Sequence[int]]) -> Tensor:
        own, zero = self._whole, torch.zeros((), dtype=torch.float64)
        if own.jacobian == "none" or not own.outcome.traits.proper:
            return zero
        if own.jacobian == "elementwise":
            return own.outcome.log_constant(self._shapes[0])
        size = sum(math.prod(shape) for shape in self._shapes)
        sphere = math.log(2.0) + 0.5 * size * math.log(math.pi) - math.lgamma(0.5 * size)
        return own.outcome.log_constant(()) - sphere

    def draw(self, like: Values, generator: torch.Generator | None) -> dict[str, Tensor]:
        own, wide = self._whole, torch.float64
        if own.jacobian == "elementwise":
            (name,) = self.names
            if own.named.inverse is None:
                raise UnsupportedError(f"{own.function_name}: draws need its inverse, which only named functions have.")
            outcome = own.outcome.sample(self._shapes[0], generator=generator, dtype=wide)
            return {name: own.named.inverse(outcome).to(like[name].dtype)}
        directions = [torch.randn(shape, generator=generator, dtype=wide) for shape in self._shapes]
        length = math.sqrt(sum(float(one.square().sum()) for one in directions))
        radius = own.outcome.sample((), generator=generator, dtype=wide)
        return {
            name: (radius * one / length).to(like[name].dtype) for name, one in zip(self.names, directions, strict=True)
        }
