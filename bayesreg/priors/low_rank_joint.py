"""A low-rank Gaussian over several parameters: their directions move together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from bayesreg.priors import low_rank_algebra as algebra
from bayesreg.priors.base import Prior
from bayesreg.priors.joint import Joint
from bayesreg.priors.tensors import sampling_device, wide_dtype
from bayesreg.priors.woodbury import Block, gradient_

__all__ = ["JointLowRank"]


class _Part(Protocol):
    """What each part gives."""

    def block(self) -> Block: ...
    def follow(self, device: torch.device) -> None: ...
    def check_shape(self, shape: Sequence[int], what: str = "value") -> None: ...


class JointLowRank(Joint):
    """The density of all parts together; its k × k matrix is computed once."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self._prepare = algebra.Prepared()

    def _prepared(self, parts: Sequence[Prior], values: Sequence[Tensor] = ()) -> tuple[list[Block], Tensor]:
        mine = cast("Sequence[_Part]", parts)
        for part, value in zip(mine, values, strict=False):
            part.check_shape(value.shape)
            part.follow(value.device)
        blocks = [part.block() for part in mine]
        return blocks, self._prepare(blocks)[0]

    def penalty(self, parts: Sequence[Prior], values: Sequence[Tensor]) -> Tensor:
        blocks, root = self._prepared(parts, values)
        return algebra.penalty(blocks, values, root)

    @torch.no_grad()
    def add_grad_(
        self, parts: Sequence[Prior], grads: Sequence[Tensor | None], values: Sequence[Tensor], coefficient: float
    ) -> None:
        blocks, root = self._prepared(parts, values)
        gradient_(blocks, grads, values, root, coefficient)

    def curvature_times(
        self, parts: Sequence[Prior], values: Sequence[Tensor], vectors: Sequence[Tensor]
    ) -> list[Tensor]:
        blocks, root = self._prepared(parts, values)
        return algebra.precision_times(blocks, vectors, root)

    def log_constant(self, parts: Sequence[Prior]) -> Tensor:
        blocks, _ = self._prepared(parts)
        return algebra.log_constant(blocks, self._prepare(blocks)[1])

    def draw(
        self, parts: Sequence[Prior], generator: torch.Generator | None, dtypes: Sequence[torch.dtype]
    ) -> list[Tensor]:
        blocks, _ = self._prepared(parts)
        where = sampling_device(generator, None if generator else blocks[0].rows.device)
        common = torch.randn(len(blocks[0].rows), generator=generator, dtype=wide_dtype(dtypes[0]), device=where)
        pairs = zip(blocks, dtypes, strict=True)
        return [(b.loc.to(where) + algebra.draw(b, common, generator)).to(dtype) for b, dtype in pairs]
