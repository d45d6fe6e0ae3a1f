"""A prior on a function of parameters: a norm, the difference of two layers, a transformed parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, Self, TypeAlias, final, get_args

import torch
from torch import Tensor
from torch.distributions import constraints

from bayesreg.errors import InvalidArgumentError, UnsupportedError, nearest
from bayesreg.priors.base import Prior, Traits
from bayesreg.priors.composite import Composite
from bayesreg.priors.flat import Flat
from bayesreg.priors.from_distribution import FromDistribution
from bayesreg.priors.function_joint import JointFunction
from bayesreg.priors.functions import FUNCTIONS, Named
from bayesreg.priors.readings import WeightDecayReadings
from bayesreg.scale import LossScale

__all__ = ["FunctionPrior", "Jacobian"]

Jacobian: TypeAlias = Literal["none", "elementwise", "radial"]


@final
class FunctionPrior(Composite):
    r"""A prior on ``f(parameters)``, and by name what that says about the parameters themselves.

    - jacobian="none": ``−log p = −log p_f(f(w)) − Σ log base(w)``. A penalty on f, times an ordinary prior on each
      parameter: for functions that do not determine the weights, such as the difference of two layers (soft tying). It
      is improper, and a MAP under it depends on how f is written: a Gaussian on log w is no log-normal prior on w.
    - jacobian="elementwise": ``−log p = Σ [−log p_f(f(w_i)) − log|f′(w_i)|]``: the density of w when f(w) has density
      p_f; the same belief, however it is written. f acts on each element of one parameter and is one-to-one; it must
      reach all that p_f covers, or that much of the mass is missing (exp of a weight has no negative values).
    - jacobian="radial": for "norm": r = ‖w‖ has density p_f and w no preferred direction,
      ``−log p = −log p_f(r) + (m − 1)·log r + log S_m``, S_m the area of the unit sphere in m dimensions. Where p_f
      does not vanish fast enough at 0 that has no bound there, and so no MAP, which is refused.

    Nothing is chosen by default: the same words, "a prior on the norm", mean different MAPs.

    Args:
        function: Of one tensor per parameter, in the order of `of`, differentiable; or by name, which files can keep:
            "norm" (of all together), "difference" (first minus second), "exp", "log", "softplus".
        prior: The prior on what it returns; smooth.
        of: The names of the parameters, as the model has them. The rules of `ModelPrior` must give all of them this
            prior: ``{name: prior for name in prior.of}``.
        jacobian: See above.
        base: With "none": the smooth prior on each parameter besides. Default `Flat()`.
        joins: Prior files set it.

    Raises:
        InvalidArgumentError: If an argument is none of these.

    Example:
        >>> import bayesreg as br
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        >>> tied = FunctionPrior(
        ...     "difference", br.Gaussian(0.1), of=["0.weight", "1.weight"], jacobian="none", base=br.Gaussian(1.0)
        ... )
        >>> prior = br.ModelPrior(model, {**{name: tied for name in tied.of}, br.biases: br.Flat()})
        >>> apart, each = model[0].weight - model[1].weight, (model[0].weight, model[1].weight)
        >>> torch.allclose(prior.penalty(), 50 * apart.square().sum() + sum(0.5 * w.square().sum() for w in each))
        True

    References:
        Gelman et al. (2013), Bayesian Data Analysis, section 1.8 (transformations and their Jacobians).
    """

    def __init__(
        self,
        function: str | Callable[..., Tensor],
        prior: Prior,
        of: Sequence[str],
        *,
        jacobian: Jacobian,
        base: Prior | None = None,
        joins: Sequence[str] | None = None,
    ) -> None:
        if isinstance(function, str):
            if function not in FUNCTIONS:
                raise InvalidArgumentError(
                    f"function: expected a callable or one of {', '.join(FUNCTIONS)}, got {function!r}"
                    f"{nearest(function, FUNCTIONS)}."
                )
            named, words = FUNCTIONS[function], function
        elif callable(function):
            named, words = Named(function), getattr(function, "__name__", type(function).__name__)
        else:
            raise InvalidArgumentError(f"function: expected a callable or a name, got {type(function).__name__}.")
        if isinstance(of, str) or not of or not all(isinstance(name, str) for name in of) or len(set(of)) != len(of):
            given = of if isinstance(of, str) else [one if isinstance(one, str) else type(one).__name__ for one in of]
            raise InvalidArgumentError(f"of: expected a list of different parameter names, got {given!r}.")
        if jacobian not in get_args(Jacobian):
            known = get_args(Jacobian)
            raise InvalidArgumentError(
                f"jacobian: expected one of {', '.join(known)}, got {jacobian!r}{nearest(str(jacobian), known)}."
            )
        super().__init__([prior, Flat() if base is None else base])
        for what, part in (("prior", prior), ("base", self.base)):
            if part.why_no_map() is not None:
                raise InvalidArgumentError(f"{what}: {part.why_no_map()}.")
            if not part.traits.smooth and (jacobian == "none" or not _of_positive_numbers(part)):
                raise InvalidArgumentError(
                    f"{what}: {part.family} has a kink or a bound, and through a function there is no proximal step; "
                    f"use a smooth prior (br.Logistic(scale) is nearly br.Laplace(scale) far out)."
                )
        if jacobian != "none" and base is not None:
            raise InvalidArgumentError(
                "base: with a Jacobian the density of the parameters is complete; leave base out."
            )
        if jacobian == "radial" and function != "norm":
            raise InvalidArgumentError("jacobian='radial': expected the function 'norm'.")
        if jacobian == "radial" and not _of_positive_numbers(prior):
            raise InvalidArgumentError(
                f"prior: of a norm, expected a density of positive numbers, such as "
                f"br.FromDistribution(torch.distributions.Gamma(a, rate)), got {prior.family}."
            )
        if jacobian == "elementwise" and (len(of) != 1 or function in ("norm", "difference")):
            raise InvalidArgumentError(
                "jacobian='elementwise': expected a function of each element of one parameter in `of`; a norm or a "
                "difference does not determine the weights: say jacobian='none' or, of a norm, 'radial'."
            )
        if jacobian != "none" and not prior.traits.proper:
            raise InvalidArgumentError(f"prior: expected a density, got {prior.family} ({prior.why_improper()}).")
        self.named, self.function_name, self.jacobian = named, words, jacobian
        self._by_name = isinstance(function, str)
        self.of = tuple(of)
        self.joins = None if joins is None else tuple(joins)
        self.traits = Traits(
            proper=jacobian != "none",
            # A convex penalty of a linear function is convex.
            convex=function == "difference" and all(part.traits.convex for part in self.parts),
            smooth=True,
            elementwise=False,
            has_prox=False,
        )

    @property
    def outcome(self) -> Prior:
        """The prior on what the function returns."""
        return self.parts[0]

    @property
    def base(self) -> Prior:
        """The prior on each parameter besides."""
        return self.parts[1]

    # -- parts -----------------------------------------------------------------------------------------

    @property
    def joins_parameters(self) -> bool:
        """Always: it is a density over all of them."""
        return True

    def bound_to(self, name: str, parameter: Tensor) -> Self:
        """Return the part of one parameter; see `Prior.bound_to`."""
        if name not in self.of:
            raise InvalidArgumentError(
                f"FunctionPrior is of={list(self.of)}, and the rule gives it to {name} as well: write the name in "
                f"`of` as the model has it, or give {name} a prior by a rule before this one."
            )
        part = self._with([self.outcome, self.base.bound_to(name, parameter)])
        part.joins, part.part_name, part.joint = self.of, name, None
        return part

    def joined(self) -> JointFunction:
        """Return the density of all parameters together."""
        return JointFunction(self.of)

    def check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Do nothing: what the function returns is looked at with all parameters together."""

    def hyper_shape(self) -> torch.Size:
        return torch.Size()

    def centre(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    # -- the contract: of all parameters together, so none of it on a single tensor --------------------

    def _alone(self) -> NoReturn:
        raise UnsupportedError(
            f"FunctionPrior is a prior on {self.function_name} of {', '.join(self.of)} and has no value for a single "
            f"tensor: use it in br.ModelPrior(model, ...), and ask that."
        )

    def penalty(self, value: Tensor) -> Tensor:
        self._alone()

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        self._alone()

    def curvature(self, value: Tensor) -> Tensor:
        self._alone()

    def sample(self, shape: Sequence[int] = (), **_: Any) -> Tensor:
        self._alone()

    def variance(self, shape: Sequence[int] | None = None) -> None:
        """Return None: single parameters have no variance of their own. See `Prior.variance`."""

    def weight_decay_readings(self, loss_scale: LossScale | int, at: Tensor | None = None) -> WeightDecayReadings:
        """Return no readings: no weight decay resembles a prior on a function."""
        return WeightDecayReadings(None, None, None, None)

    def why_no_map(self) -> str | None:
        """Return why there is no MAP, as far as was seen when the parameters were known."""
        return self.joint.no_map if isinstance(self.joint, JointFunction) else None

    def why_improper(self) -> str:
        return "a penalty on a function, which is no density of the parameters"

    def why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            "No weight_decay is equivalent to a prior on a function of parameters: train it with br.attach or "
            "br.MAPTrainer, which add its gradient."
        )

    # -- words and files -------------------------------------------------------------------------------

    def saved_options(self) -> dict[str, Any]:
        if not self._by_name:
            raise UnsupportedError(
                f"FunctionPrior: a file cannot hold the function {self.function_name}; use one by name "
                f"({', '.join(FUNCTIONS)})."
            )
        return {
            **super().saved_options(), "function": self.function_name, "of": list(self.of), "jacobian": self.jacobian,
        }  # fmt: skip

    def get_extra_state(self) -> dict[str, Any]:
        """Return nothing: the function belongs to the code."""
        return {}

    @classmethod
    def from_saved(cls, arguments: dict[str, Tensor], options: dict[str, Any]) -> Self:
        prior, base = cls.parts_from(arguments, options)
        given = base if options["jacobian"] == "none" else None
        return cls(
            options["function"], prior, options["of"], jacobian=options["jacobian"], base=given, joins=options["of"]
        )

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        how = {"none": "as a penalty", "elementwise": "with its Jacobian", "radial": "all directions alike"}[
            self.jacobian
        ]
        besides = "" if isinstance(self.base, Flat) else f"; besides {self.base.describe()}"
        return f"{self.function_name} of {', '.join(self.of)} ({how}): {self.outcome.describe()}{besides}"

    def __repr__(self) -> str:
        return (
            f"FunctionPrior({self.function_name!r}, {self.outcome!r}, of={list(self.of)}, jacobian={self.jacobian!r}, "
            f"base={self.base!r})"
        )


def _of_positive_numbers(prior: Prior) -> bool:
    """Return whether a density is over all positive numbers, without a kink among them."""
    if not isinstance(prior, FromDistribution):
        return False
    support: Any = prior.distribution.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return float(getattr(support, "lower_bound", -1.0)) == 0.0 and not hasattr(support, "upper_bound")
