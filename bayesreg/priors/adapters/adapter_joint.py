"""The density of both factors of an adapter, through their product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from bayesreg._support.sharding import is_sharded
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.priors.adapters.factored import Factored, energy, pull
from bayesreg.priors.contract.joint import Term, Values
from bayesreg.priors.contract.tensors import promoted
from bayesreg.selection import ParameterInfo

__all__ = ["JointAdapter"]


class AdapterHalf(Protocol):
    """What each part gives."""

    scaling: float
    loc: Tensor

    def held_scale(self) -> Tensor | None: ...
    def follow(self, device: torch.device) -> None: ...


class JointAdapter(Term):
    """The Gaussian on scaling·(left·right − left₀·right₀), as a density of the factors.

    A factor that is frozen, or in another param group or optimizer, takes part with the value it has.

    Args:
        parts: Those of left and right, by their names.
        infos: The factors by the same names.

    Raises:
        InvalidArgumentError: If their shapes do not go together.
        UnsupportedError: If a factor is complex.
    """

    def __init__(self, parts: Mapping[str, AdapterHalf], infos: Mapping[str, ParameterInfo]) -> None:
        super().__init__(infos)
        self._parts, self._infos = dict(parts), dict(infos)
        left, right = (infos[name].parameter for name in self.names)
        if left.is_complex() or right.is_complex():
            raise UnsupportedError(f"{self.names[0]}: complex weights have no prior here; give them br.Flat().")
        rank = right.shape[0] if right.ndim else 0
        if not rank or left.ndim < 2 or right.ndim < 2 or left.numel() != len(left) * rank:
            raise InvalidArgumentError(
                f"AdapterGaussian: expected a left factor of shape (p, r) and a right one of (r, q), as scaling·left·"
                f"right is the update, got {self.names[0]} of {tuple(left.shape)} and {self.names[1]} of "
                f"{tuple(right.shape)}."
            )
        for name, at in zip(self.names, (0, 1), strict=True):
            loc, own = self._own(at).loc, tuple(infos[name].parameter.shape)
            # It may be of another rank.
            if loc.ndim and not (len(loc) == own[0] if at == 0 else tuple(loc.shape[1:]) == own[1:]):
                raise InvalidArgumentError(f"AdapterGaussian loc: {name} has shape {tuple(loc.shape)}, expected {own}.")
        scale, shape = self._own(0).held_scale(), (len(left), right.numel() // rank)
        assert scale is not None
        try:
            fits = torch.broadcast_shapes(scale.shape, shape) == torch.Size(shape) and scale.ndim in (0, 2)
        except RuntimeError:
            fits = False
        if not fits:
            raise InvalidArgumentError(
                f"AdapterGaussian scale: expected a number or a shape that broadcasts to the update's {shape} of "
                f"{self.names[0]}, got {tuple(scale.shape)}."
            )

    def _own(self, index: int) -> AdapterHalf:
        return self._parts[self.names[index]]

    def _value(self, index: int, given: Values) -> Tensor:
        name = self.names[index]
        value = given[name] if name in given else self._infos[name].parameter.detach()
        if is_sharded(value):
            raise UnsupportedError(f"{name} is sharded over processes: keep both factors of an adapter whole on each.")
        wide = promoted(value)
        return wide.reshape(len(wide), -1)

    def _matrix(self, given: Values) -> tuple[Factored, Tensor, Tensor]:
        """Return the update minus its centre, and the two factors."""
        left, right = self._value(0, given), self._value(1, given)
        for index in (0, 1):
            self._own(index).follow(left.device)
        if left.dtype != right.dtype:
            dtype = torch.promote_types(left.dtype, right.dtype)
            left, right = left.to(dtype), right.to(dtype)
        scale, scaling = self._own(0).held_scale(), self._own(0).scaling
        assert scale is not None
        if not self._own(0).loc.ndim:
            return Factored(scaling * left, right, scale), left, right
        centres = [self._own(index).loc.to(factor) for index, factor in ((0, left), (1, right))]
        old = centres[0].reshape(len(left), -1), centres[1].reshape(len(centres[1]), -1)
        if old[0].shape == left.shape:
            # B·A − B₀·A₀ = (B − B₀)·A + B₀·(A − A₀): nothing large cancels near B₀, A₀.
            wide = torch.cat([left - old[0], old[0]], 1), torch.cat([right, right - old[1]], 0)
        else:
            wide = torch.cat([left, -old[0]], 1), torch.cat([right, old[1]], 0)
        return Factored(scaling * wide[0], wide[1], scale), left, right

    def penalty(self, values: Values) -> Tensor:
        # About a centre the two updates may be near where their factors are not.
        centred = bool(self._own(0).loc.ndim)
        return energy(self._matrix(values)[0], wide=centred)

    def share(self, names: Sequence[str]) -> float:
        trained = [name for name in self.names if self._infos[name].parameter.requires_grad]
        return len(names) / max(len(trained), 1)

    @torch.no_grad()
    def add_grad_(self, grads: Mapping[str, Tensor | None], values: Values, coefficient: float) -> None:
        pulls = dict(zip(self.names, pull(*self._matrix(values)), strict=True))
        factor = coefficient * self._own(0).scaling
        for name, grad in grads.items():
            if grad is not None:
                grad.add_(pulls[name].reshape(grad.shape), alpha=factor)

    @torch.no_grad()
    def curvature_times(self, values: Values, vectors: Values) -> dict[str, Tensor]:
        matrix, left, right = self._matrix(values)
        moves = [
            vectors[name].to(factor).reshape(factor.shape) if name in vectors else torch.zeros_like(factor)
            for name, factor in zip(self.names, (left, right), strict=True)
        ]
        scaling = self._own(0).scaling
        turned = Factored(scaling * torch.cat([moves[0], left], 1), torch.cat([right, moves[1]], 0), matrix.scale)
        both = zip(pull(turned, left, right), pull(matrix, *moves), strict=True)
        found = dict(zip(self.names, (scaling * (a + b) for a, b in both), strict=True))
        return {name: found[name].reshape(value.shape) for name, value in values.items()}

    def log_constant(self, shapes: Mapping[str, Sequence[int]]) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    def draw(self, like: Values, generator: torch.Generator | None) -> dict[str, Tensor]:
        raise UnsupportedError(
            "AdapterGaussian is improper over its factors (they grow and shrink against each other at no cost), so "
            "sampling is undefined; br.Gaussian(scale) is the prior of a whole update."
        )
