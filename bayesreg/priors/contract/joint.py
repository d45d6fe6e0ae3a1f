"""Terms: one density over one or several parameters of a model each, what sums, steps and solvers work with."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

import torch
from torch import Tensor

from bayesreg.errors import ReferenceMismatchError, UnsupportedError
from bayesreg.priors.contract.belief import Belief
from bayesreg.priors.contract.prior import Prior
from bayesreg.priors.contract.tensors import Hyperparameter
from bayesreg.selection import ParameterInfo

__all__ = ["JointPrior", "JointTerm", "Part", "SingleTerm", "Term", "Values", "refuse_apart", "terms_of"]

Values: TypeAlias = Mapping[str, Tensor]


class Named(Protocol):
    """What has a family."""

    @property
    def family(self) -> str: ...


AnyPart = TypeVar("AnyPart", bound=Named)


class Term(ABC):
    """A density over some parameters of a model; −log of the prior of the model is the sum of its terms.

    All tensors are given and returned by the parameters' names. A method that takes values of some of the parameters
    only either knows what the others are, or raises.

    Args:
        infos: The parameters that it is over, by name.
    """

    def __init__(self, infos: Mapping[str, ParameterInfo]) -> None:
        self.names = tuple(infos)

    def require(self, names: Iterable[str]) -> None:  # noqa: B027
        """Raise unless the density has a value where these parameters are trained and the others are not.

        Args:
            names: Some of its parameters.

        Raises:
            UnsupportedError: If it has none.
        """

    def share(self, names: Sequence[str]) -> float:
        """Return how much of the value counts for these parameters, where the others are counted elsewhere.

        Args:
            names: Some of its parameters.

        Returns:
            1 where all that are trained are there.
        """
        return 1.0

    @abstractmethod
    def penalty(self, values: Values) -> Tensor:
        """Return −log p without its constant; see `Prior.penalty`."""

    @abstractmethod
    def add_grad_(self, grads: Mapping[str, Tensor | None], values: Values, coefficient: float) -> None:
        """Add coefficient · ∇(−log p) to the gradients there are; see `Prior.add_grad_`."""

    @abstractmethod
    def curvature_times(self, values: Values, vectors: Values) -> dict[str, Tensor]:
        """Return the Hessian of −log p times a vector; see `Prior.curvature_times`."""

    @abstractmethod
    def log_constant(self, shapes: Mapping[str, Sequence[int]]) -> Tensor:
        """Return the constant of the log density, in float64; see `Prior.log_constant`."""

    @abstractmethod
    def draw(self, like: Values, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Return one draw of the parameters, of the shapes, dtypes and (without a generator) devices of `like`."""


class SingleTerm(Term):
    """The density of one parameter.

    Args:
        info: The parameter.
        prior: Its prior.
    """

    def __init__(self, info: ParameterInfo, prior: Prior) -> None:
        super().__init__({info.name: info})
        self.prior = prior

    def penalty(self, values: Values) -> Tensor:
        return self.prior.penalty(values[self.names[0]])

    def add_grad_(self, grads: Mapping[str, Tensor | None], values: Values, coefficient: float) -> None:
        grad = grads[self.names[0]]
        if grad is not None:
            self.prior.add_grad_([grad], [values[self.names[0]]], coefficient)

    def curvature_times(self, values: Values, vectors: Values) -> dict[str, Tensor]:
        (name,) = self.names
        return {name: self.prior.curvature_times(values[name], vectors[name])}

    def log_constant(self, shapes: Mapping[str, Sequence[int]]) -> Tensor:
        return self.prior.log_constant(shapes[self.names[0]])

    def draw(self, like: Values, generator: torch.Generator | None) -> dict[str, Tensor]:
        (name,) = self.names
        device = None if generator else like[name].device
        return {name: self.prior.sample(like[name].shape, generator=generator, dtype=like[name].dtype, device=device)}


def refuse_apart(family: str, names: Sequence[str], here: Iterable[str], cure: str = "") -> None:
    """Raise unless all parameters of a density are trained together.

    Args:
        family: Its name.
        names: The parameters.
        here: Those that are.
        cure: What else can be done.

    Raises:
        UnsupportedError: If some are not.
    """
    missing = sorted(set(names) - set(here), key=names.index)
    if missing:
        raise UnsupportedError(
            f"{family} joins {len(names)} parameters, and {', '.join(missing[:4])}"
            f"{', ...' if len(missing) > 4 else ''} is not trained together with the others: unfreeze it and keep all "
            f"in one param group of one optimizer{cure}."
        )


class JointTerm(Term, Generic[AnyPart]):
    """The density of several parameters together, made of a part for each.

    Args:
        parts: The parts by parameter name.
        infos: The parameters by the same names.
    """

    def __init__(self, parts: Mapping[str, AnyPart], infos: Mapping[str, ParameterInfo]) -> None:
        super().__init__(infos)
        self.parts, self.infos = dict(parts), dict(infos)

    def require(self, names: Iterable[str]) -> None:
        refuse_apart(self.first.family, self.names, names, ", or use prior.marginal(names) for some of them")

    @property
    def first(self) -> AnyPart:
        """The part of the first parameter, which holds what all have in common."""
        return self.parts[self.names[0]]

    def ordered(self, values: Values) -> list[Tensor]:
        """Return the tensors in the order of the parameters."""
        return [values[name] for name in self.names]


class _Together(Belief):
    """What has a density together with others only."""

    def __getattr__(self, name: str) -> Any:
        if name in vars(Prior):
            raise AttributeError(
                f"{self.family}: a density over several parameters has no {name} of a single tensor: use it in "
                f"br.ModelPrior(model, ...), and ask that."
            )
        return super().__getattr__(name)


class Part(_Together):
    """One parameter's part of a density over several: it has hyper-parameters and words, and no value of its own.

    Args:
        joins: The names of all the parameters.
        name: Which of them this is the part of.
    """

    #: Whether the density over fewer of the parameters is of the same form: `prior.marginal(names)`.
    divisible = False

    def __init__(self, joins: Sequence[str], name: str = "") -> None:
        super().__init__()
        self.joins, self.name = tuple(joins), name

    @property
    def family(self) -> str:
        return self._saved_family().__name__

    @abstractmethod
    def _saved_family(self) -> type[Belief]: ...

    @classmethod
    @abstractmethod
    def term(cls, parts: Mapping[str, Any], infos: Mapping[str, ParameterInfo]) -> Term:
        """Return the density that the parts make together.

        Args:
            parts: The parts by parameter name.
            infos: The parameters by the same names.

        Returns:
            The term.

        Raises:
            InvalidArgumentError: If the shapes of the parameters do not go together.
        """

    def bound_to(self, name: str, parameter: Tensor) -> Self:
        part = self._joining(self.joins)
        part.name = name
        part._check_shape(parameter.shape, f"parameter {name!r}")
        return part

    def check_place(self, info: ParameterInfo) -> None:
        """Raise if the model uses the parameter in another way than when the prior was saved.

        Args:
            info: The parameter.

        Raises:
            UnsupportedError: If it does.
        """

    def restricted_to(self, names: Sequence[str]) -> Self:
        """Return this part of a density where that is over these parameters only, the others integrated out.

        Args:
            names: The parameters that are left, by their names in the model.

        Returns:
            The part.

        Raises:
            UnsupportedError: If the density over fewer parameters is not of the same form.
        """
        if len(names) != len(self.joins):
            raise UnsupportedError(
                f"{self.family} joins {' and '.join(self.joins[:4])}, of which only {', '.join(names)} would be left."
            )
        return self._joining(names)

    def _joining(self, names: Sequence[str]) -> Self:
        part = copy.copy(self)
        part._buffers = dict(self._buffers)
        part.joins = tuple(names)
        return part

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return None: a single parameter has no variance of its own. See `Prior.variance`."""
        return None

    def saved_options(self) -> dict[str, Any]:
        return {"joins": list(self.joins)}


class JointPrior(_Together):
    """A density over several named parameters: what a rule may give all of them, and no prior of a single tensor.

    Its `bound_to` gives each parameter its part; a `ModelPrior` puts the parts together.
    """

    def bound_to(self, name: str, parameter: Tensor) -> Part:
        """Return the part of one parameter; see `Prior.bound_to`.

        Args:
            name: The parameter's name in the model.
            parameter: The parameter.

        Returns:
            The part.
        """
        raise NotImplementedError

    def _check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Do nothing: the parts look at their parameters."""

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return None: single parameters have no variance before they are known. See `Prior.variance`."""
        return None

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """Raise: only in a `ModelPrior` is it known whose it is."""
        raise UnsupportedError(f"{self.family}: save it in a br.ModelPrior, which knows the parameters it joins.")


def terms_of(pairs: Iterable[tuple[ParameterInfo, Belief]]) -> list[Term]:
    """Return the densities of a model: one for each parameter, and for the parts of joint ones one together.

    Args:
        pairs: All parameters and what is believed of them.

    Returns:
        The terms, in the order of their first parameters.

    Raises:
        InvalidArgumentError: If the shapes of its parameters do not go together.
        ReferenceMismatchError: If a joint density lacks some of its parameters.
    """
    found: list[Term | tuple[str, ...]] = []
    groups: dict[tuple[str, ...], dict[str, tuple[ParameterInfo, Part]]] = {}
    for info, prior in pairs:
        if isinstance(prior, Prior):
            found.append(SingleTerm(info, prior))
        elif isinstance(prior, Part):
            if prior.joins not in groups:
                found.append(prior.joins)
            groups.setdefault(prior.joins, {})[prior.name] = (info, prior)
    return [one if isinstance(one, Term) else _joined(one, groups[one]) for one in found]


def _joined(names: tuple[str, ...], members: Mapping[str, tuple[ParameterInfo, Part]]) -> Term:
    _, first = next(iter(members.values()))
    missing = [name for name in names if name not in members]
    if missing:
        marginal = ", or use prior.marginal(names) for those it is to cover" if first.divisible else ""
        raise ReferenceMismatchError(
            f"{first.family} joins {len(names)} parameters, of which {', '.join(missing[:5])} "
            f"{'has' if len(missing) == 1 else 'have'} another prior in this model: widen the rule "
            f"(a single prior for a whole model leaves biases and norms out: write {{'*': prior}}){marginal}."
        )
    # A tied parameter may have been named by another of its names.
    ordered = [members[name] for name in names]
    infos = {info.name: info for info, _ in ordered}
    return type(first).term({info.name: part for info, part in ordered}, infos)
