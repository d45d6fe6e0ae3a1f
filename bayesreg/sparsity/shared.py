"""Fits of a linear model at many strengths, with what is known of the data held in common."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn

from bayesreg.data import Batch, Reading
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Prior
from bayesreg.priors.contract.asking import is_flat
from bayesreg.trainer.full_batch.linear import Blocks, LinearProblem, linear_view, minimise_newton
from bayesreg.trainer.full_batch.proximal import minimise_proximal

__all__ = ["SharedFit"]

# Of a parabola.
_FITS = 3


class SharedFit:
    """A linear model with one prior of L1 terms: its data are summed once for all strengths.

    Args:
        problem: Its objective at strength 1, all weights at the centre of the prior.
    """

    def __init__(self, problem: LinearProblem) -> None:
        self.problem, self.blocks = problem, Blocks(problem)
        self.centre = problem.inside(problem.get())
        # Strengths and minima of the last three fits, whose line or parabola says where the next may be.
        self._before: list[tuple[float, Tensor]] = []

    @classmethod
    def of(
        cls, model: nn.Module, prior: ModelPrior, likelihood: Likelihood, inputs: Tensor, target: Tensor
    ) -> Self | None:
        """Return it; None where the model is another, or has other priors beside, whose strength varies too.

        Args:
            model: The model.
            prior: Its prior.
            likelihood: Its likelihood.
            inputs: All inputs.
            target: All targets.
        """
        modes = {module: module.training for module in model.modules()}
        reading, batch = Reading(likelihood), Batch(inputs, target)
        view = linear_view(model.eval(), prior, reading, [batch])
        for module, mode in modes.items():
            module.training = mode
        active = [belief for _, belief in prior.active() if not is_flat(belief)]
        if view is None or len(active) != 1 or not isinstance(active[0], Prior):
            return None
        problem = LinearProblem(view, model, prior, reading, [batch], len(target))
        made = cls(problem)
        return made if problem.at_own is None and made.blocks.serves() else None

    def fit(self, factor: float, tolerance: float, max_iterations: int) -> bool:
        """Fit at a strength, from where the last fit ended.

        Args:
            factor: What −log p is multiplied by.
            tolerance: KKT residual to stop at, per example.
            max_iterations: At most.

        Returns:
            Whether it converged.
        """
        problem = self.problem
        problem.at_strength(factor)
        flat, residual = minimise_newton(
            problem, tolerance, max_iterations, lambda *_: None, self.blocks, self._expected(factor)
        )
        if residual > tolerance:
            flat = minimise_proximal(problem, tolerance, max_iterations, lambda *_: None)
            residual = problem.residual(flat, problem.value_and_grad(flat)[1])
        self._before = [*self._before[-2:], (factor, flat)]
        return residual <= tolerance

    def mean_nll(self) -> float:
        """Return the mean NLL of the data at the last fit."""
        return self.problem.data_nll(self._before[-1][1])

    def _expected(self, factor: float) -> Tensor:
        """Return where the last fits point to, weights that would turn at the centre.

        The line through the last two: with Gaussian noise the weights are such lines, as long as the same ones are at
        the centre. With others they bend, and it is the parabola through the last three, in the logarithm of the
        strength, if the same weights are at the centre in all of them.
        """
        if len(self._before) < 2 or self._before[-1][0] == self._before[-2][0]:
            return self._before[-1][1] if self._before else self.problem.get()
        bent = self.blocks.constant is None and self._same_at_centre()
        fits = self._before if bent else self._before[-2:]
        at = [math.log(strength) if bent else strength for strength, _ in fits]
        goal = math.log(factor) if bent else factor
        last = fits[-1][1]
        further = torch.zeros_like(last)
        for here, (_, flat) in zip(at, fits, strict=True):
            further.add_(flat, alpha=math.prod((goal - other) / (here - other) for other in at if other != here))
        if self.problem.kinked:
            place = self.problem.at_weight
            turned = (further[place] - self.centre[place]) * (last[place] - self.centre[place]) <= 0.0
            further[place] = torch.where(turned, self.centre[place], further[place])
        return further

    def _same_at_centre(self) -> bool:
        if len({strength for strength, _ in self._before}) < _FITS:
            return False
        first, *rest = (flat == self.centre for _, flat in self._before)
        return all(torch.equal(first, other) for other in rest)
