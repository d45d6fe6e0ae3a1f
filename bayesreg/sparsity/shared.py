"""Fits of a linear model at many strengths, with what is known of the data held in common."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from bayesreg.data import Batch, Reading
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Prior
from bayesreg.priors.contract.asking import is_flat
from bayesreg.trainer.full_batch.linear import Blocks, LinearProblem, linear_view, minimise_newton
from bayesreg.trainer.full_batch.proximal import minimise_proximal

__all__ = ["SharedFit"]


class SharedFit:
    """A linear model with one prior of L1 terms: its data are summed once for all strengths.

    Args:
        problem: Its objective, at some strength.
        prior: The prior at strength 1.
    """

    def __init__(self, problem: LinearProblem, prior: Prior) -> None:
        self.problem, self.prior, self.blocks = problem, prior, Blocks(problem)

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
        made = cls(problem, active[0])
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
        one = self.prior.times(factor)
        assert isinstance(one, Prior)
        self.problem.believe(one)
        problem = self.problem
        flat, residual = minimise_newton(problem, tolerance, max_iterations, lambda *_: None, self.blocks)
        problem.set(flat)
        if residual > tolerance:
            flat = minimise_proximal(problem, tolerance, max_iterations, lambda *_: None)
            residual = problem.residual(flat, problem.value_and_grad(flat)[1])
        return residual <= tolerance
