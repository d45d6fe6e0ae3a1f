"""The Hessian of a linear layer, output by output: exact where outputs do not meet, a preconditioner where they do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bayesreg.trainer.full_batch.linear.few_rows import FewRows
from bayesreg.trainer.full_batch.linear.problem import LinearProblem
from bayesreg.trainer.full_batch.linear.sums import Sums, share_of

__all__ = ["Blocks"]

# Up to so many features a matrix of their products is made.
_DENSE = 3000
# Up to so many features a system that is surely singular is solved all the same.
_SINGULAR = 300
# Elements of features that are few.
_SMALL = 2**17
# Elements of a piece of the features that is centred at a time.
_PIECE = 2**22


class Blocks:
    """Σ over examples of h·φφᵀ for each output, with the bias taken out first, and the priors' curvature.

    Args:
        problem: The problem.
    """

    def __init__(self, problem: LinearProblem) -> None:
        self.problem = problem
        self.rows, self.columns = problem.features.shape
        self.dense = self.columns <= _DENSE
        self.few = self.columns > _SINGULAR and 2 * self.rows <= self.columns and self.rows <= _DENSE
        #: The sums where all examples curve alike, as they do with Gaussian noise.
        self.constant: Sums | None = None
        self._serves: bool | None = None
        #: Whether no system was solved yet whose parts are kept.
        self.fresh = True

    def serves(self) -> bool:
        """Return whether systems can be solved, and the kinks, if any, are L1 terms or norms, the outputs apart."""
        if self._serves is None:
            self._serves = self._can_serve()
        return self._serves

    def _can_serve(self) -> bool:
        problem = self.problem
        singular = self.dense and self.rows < self.columns and self.columns > _SINGULAR
        if singular and not bool((problem.matrix(problem.curvature(problem.get())) > 0.0).all()):
            # Of few examples and no prior: eigenvectors take longer than the generic solvers.
            return False
        if not problem.kinked:
            return True
        apart = problem.local(problem.get()).outer is None
        return problem.kinks is not None and self.dense and apart and problem.dtype == torch.float64

    # -- smooth ------------------------------------------------------------------------------------------

    def solver(self, flat: Tensor) -> tuple[Callable[[Tensor], Tensor], bool]:
        """Return what solves a system with the blocks, and whether they are the whole Hessian.

        Args:
            flat: The parameters.

        Returns:
            A function from gradients to steps, and whether it is exact.
        """
        problem = self.problem
        local = problem.local(flat)
        diagonal = local.diagonal if local.outer is None else local.diagonal - local.outer.square()
        alone = problem.matrix(problem.curvature(flat)).clamp_min(0.0)
        on_bias = problem.bias_curvature(flat)
        few = self._few_rows(diagonal, alone, on_bias)
        if few is None:
            sums = self._sums(diagonal)
            total, mean, inverse, whole = sums.total, sums.mean, self._inverse(sums, alone, on_bias), self.dense
        else:
            total, mean, inverse, whole = few.total, few.mean, few, True
        share = share_of(total if on_bias is None else total + on_bias)
        apart = local.outer is None
        if not apart:
            stiff = alone.mean(0)
            shifts = stiff
            if few is None:
                # By the examples only where every weight has a prior.
                shifts = torch.where(stiff > 0.0, stiff, self._diagonal(sums).mean(0).clamp_min(1e-300))

        def solve(target: Tensor) -> Tensor:
            found = torch.zeros_like(target)
            goal = problem.matrix(target)
            bias = None if problem.at_bias is None else target[problem.at_bias]
            if not apart:
                goal, common = _centred(goal)
                bias, common_bias = (None, None) if bias is None else _centred(bias)
            if bias is not None:
                part = total[:, None] * mean
                goal = goal - part * (bias / share)[:, None]
            step = inverse(goal)
            if bias is not None:
                found[problem.at_bias] = (bias - (part * step).sum(1)) / share
            if not apart:
                # The common shift of all outputs moves no probability: what the priors say of it is all there is.
                step = _centred(step)[0] + common / shifts
                if bias is not None:
                    moved = _centred(found[problem.at_bias])[0]
                    found[problem.at_bias] = moved + (0.0 if on_bias is None else common_bias / on_bias.mean())
            problem.matrix(found).copy_(step)
            return found

        elementwise = all(belief.traits.elementwise for belief in problem.beliefs.values())
        return solve, apart and elementwise and whole

    def _few_rows(self, diagonal: Tensor | float, alone: Tensor, on_bias: Tensor | None) -> FewRows | None:
        """Return what solves by the examples, where they are few beside the features and every weight has a prior."""
        problem = self.problem
        if not self.few or not bool((alone > 0.0).all()):
            return None
        if len(alone) * self.rows * self.columns > FewRows.most:
            return None
        weights = self._weights(diagonal) * problem.per
        found = FewRows(problem.features, weights, alone, on_bias, centred=problem.at_bias is not None)
        return found if found.sure else None

    def _diagonal(self, sums: Sums) -> Tensor:
        return sums.gram.diagonal(dim1=1, dim2=2) if self.dense else sums.gram

    def _inverse(self, sums: Sums, alone: Tensor, on_bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        if not self.dense:
            size = self._diagonal(sums) + alone
            safe = torch.where(size > 0.0, size, size.amax().clamp_min(1e-300))
            return lambda goal: goal / safe
        matrix = sums.gram + torch.diag_embed(alone)
        if on_bias is not None:
            # What a prior on the bias leaves of the mean, which taking it out had removed.
            left = sums.total * on_bias / share_of(sums.total + on_bias)
            matrix = matrix + left[:, None, None] * sums.mean[:, :, None] * sums.mean[:, None, :]
        if len(matrix) == 1 or (isinstance(self.constant, Sums) and bool((alone == alone[:1]).all())):
            one = _Inverse(matrix[0])
            return lambda goal: one(goal.T).T
        parts = [_Inverse(part) for part in matrix]
        if all(part.factor is not None for part in parts):
            factors = torch.stack([part.factor for part in parts if part.factor is not None])
            return lambda goal: torch.cholesky_solve(goal[:, :, None], factors)[:, :, 0]
        return lambda goal: torch.stack([part(row) for part, row in zip(parts, goal, strict=True)])

    # -- with kinks --------------------------------------------------------------------------------------

    def lowest(self, flat: Tensor, grad: Tensor) -> Tensor | None:
        """Return where the parabola of the smooth part at a place, and the L1 terms or norms, have their minimum.

        Args:
            flat: The place.
            grad: The gradient of the smooth part there.

        Returns:
            The minimum, with exact zeros; None where it is too large a system.
        """
        problem, kinks = self.problem, self.problem.kinks
        assert kinks is not None
        self.fresh = False
        sums = self._sums(problem.local(flat).diagonal)
        # In NumPy, whose calls take less time on what is small.
        total, mean, gram = (part.numpy(force=True) for part in sums)
        result, slopes = np.array(flat.numpy(force=True)), grad.numpy(force=True)
        shape = kinks.centre.shape
        offset = result[problem.at_weight].reshape(shape) - kinks.centre
        slopes = slopes[problem.at_weight].reshape(shape) + problem.scale * kinks.curvature * offset
        on_bias = problem.bias_curvature(flat)
        left = None if on_bias is None else on_bias.numpy(force=True)
        share = total if left is None else total + left
        share = np.where(share > 0.0, share, 1.0)
        if problem.at_bias is not None:
            bias = grad[problem.at_bias].numpy(force=True)
            slopes -= (total * bias / share)[:, None] * mean
        if left is not None:
            gram = gram + (total * left / share)[:, None, None] * mean[:, :, None] * mean[:, None, :]
        lowest = kinks.lowest(gram, slopes, offset, problem.scale)
        if lowest is None:
            return None
        # Not the weights and how far they moved, which would round what is exactly at the centre.
        result[problem.at_weight] = (kinks.centre + lowest).reshape(-1)
        if problem.at_bias is not None:
            moved = bias + total * (mean * (lowest - offset)).sum(1)
            result[problem.at_bias] -= moved / share
        return torch.from_numpy(result).to(flat)

    def shared(self, flat: Tensor) -> Sums | None:
        """Return the sums where all examples curve alike, as they do with Gaussian noise; None elsewhere.

        Args:
            flat: The parameters.
        """
        if isinstance(diagonal := self.problem.local(flat).diagonal, float):
            self._sums(diagonal)
        return self.constant

    # -- sums over examples ------------------------------------------------------------------------------

    def _sums(self, diagonal: Tensor | float) -> Sums:
        if isinstance(diagonal, float):
            if self.constant is None:
                self.fresh = False
                self.constant = self._summed(self._weights(1.0))
            return self.constant.times(diagonal)
        return self._summed(self._weights(diagonal))

    def _weights(self, diagonal: Tensor | float) -> Tensor:
        """Return how much each example counts, (n, outputs), or (n, 1) for all alike."""
        features, weight = self.problem.features, self.problem.weight
        curved = features.new_full((self.rows, 1), diagonal) if isinstance(diagonal, float) else diagonal.clamp_min(0.0)
        return curved if weight is None else curved * weight[:, None]

    def _summed(self, weights: Tensor) -> Sums:
        problem = self.problem
        few = self.dense and problem.features.numel() <= _SMALL and problem.features.device.type == "cpu"
        # Where nothing has kinks the outcome of a flat prior, of which none is finite, hangs on the last bit of sums.
        if few and problem.kinks is not None:
            return self._few(weights.numpy())
        weights = weights * problem.per
        total, outputs = weights.sum(0), weights.shape[1]
        mean = torch.zeros(outputs, self.columns, dtype=problem.dtype, device=weights.device)
        if problem.at_bias is not None:
            mean = weights.T @ problem.features / share_of(total)[:, None]
        shape = (outputs, self.columns, self.columns) if self.dense else (outputs, self.columns)
        gram = torch.zeros(shape, dtype=problem.dtype, device=weights.device)
        size = max(1, _PIECE // max(1, self.columns))
        for rows, parts in zip(problem.features.split(size), weights.split(size), strict=True):
            for j in range(outputs):
                apart = rows - mean[j] if problem.at_bias is not None else rows
                if self.dense:
                    gram[j].addmm_(apart.T * parts[:, j], apart)
                else:
                    gram[j].add_(parts[:, j] @ apart.square())
        return Sums(total, mean, gram)

    def _few(self, weights: npt.NDArray[np.floating]) -> Sums:
        """Return the sums of few features of few examples, in NumPy, whose calls take less time on them."""
        features, weights = self.problem.features.numpy(), weights * self.problem.per
        total = weights.sum(0)
        mean = np.zeros((len(total), self.columns), features.dtype)
        if self.problem.at_bias is not None:
            np.matmul(weights.T, features, out=mean)
            mean /= np.where(total > 0.0, total, 1.0)[:, None]
        gram = np.empty((len(total), self.columns, self.columns), features.dtype)
        for j in range(len(total)):
            apart = features - mean[j] if self.problem.at_bias is not None else features
            np.matmul(apart.T * weights[:, j], apart, out=gram[j])
        return Sums(*map(torch.from_numpy, (total, mean, gram)))


def _centred(rows: Tensor) -> tuple[Tensor, Tensor]:
    mean = rows.mean(0)
    return rows - mean, mean


class _Inverse:
    """What solves a system that is positive definite up to rounding."""

    def __init__(self, matrix: Tensor) -> None:
        factor, info = torch.linalg.cholesky_ex(matrix)
        self.factor = None if int(info) else factor
        if self.factor is None:
            values, vectors = torch.linalg.eigh(matrix)
            kept = values > values.amax().clamp_min(1e-300) * len(values) * torch.finfo(values.dtype).eps
            self._values, self._vectors = values[kept], vectors[:, kept]

    def __call__(self, goal: Tensor) -> Tensor:
        columns = goal[:, None] if goal.ndim == 1 else goal
        if self.factor is not None:
            found = torch.cholesky_solve(columns, self.factor)
        else:
            found = self._vectors @ ((self._vectors.T @ columns) / self._values[:, None])
        return found.reshape(goal.shape)
