"""The regularisation constant that a prior stands for, in words."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bayesreg.conversion import LossScale
from bayesreg.errors import NotEquivalentError
from bayesreg.optimizers import OptimizerLike
from bayesreg.priors.contract.belief import Belief

__all__ = ["equivalent"]


def equivalent(
    prior: Belief, loss_scale: LossScale, optimizer: OptimizerLike | None = None, shape: Sequence[int] | None = None
) -> str:
    """Return the regularisation constant that a prior stands for, in words; "none" with what comes near."""
    parabola = prior.quadratic()
    if parabola is None:
        return prior.remarks(shape, loss_scale).near or "none"
    try:
        strength = prior.weight_decay(loss_scale, optimizer, about_loc=True)
    except NotEquivalentError:
        # The prior has one: it is the optimizer that does not take it.
        return "none"
    toward = "" if parabola.centre is None else " toward its centre"
    return f"one per element{toward}" if isinstance(strength, Tensor) else f"{strength:.4g}{toward}"
