"""Newton's method for models that are one linear layer, with their derivatives in closed form."""

from bayesreg.trainer.full_batch.linear.blocks import Blocks
from bayesreg.trainer.full_batch.linear.newton import minimise_newton
from bayesreg.trainer.full_batch.linear.problem import LinearProblem
from bayesreg.trainer.full_batch.linear.sums import Sums
from bayesreg.trainer.full_batch.linear.view import LinearView, linear_view

__all__ = ["Blocks", "LinearProblem", "LinearView", "Sums", "linear_view", "minimise_newton"]
