"""The density N(loc, D + WW') over the tensors of some blocks: differentiable, and by the piece."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bayesreg.priors.contract.tensors import promoted
from bayesreg.priors.correlated.woodbury import Block, capacitance_root, log_determinant, quadratic

__all__ = ["Prepared", "curvature", "draw", "log_constant", "penalty", "precision_times", "versions"]


class Prepared:
    """What depends on the covariance alone, computed once, and again where a tensor was changed."""

    def __init__(self) -> None:
        self._key: object = None
        self._held: tuple[Tensor, Tensor] | None = None

    def __call__(self, blocks: Sequence[Block]) -> tuple[Tensor, Tensor]:
        """Return the Cholesky factor of C and log det Σ.

        Args:
            blocks: The tensors' shares.

        Returns:
            Both in float64, on the CPU.
        """
        # In a compiled graph, or for tensors made in inference mode, no change could be noticed.
        blind = torch.compiler.is_compiling() or any(b.diag.is_inference() or b.rows.is_inference() for b in blocks)
        key = None if blind else versions(blocks)
        if key is None or self._held is None or self._key != key:
            root = capacitance_root(blocks)
            held = (root, log_determinant(blocks, root))
            if key is None:
                return held
            self._key, self._held = key, held
        return self._held


def versions(blocks: Sequence[Block]) -> list[tuple[int, int, int, int]]:
    """Return what changes when a tensor that C depends on is replaced or changed in place."""
    return [(id(b.diag), b.diag._version, id(b.rows), b.rows._version) for b in blocks]


def penalty(blocks: Sequence[Block], values: Sequence[Tensor], root: Tensor) -> Tensor:
    """Return ½·r'Σ⁻¹r; differentiable where gradients are recorded, by chunks and more accurate where not."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        offsets = [promoted(value) - block.loc for block, value in zip(blocks, values, strict=True)]
        images = precision_times(blocks, offsets, root)
        squares = [(r * image).sum(dtype=torch.float64) for r, image in zip(offsets, images, strict=True)]
        return 0.5 * torch.stack(squares).sum()
    return quadratic(blocks, values, root)


def precision_times(blocks: Sequence[Block], offsets: Sequence[Tensor], root: Tensor) -> list[Tensor]:
    """Return Σ⁻¹·offsets, differentiably."""
    scaled = [r / block.diag for block, r in zip(blocks, offsets, strict=True)]
    images = [
        (block.rows.reshape(len(block.rows), -1).to(u) @ u.reshape(-1)).to(torch.float64)
        for block, u in zip(blocks, scaled, strict=True)
    ]
    image = torch.stack(images).sum(0)
    c = torch.cholesky_solve(image[:, None], root.to(image.device))[:, 0]
    return [
        u - torch.tensordot(c.to(u), block.rows.to(u), dims=1) / block.diag
        for block, u in zip(blocks, scaled, strict=True)
    ]


def log_constant(blocks: Sequence[Block], log_det: Tensor) -> Tensor:
    """Return −½·(log det Σ + d·log 2π), given log det Σ, in float64."""
    count = sum(block.rows[0].numel() for block in blocks)
    return -0.5 * (log_det + count * math.log(2.0 * math.pi))


def curvature(block: Block, value: Tensor, root: Tensor) -> Tensor:
    """Return the diagonal of Σ⁻¹ for one tensor."""
    rows = block.rows.detach().reshape(len(block.rows), -1)
    inner: Tensor = torch.linalg.solve_triangular(root.to(rows), rows, upper=False)
    share: Tensor = inner.square().sum(0).reshape(value.shape)
    found: Tensor = (1.0 - share / block.diag) / block.diag
    return found.detach().to(promoted(value))


def draw(block: Block, common: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return a draw of one tensor less its centre, given the k draws that all tensors share."""
    diag, rows = block.diag.detach().to(common), block.rows.detach().to(common)
    own = torch.randn(rows.shape[1:], generator=generator, dtype=common.dtype, device=common.device)
    drawn: Tensor = torch.tensordot(common, rows, dims=1) + diag.sqrt() * own
    return drawn
