"""The density of both factors of an adapter, through their product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from bayesreg._sharding import is_sharded
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.priors.base import Prior, require_proper
from bayesreg.priors.factored import Factored, energy, pull
from bayesreg.priors.joint import Joint
from bayesreg.priors.tensors import promoted
from bayesreg.selection import ParameterInfo

__all__ = ["JointAdapter"]


class _Part(Protocol):
    """What each part gives."""

    scaling: float
    loc: Tensor

    def held_scale(self) -> Tensor | None: ...
    def follow(self, device: torch.device) -> None: ...


class JointAdapter(Joint):
    """The Gaussian on scaling·(left·right − left₀·right₀), as a density of the factors.

    A factor that is frozen, or in another param group or optimizer, takes part with the value it has.

    Args:
        names: Those of left and right.
    """

    needs_all = False

    def bind(self, parts: Mapping[str, Prior], infos: Mapping[str, ParameterInfo]) -> None:
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

    def _own(self, index: int) -> _Part:
        return cast("_Part", self._parts[self.names[index]])

    def _value(self, index: int, given: Mapping[str, Tensor]) -> Tensor:
        name = self.names[index]
        value = given[name] if name in given else self._infos[name].parameter.detach()
        if is_sharded(value):
            raise UnsupportedError(f"{name} is sharded over processes: keep both factors of an adapter whole on each.")
        wide = promoted(value)
        return wide.reshape(len(wide), -1)

    def _matrix(self, parts: Sequence[Prior], values: Sequence[Tensor]) -> tuple[Factored, Tensor, Tensor]:
        """Return the update minus its centre, and the two factors."""
        given = {str(part.part_name): value for part, value in zip(parts, values, strict=True)}
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

    def _share(self, part: Prior, up: Tensor, down: Tensor) -> Tensor:
        return up if part.part_name == self.names[0] else down

    def penalty(self, parts: Sequence[Prior], values: Sequence[Tensor]) -> Tensor:
        # About a centre the two updates may be near where their factors are not.
        centred = bool(self._own(0).loc.ndim)
        return energy(self._matrix(parts, values)[0], wide=centred)

    def share(self, parts: Sequence[Prior]) -> float:
        trained = [name for name in self.names if self._infos[name].parameter.requires_grad]
        return len(parts) / max(len(trained), 1)

    @torch.no_grad()
    def add_grad_(
        self, parts: Sequence[Prior], grads: Sequence[Tensor | None], values: Sequence[Tensor], coefficient: float
    ) -> None:
        up, down = pull(*self._matrix(parts, values))
        factor = coefficient * self._own(0).scaling
        for part, grad in zip(parts, grads, strict=True):
            if grad is not None:
                grad.add_(self._share(part, up, down).reshape(grad.shape), alpha=factor)

    @torch.no_grad()
    def curvature_times(
        self, parts: Sequence[Prior], values: Sequence[Tensor], vectors: Sequence[Tensor]
    ) -> list[Tensor]:
        matrix, left, right = self._matrix(parts, values)
        along = {str(part.part_name): vector for part, vector in zip(parts, vectors, strict=True)}
        moves = [
            along[name].to(factor).reshape(factor.shape) if name in along else torch.zeros_like(factor)
            for name, factor in zip(self.names, (left, right), strict=True)
        ]
        scaling = self._own(0).scaling
        turned = Factored(scaling * torch.cat([moves[0], left], 1), torch.cat([right, moves[1]], 0), matrix.scale)
        up, down = (scaling * (a + b) for a, b in zip(pull(turned, left, right), pull(matrix, *moves), strict=True))
        return [self._share(part, up, down).reshape(v.shape) for part, v in zip(parts, values, strict=True)]

    def log_constant(self, parts: Sequence[Prior]) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    def draw(
        self, parts: Sequence[Prior], generator: torch.Generator | None, dtypes: Sequence[torch.dtype]
    ) -> list[Tensor]:
        require_proper(parts[0], "sampling")
        raise AssertionError
