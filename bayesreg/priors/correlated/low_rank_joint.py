"""A low-rank Gaussian over several parameters: their directions move together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from bayesreg.priors.contract.joint import JointTerm, Values
from bayesreg.priors.contract.tensors import sampling_device, wide_dtype
from bayesreg.priors.correlated import low_rank_algebra as algebra
from bayesreg.priors.correlated.woodbury import Block, gradient_
from bayesreg.selection import ParameterInfo

__all__ = ["JointLowRank"]


class LowRankShare(Protocol):
    """What each part gives."""

    @property
    def family(self) -> str: ...
    def block(self) -> Block: ...
    def follow(self, device: torch.device) -> None: ...
    def _check_shape(self, shape: Sequence[int], what: str = "value") -> None: ...


class JointLowRank(JointTerm[LowRankShare]):
    """The density of all parts together; its k × k matrix is computed once.

    Args:
        parts: The parts by parameter name.
        infos: The parameters by the same names.
    """

    def __init__(self, parts: Mapping[str, LowRankShare], infos: Mapping[str, ParameterInfo]) -> None:
        super().__init__(parts, infos)
        self._prepare = algebra.Prepared()

    def _prepared(self, values: Values | None = None) -> tuple[list[Block], Tensor]:
        for name, value in (values or {}).items():
            self.parts[name]._check_shape(value.shape)
            self.parts[name].follow(value.device)
        blocks = [part.block() for part in self.parts.values()]
        return blocks, self._prepare(blocks)[0]

    def penalty(self, values: Values) -> Tensor:
        blocks, root = self._prepared(values)
        return algebra.penalty(blocks, self.ordered(values), root)

    @torch.no_grad()
    def add_grad_(self, grads: Mapping[str, Tensor | None], values: Values, coefficient: float) -> None:
        blocks, root = self._prepared(values)
        gradient_(blocks, [grads[name] for name in self.names], self.ordered(values), root, coefficient)

    def curvature_times(self, values: Values, vectors: Values) -> dict[str, Tensor]:
        blocks, root = self._prepared(values)
        return dict(zip(self.names, algebra.precision_times(blocks, self.ordered(vectors), root), strict=True))

    def log_constant(self, shapes: Mapping[str, Sequence[int]]) -> Tensor:
        blocks, _ = self._prepared()
        return algebra.log_constant(blocks, self._prepare(blocks)[1])

    def draw(self, like: Values, generator: torch.Generator | None) -> dict[str, Tensor]:
        blocks, _ = self._prepared()
        first = like[self.names[0]]
        where = sampling_device(generator, None if generator else blocks[0].rows.device)
        common = torch.randn(len(blocks[0].rows), generator=generator, dtype=wide_dtype(first.dtype), device=where)
        return {
            name: (block.loc.to(where) + algebra.draw(block, common, generator)).to(like[name].dtype)
            for name, block in zip(self.names, blocks, strict=True)
        }
