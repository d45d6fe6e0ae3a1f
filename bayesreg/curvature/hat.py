"""The Gauss-Newton matrix at a fit, solved in whichever of two spaces is smaller."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesreg.curvature.jacobian import Block, Jacobian
from bayesreg.curvature.outputs import OutputCurvature
from bayesreg.curvature.precision import Precision
from bayesreg.errors import UnsupportedError

__all__ = ["Hat", "hat_matrix"]


@dataclass(frozen=True)
class Hat:
    """What H = Σ_i J_iᵀΛ_iJ_i + P says of the examples; S = J·H⁻¹·Jᵀ.

    Attributes:
        shift: (examples, outputs): by how much the outputs of an example change when it is left out, to first order of
            the weights; exactly, of a linear model with Gaussian noise.
        leverage: (examples,): trace of Λ_iS_i over the rank of Λ_i: 0 where the example does not matter, 1 where it
            alone decides its output.
        effective_parameters: Σ trace Λ_iS_i.
        log_det: log det H − log det P, over the parameters with a prior; flat ones integrated out.
    """

    shift: Tensor
    leverage: Tensor
    effective_parameters: float
    log_det: float


@dataclass(frozen=True)
class _Blocks:
    """The blocks of one example each: I − LᵀSL, SL and S; and log det."""

    rest: Tensor
    carried: Tensor
    whole: Tensor | None
    log_det: float


def hat_matrix(jacobian: Jacobian, curvature: OutputCurvature, precision: Mapping[str, Precision]) -> Hat:
    """Return what the Gauss-Newton matrix says of the examples.

    Args:
        jacobian: Of the outputs, one block per parameter.
        curvature: Of the likelihood at the outputs.
        precision: Of the prior, by parameter; 0.0 for flat parameters, which are taken as such, without a limit.

    Returns:
        The hat matrix' diagonal blocks and what follows from them.

    Raises:
        UnsupportedError: If the matrix is not positive definite in float64.

    References:
        Rad and Maleki (2020), A scalable estimate of the out-of-sample prediction error via approximate leave-one-out
        cross-validation, eq. 8; Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, eq. 3.27.
    """
    slope = curvature.slope
    coordinates = curvature.coordinates()
    solve = _in_weight_space if _weights(jacobian, precision) < curvature.root.shape[0] * curvature.root.shape[2] \
        else _in_function_space  # fmt: skip
    solved = solve(jacobian, curvature.root, precision, coordinates is None)
    if coordinates is not None:
        pulled = _solved(solved.rest, coordinates.unsqueeze(-1))
        shift = (solved.carried @ pulled).squeeze(-1)
    else:
        # The NLL has slopes where it has no curvature: S itself is needed, S(I − ΛS)⁻¹ r.
        assert solved.whole is not None
        hessian = curvature.root @ curvature.root.mT
        eye = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
        shift = (solved.whole @ _solved(eye - hessian @ solved.whole, slope.unsqueeze(-1))).squeeze(-1)
    rank = solved.rest.shape[-1]
    traces = rank - solved.rest.diagonal(dim1=-2, dim2=-1).sum(-1)
    return Hat(
        shift,
        traces / rank,
        float(traces.sum()),
        solved.log_det,
    )


def _weights(jacobian: Jacobian, precision: Mapping[str, Precision]) -> int:
    """Return how many parameters have a prior."""
    n, k = jacobian.rows
    sizes = {b.name: _elements(b) for b in jacobian.blocks}
    return sum(size for name, size in sizes.items() if not _is_flat(precision[name])) if n * k else 0


def _elements(block: Block) -> int:
    if block.dense is not None:
        return block.dense.shape[2]
    assert block.inputs is not None
    assert block.slopes is not None
    return block.inputs.shape[1] * block.slopes.shape[2]


def _is_flat(precision: Precision) -> bool:
    return not isinstance(precision, Tensor) and precision == 0.0


def _solved(matrices: Tensor, right: Tensor) -> Tensor:
    """Solve the small systems of the examples; one whose leverage is 1 predicts nothing of itself."""
    found: Tensor
    found, singular = torch.linalg.solve_ex(matrices, right)
    if int(singular.count_nonzero()):
        tiny = 1e-14 * torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
        found = torch.linalg.solve(matrices + tiny, right)
    return found


def _apart(blocks: Sequence[Block], precision: Mapping[str, Precision]) -> tuple[list[Block], list[Block]]:
    flat = [block for block in blocks if _is_flat(precision[block.name])]
    return [block for block in blocks if not _is_flat(precision[block.name])], flat


def _in_function_space(jacobian: Jacobian, root: Tensor, precision: Mapping[str, Precision], whole: bool) -> _Blocks:
    """Solve by A = I + Lᵀ·J·P⁻¹·Jᵀ·L, one row per example and direction; flat parameters by their Schur complement."""
    n, k = jacobian.rows
    rank = root.shape[2]
    penalised, flat = _apart(jacobian.blocks, precision)
    kernel = torch.zeros(n * k, n * k, dtype=torch.float64, device=root.device)
    for block in penalised:
        kernel += block.gram(1.0 / precision[block.name])
    carried = _times_root(kernel, root)  # K·L
    inner = _times_root(carried.T.contiguous(), root)  # LᵀKL
    inner.diagonal().add_(1.0)
    factor = _cholesky(inner)
    log_det = 2.0 * float(factor.diagonal().log().sum())
    rest = torch.cholesky_inverse(factor)  # A⁻¹ = I − LᵀSL without flat parameters
    own = None
    if whole:
        own = _diagonal_blocks(kernel, n, k, k) - _outer(carried @ rest, carried, n)
    if flat:
        free = torch.cat([block.matrix() for block in flat], 1)
        seen = _rooted(free, root)  # F = LᵀJ_b
        through = rest @ seen
        inverse, extra = _pseudo_inverse(seen.T @ through)
        log_det += extra
        moved = inverse @ through.T  # (FᵀA⁻¹F)⁺FᵀA⁻¹
        if own is not None:
            unseen = free - carried @ through
            own = own + _outer(unseen @ inverse, unseen, n)
        rest = rest - through @ moved
        added = torch.einsum("nkb,bnr->nkr", free.reshape(n, k, -1), moved.reshape(-1, n, rank))
    else:
        added = torch.zeros(n, k, rank, dtype=torch.float64, device=root.device)
    ahead = torch.einsum("nka,anr->nkr", carried.reshape(n, k, n * rank), rest.reshape(n * rank, n, rank)) + added
    return _Blocks(_diagonal_blocks(rest, n, rank, rank), ahead, own, log_det)


def _outer(left: Tensor, right: Tensor, n: int) -> Tensor:
    """Return the diagonal blocks, one per example, of left · rightᵀ."""
    k = len(left) // n
    return torch.einsum("nka,nla->nkl", left.reshape(n, k, -1), right.reshape(n, k, -1))


def _in_weight_space(jacobian: Jacobian, root: Tensor, precision: Mapping[str, Precision], whole: bool) -> _Blocks:
    """Solve by H itself, one row per weight; flat parameters by their Schur complement."""
    n, k = jacobian.rows
    penalised, flat = _apart(jacobian.blocks, precision)
    log_det = 0.0
    own = torch.zeros(n, k, k, dtype=torch.float64, device=root.device)
    half = reached = torch.zeros(0, n * k, dtype=torch.float64, device=root.device)
    if penalised:
        # Each weight in units of its prior: H is then I + something, and log det P falls out.
        outer = torch.cat([_in_units(block, precision[block.name]) for block in penalised], 1)
        seen = _rooted(outer, root)
        inner = seen.T @ seen
        inner.diagonal().add_(1.0)
        factor = _cholesky(inner)
        log_det = 2.0 * float(factor.diagonal().log().sum())
        half = torch.linalg.solve_triangular(factor, outer.T, upper=False)
        reached = torch.linalg.solve_triangular(factor, seen.T, upper=False)
        own = _outer(half.T, half.T, n)
    if flat:
        free = torch.cat([block.matrix() for block in flat], 1)
        seen_free = _rooted(free, root)
        schur = seen_free.T @ seen_free
        if penalised:
            through = reached @ seen_free
            schur = schur - through.T @ through
            free = free - half.T @ through
        inverse, extra = _pseudo_inverse(schur)
        log_det += extra
        own = own + _outer(free @ inverse, free, n)
    ahead = own @ root
    eye = torch.eye(root.shape[2], dtype=root.dtype, device=root.device)
    return _Blocks(eye - root.mT @ ahead, ahead, own if whole else None, log_det)


def _in_units(block: Block, precision: Precision) -> Tensor:
    """Return the Jacobian in units of the standard deviation that the prior gives each element, as a parabola there."""
    matrix = block.matrix()
    if isinstance(precision, Tensor):
        return matrix * precision.reshape(-1).to(matrix).rsqrt()
    return matrix / math.sqrt(precision)


def _rooted(matrix: Tensor, root: Tensor) -> Tensor:
    """Return Lᵀ times the rows of a matrix, (examples · rank, columns)."""
    n, k, rank = root.shape
    rows: Tensor = torch.einsum("nkr,nkc->nrc", root, matrix.reshape(n, k, -1))
    return rows.reshape(n * rank, -1)


def _times_root(matrix: Tensor, root: Tensor) -> Tensor:
    """Return a matrix times L, (rows, examples · rank)."""
    n, k, rank = root.shape
    columns: Tensor = torch.einsum("ank,nkr->anr", matrix.reshape(-1, n, k), root)
    return columns.reshape(-1, n * rank)


def _diagonal_blocks(matrix: Tensor, n: int, rows: int, columns: int) -> Tensor:
    blocks: Tensor = matrix.reshape(n, rows, n, columns).diagonal(dim1=0, dim2=2)
    return blocks.movedim(-1, 0)


def _cholesky(matrix: Tensor) -> Tensor:
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise UnsupportedError(
            "curvature: the Gauss-Newton matrix is not positive definite in float64; the prior is too weak for this "
            "model and data."
        )
    return factor


def _pseudo_inverse(matrix: Tensor) -> tuple[Tensor, float]:
    """Return the inverse of a positive semi-definite matrix and its log det, directions of no information left out."""
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > 1e-11 * max(float(values.max()), 1e-300)
    inverse: Tensor = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return inverse, float(values[kept].log().sum())
