"""Densities over several parameters at once, of which each parameter's prior is a part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayesreg.errors import ReferenceMismatchError, UnsupportedError

if TYPE_CHECKING:
    from bayesreg.priors.base import Prior
    from bayesreg.selection import ParameterInfo

__all__ = [
    "Joint",
    "add_gradients_",
    "curvature_products",
    "draws",
    "join",
    "log_constants",
    "penalty_terms",
    "require_all",
]


class Joint(ABC):
    """A density over several parameters; its parts are the priors that their entries hold.

    Args:
        names: The parameters it is over.
    """

    #: Whether it has a value only where all of its parameters are given.
    needs_all = True

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def bind(self, parts: Mapping[str, Prior], infos: Mapping[str, ParameterInfo]) -> None:  # noqa: B027
        """Take note of the parameters of one model.

        Args:
            parts: The parts by parameter name.
            infos: The parameters by the same names.

        Raises:
            InvalidArgumentError: If their shapes do not go together.
        """

    def share(self, parts: Sequence[Prior]) -> float:
        """Return how much of the value counts for these parts, where the others are counted elsewhere.

        Args:
            parts: Some of the parts.

        Returns:
            1 where all that are trained are there.
        """
        return 1.0

    @abstractmethod
    def penalty(self, parts: Sequence[Prior], values: Sequence[Tensor]) -> Tensor:
        """Return −log p of all parameters together, without its constant; see `Prior.penalty`."""

    @abstractmethod
    def add_grad_(
        self, parts: Sequence[Prior], grads: Sequence[Tensor | None], values: Sequence[Tensor], coefficient: float
    ) -> None:
        """Add coefficient · ∇(−log p) to the gradients there are; see `Prior.add_grad_`."""

    @abstractmethod
    def curvature_times(
        self, parts: Sequence[Prior], values: Sequence[Tensor], vectors: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the Hessian of −log p times a vector; see `Prior.curvature_times`."""

    @abstractmethod
    def log_constant(self, parts: Sequence[Prior]) -> Tensor:
        """Return the constant of the log density, in float64; see `Prior.log_constant`."""

    @abstractmethod
    def draw(
        self, parts: Sequence[Prior], generator: torch.Generator | None, dtypes: Sequence[torch.dtype]
    ) -> list[Tensor]:
        """Return one draw of all parameters; see `Prior.sample`."""


def _groups(priors: Sequence[Prior]) -> list[tuple[Joint | None, list[int]]]:
    """Return which priors go together: those of one joint density, every other alone; refuse incomplete ones."""
    groups: dict[int, tuple[Joint | None, list[int]]] = {}
    for index, prior in enumerate(priors):
        key = -1 - index if prior.joint is None else id(prior.joint)
        groups.setdefault(key, (prior.joint, []))[1].append(index)
    for joint, members in groups.values():
        if joint is not None:
            require_all(joint, [priors[i] for i in members])
    return list(groups.values())


def require_all(joint: Joint, parts: Sequence[Prior]) -> None:
    """Raise unless all parts of a joint density are there.

    Args:
        joint: The density.
        parts: Those that are.

    Raises:
        UnsupportedError: If some are not.
    """
    if joint.needs_all and len(parts) != len(joint.names):
        here = {part.part_name for part in parts}
        missing = [name for name in joint.names if name not in here]
        raise UnsupportedError(
            f"{parts[0].family} joins {len(joint.names)} parameters, and {', '.join(missing[:4])}"
            f"{', ...' if len(missing) > 4 else ''} is not trained together with the others: unfreeze it and keep all "
            f"in one param group of one optimizer, or use prior.marginal(names) for some of them."
        )


def penalty_terms(
    priors: Sequence[Prior], values: Sequence[Tensor], *, shared: bool = False
) -> list[tuple[Tensor, int]]:
    """Return the penalties of several parameters and, with each, the index of a parameter that it belongs to.

    `shared`: the values are summed with those of other groups, so each group counts its share; gradients stay whole.
    """
    terms = []
    for joint, members in _groups(priors):
        if joint is None:
            terms.append((priors[members[0]].penalty(values[members[0]]), members[0]))
        else:
            parts = [priors[i] for i in members]
            whole = joint.penalty(parts, [values[i] for i in members])
            share = joint.share(parts) if shared else 1.0
            terms.append((whole if share == 1.0 else whole - (1.0 - share) * whole.detach(), members[0]))
    return terms


def add_gradients_(
    priors: Sequence[Prior], grads: Sequence[Tensor | None], values: Sequence[Tensor], coefficient: float
) -> None:
    """Add coefficient · ∇(−log p) to the gradients of several parameters, in place."""
    for joint, members in _groups(priors):
        if joint is not None:
            parts = [priors[i] for i in members]
            joint.add_grad_(parts, [grads[i] for i in members], [values[i] for i in members], coefficient)
            continue
        grad = grads[members[0]]
        if grad is not None:
            priors[members[0]].add_grad_([grad], [values[members[0]]], coefficient)


def curvature_products(priors: Sequence[Prior], values: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return Hessian-vector products of −log p, one tensor per parameter."""
    products: dict[int, Tensor] = {}
    for joint, members in _groups(priors):
        if joint is None:
            i = members[0]
            products[i] = priors[i].curvature_times(values[i], vectors[i])
        else:
            parts = [priors[i] for i in members]
            found = joint.curvature_times(parts, [values[i] for i in members], [vectors[i] for i in members])
            products.update(zip(members, found, strict=True))
    return [products[i] for i in range(len(priors))]


def log_constants(priors: Sequence[Prior], shapes: Sequence[Sequence[int]]) -> Tensor:
    """Return the constant of the log density of several parameters, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for joint, members in _groups(priors):
        if joint is None:
            constant = priors[members[0]].log_constant(shapes[members[0]])
        else:
            constant = joint.log_constant([priors[i] for i in members])
        total = total + constant.to(total)
    return total


def draws(
    priors: Sequence[Prior],
    shapes: Sequence[Sequence[int]],
    generator: torch.Generator | None,
    dtypes: Sequence[torch.dtype],
    devices: Sequence[torch.device | None],
) -> list[Tensor]:
    """Return a draw of each of several parameters, all priors proper."""
    found: dict[int, Tensor] = {}
    for joint, members in _groups(priors):
        if joint is None:
            i = members[0]
            found[i] = priors[i].sample(shapes[i], generator=generator, dtype=dtypes[i], device=devices[i])
        else:
            parts = [priors[i] for i in members]
            found.update(zip(members, joint.draw(parts, generator, [dtypes[i] for i in members]), strict=True))
    return [found[i] for i in range(len(priors))]


def join(entries: Iterable[tuple[ParameterInfo, Prior]]) -> None:
    """Put the parts that were bound to parameters of one model together again.

    Args:
        entries: All parameters and their priors, parts of joint densities among them.

    Raises:
        InvalidArgumentError: If the shapes of its parameters do not go together.
        ReferenceMismatchError: If a joint density lacks some of its parameters.
    """
    by_names: dict[tuple[str, ...], dict[str, Prior]] = {}
    infos: dict[str, ParameterInfo] = {}
    for info, prior in entries:
        if prior.joins is not None and prior.part_name is not None:
            by_names.setdefault(prior.joins, {})[prior.part_name] = prior
            infos[prior.part_name] = info
    for names, parts in by_names.items():
        missing = [name for name in names if name not in parts]
        if missing:
            marginal = hasattr(next(iter(parts.values())), "marginal")
            raise ReferenceMismatchError(
                f"{next(iter(parts.values())).family} joins {len(names)} parameters, of which {', '.join(missing[:5])} "
                f"{'has' if len(missing) == 1 else 'have'} another prior in this model: widen the rule "
                f"(a single prior for a whole model leaves biases and norms out: write {{'*': prior}})"
                f"{', or use prior.marginal(names) for those it is to cover' if marginal else ''}."
            )
        joint = parts[names[0]].joined()
        joint.bind(parts, {name: infos[name] for name in names})
        for part in parts.values():
            part.joint = joint
