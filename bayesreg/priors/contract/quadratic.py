"""Where −log p is a parabola: the one fact that weight decay, routes and tables ask of a prior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.contract.tensors import Hyperparameter

__all__ = ["Quadratic"]


@dataclass(frozen=True, eq=False)
class Quadratic:
    """−log p = Σ (w − centre)²/(2·variance) up to a constant: exactly what a weight decay can be.

    Attributes:
        variance: > 0, in squared units of the weights: a float, or a tensor where elements differ; ∞ for no pull.
        centre: What the pull is toward; None for 0. Of a prior that no `ModelPrior` has bound yet: tensors by name.
        learned: Whether the variance is being learned.

    Example:
        >>> import bayesreg as br
        >>> br.Gaussian(0.5).quadratic().strength(num_data=1000)
        0.004
    """

    # Kept as a variance and divided last: the strength is then s/variance to the last bit.
    variance: Hyperparameter
    centre: Tensor | Mapping[str, Tensor] | None = None
    learned: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.variance, Tensor) and not self.variance >= 0:
            raise InvalidArgumentError(
                f"variance: expected a parabola with a variance > 0, got {self.variance:g}; the prior's "
                f"hyper-parameters do not make a density."
            )

    @property
    def flat(self) -> bool:
        """Whether there is no pull at all."""
        return not isinstance(self.variance, Tensor) and self.variance == math.inf

    @property
    def uniform(self) -> bool:
        """Whether one fixed number is the pull's strength on every element, as in a param group."""
        return not isinstance(self.variance, Tensor) and not self.learned

    def strength(self, num_data: int | LossScale) -> Hyperparameter:
        """Return the weight decay toward the centre that is this prior: s/variance.

        Args:
            num_data: Size of the training set of a mean loss, or the `LossScale` of another.

        Returns:
            A float, or a tensor where elements differ.
        """
        return as_loss_scale(num_data).value / self.variance
