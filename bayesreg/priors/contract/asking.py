"""What routes, trainers and tables ask of a prior, and refusing what it cannot."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from bayesreg.errors import UnsupportedError
from bayesreg.priors.contract.belief import Belief
from bayesreg.selection import ParameterInfo

__all__ = ["has_one_set", "is_flat", "learns", "local_part", "placed", "require_map", "require_proper", "stiffness"]

AnyBelief = TypeVar("AnyBelief", bound=Belief)


def require_map(prior: Belief, name: str) -> None:
    """Raise where a prior's −log p has no minimum.

    Args:
        prior: The prior.
        name: The parameter's name.

    Raises:
        UnsupportedError: If it has none; the message says why and what to use.
    """
    why = prior._why_no_map()
    if why is not None:
        raise UnsupportedError(f"{name}: {why}.")


def require_proper(prior: Belief, operation: str) -> None:
    """Raise unless the prior is a density.

    Args:
        prior: The prior.
        operation: What was asked of it.

    Raises:
        UnsupportedError: If it is improper.
    """
    if not prior.traits.proper:
        raise UnsupportedError(f"{prior.family} is improper ({prior.remarks().improper}), so {operation} is undefined.")


def is_flat(prior: Belief) -> bool:
    """Return whether a prior has no pull at all."""
    parabola = prior.quadratic()
    return parabola is not None and parabola.flat


def learns(prior: nn.Module) -> bool:
    """Return whether a hyper-parameter is being learned, which no optimizer route moves."""
    return any(parameter.requires_grad for parameter in prior.parameters())


def local_part(prior: AnyBelief, parameter: Tensor) -> AnyBelief:
    """Return the prior of this process's shard of a sharded parameter: itself, with tensors cut alike.

    Args:
        prior: The prior of the whole parameter.
        parameter: The parameter; for one that is not sharded the prior itself comes back.

    Returns:
        A prior for `parameter.to_local()`.

    Raises:
        UnsupportedError: If the density does not fall apart into elements.
    """
    return prior._localized(parameter)


def placed(prior: Belief, info: ParameterInfo, name: str | None = None) -> Belief:
    """Return the prior of one parameter at its place in a model: which axis holds its inputs, what its centre is.

    Args:
        prior: The prior of a rule.
        info: The parameter.
        name: Its name in the references; its own by default.

    Returns:
        The prior, bound to the parameter.

    Raises:
        InvalidArgumentError: If it does not fit there.
    """
    return prior._placed(info).bound_to(info.name if name is None else name, info.parameter)


def has_one_set(prior: Belief) -> bool:
    """Return whether all hyper-parameters are numbers, the same for all elements."""
    return not len(prior._hyper_shape())


def stiffness(prior: Belief) -> float:
    """Return the largest precision that the pull of a prior has, in inverse squared units of the weights, 0 if unknown.

    Args:
        prior: The prior.

    Returns:
        The precision: a plain SGD diverges where its step is longer than twice its inverse.
    """
    return prior._stiffness()
