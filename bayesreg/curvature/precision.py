"""The precision that a prior has at the weights as they are, element by element."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bayesreg.errors import UnsupportedError
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Belief, Prior
from bayesreg.priors.contract.joint import SingleTerm

__all__ = ["Precision", "beside", "diagonal_precision"]

#: Of one parameter: 0 where the prior is flat, one number, or a tensor of its shape.
Precision = float | Tensor


def diagonal_precision(prior: ModelPrior) -> dict[str, Precision]:
    """Return the second derivative of −log p in every trained weight, at the weights as they are.

    Args:
        prior: The prior.

    Returns:
        By parameter name; 0.0 for flat ones.

    Raises:
        UnsupportedError: If a density joins weights, has a kink, or is not convex at one of them.
    """
    found: dict[str, Precision] = {}
    for term, entries in prior.active_terms():
        if not isinstance(term, SingleTerm):
            belief = entries[0].prior
            family = type(term).__name__ if belief is None else belief.family
            raise UnsupportedError(f"{', '.join(term.names[:3])}: {family} joins parameters; {_NEEDS}.")
        (entry,) = entries
        assert entry.prior is not None
        found[entry.name] = _precision(entry.name, entry.prior, entry.parameter.detach())
    return found


_NEEDS = "expected a smooth prior of independent weights, as the curvature of each fit is needed"


def _precision(name: str, belief: Belief, value: Tensor) -> Precision:
    parabola = belief.quadratic()
    if parabola is not None and not isinstance(parabola.variance, Tensor):
        return 0.0 if parabola.flat else 1.0 / parabola.variance
    if not isinstance(belief, Prior) or not belief.traits.smooth or not belief.traits.elementwise:
        raise UnsupportedError(f"{name}: {_NEEDS}, got {belief.family}.")
    curvature = belief.curvature(value).to(torch.float64).expand(value.shape)
    if float(curvature.min()) < 0.0:
        raise UnsupportedError(
            f"{name}: −log p of {belief.family} is not convex at the weights as they are (second derivative "
            f"{float(curvature.min()):.3g}); {_NEEDS}."
        )
    return curvature


def beside(prior: ModelPrior, precision: Mapping[str, Precision]) -> dict[str, Precision]:
    """Return the precisions with those of flat parameters replaced by that of the weights in the same module.

    In a network flat biases leave single examples with leverages of nearly 1, which none of their refits has.

    Args:
        prior: The prior.
        precision: Of its parameters.

    Returns:
        The same, without a 0 as long as any parameter has a prior.
    """
    infos = {entry.name: entry.info for entry, _ in prior.active()}
    sizes = {name: float(torch.as_tensor(value).mean()) for name, value in precision.items()}
    own = {id(infos[name].module): size for name, size in sizes.items() if size > 0.0}
    least = min(own.values(), default=0.0)
    return {
        name: own.get(id(infos[name].module), least) if sizes[name] == 0.0 else value
        for name, value in precision.items()
    }
