"""A prior on a function of parameters: a norm, the difference of two layers, a transformed parameter."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self, TypeAlias, final, get_args

from torch import Tensor

from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError, UnsupportedError, kind_of, nearest
from bayesreg.priors.composed.composite import held_by, options_of, parts_from
from bayesreg.priors.composed.from_distribution import FromDistribution
from bayesreg.priors.composed.function_joint import JointFunction
from bayesreg.priors.composed.functions import FUNCTIONS, Named
from bayesreg.priors.contract.belief import Belief
from bayesreg.priors.contract.joint import JointPrior, Part
from bayesreg.priors.contract.prior import Prior
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.flat import Flat
from bayesreg.selection import ParameterInfo

__all__ = ["FunctionPrior", "Jacobian"]

Jacobian: TypeAlias = Literal["none", "elementwise", "radial"]


@register_family
@final
class FunctionPrior(JointPrior):
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

    Raises:
        InvalidArgumentError: If an argument is none of these.

    Example:
        >>> import torch, bayesreg as br
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        >>> tied = FunctionPrior(
        ...     "difference", br.Gaussian(0.1), of=["0.weight", "1.weight"], jacobian="none", base=br.Gaussian(1.0)
        ... )
        >>> prior = br.ModelPrior(model, {**{name: tied for name in tied.of}, br.biases: br.Flat()})
        >>> apart, each = model[0].weight - model[1].weight, (model[0].weight, model[1].weight)
        >>> wanted = 50 * apart.square().sum() + sum(0.5 * w.square().sum() for w in each)
        >>> torch.allclose(prior.penalty(), wanted.double())
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
        if (
            not isinstance(of, list | tuple)
            or not of
            or not all(isinstance(name, str) for name in of)
            or len(set(of)) != len(of)
        ):
            listed = isinstance(of, list | tuple)
            given = (
                of
                if isinstance(of, str)
                else kind_of(of)
                if not listed
                else [one if isinstance(one, str) else type(one).__name__ for one in of]
            )
            raise InvalidArgumentError(f"of: expected a list of different parameter names, got {given!r}.")
        if jacobian not in get_args(Jacobian):
            known = get_args(Jacobian)
            raise InvalidArgumentError(
                f"jacobian: expected one of {', '.join(known)}, got {jacobian!r}{nearest(str(jacobian), known)}."
            )
        super().__init__()
        for what, part in (("prior", prior), ("base", base or Flat())):
            if not isinstance(part, Prior):
                raise InvalidArgumentError(
                    f"{what}: expected a prior of one tensor, such as br.Gaussian(0.1), got {type(part).__name__}."
                )
        self.outcome: Prior = prior
        self.base: Prior = Flat() if base is None else base
        for what, part in (("prior", prior), ("base", self.base)):
            if part.remarks().no_map is not None:
                raise InvalidArgumentError(f"{what}: {part.remarks().no_map}.")
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
            raise InvalidArgumentError(f"prior: expected a density, got {prior.family} ({prior.remarks().improper}).")
        self.named, self.function_name, self.jacobian = named, words, jacobian
        self.by_name = isinstance(function, str)
        self.of = tuple(of)
        self.traits = Traits(
            proper=jacobian != "none",
            # A convex penalty of a linear function is convex.
            convex=function == "difference" and prior.traits.convex and self.base.traits.convex,
            smooth=True,
            elementwise=False,
            has_prox=False,
        )

    def bound_to(self, name: str, parameter: Tensor) -> FunctionPart:
        """Return the part of one parameter; see `Prior.bound_to`."""
        if name not in self.of:
            raise InvalidArgumentError(
                f"FunctionPrior is of={list(self.of)}, and the rule gives it to {name} as well: write the name in "
                f"`of` as the model has it, or give {name} a prior by a rule before this one."
            )
        base = self.base.bound_to(name, parameter)
        assert isinstance(base, Prior)
        return FunctionPart(self, base, name)

    def saved_options(self) -> dict[str, Any]:
        if not self.by_name:
            raise UnsupportedError(
                f"FunctionPrior: a file cannot hold the function {self.function_name}; use one by name "
                f"({', '.join(FUNCTIONS)})."
            )
        return {"function": self.function_name, "of": list(self.of), "jacobian": self.jacobian}

    @classmethod
    def from_saved(cls, arguments: dict[str, Tensor], options: dict[str, Any]) -> FunctionPart:
        prior, base = parts_from(arguments, options)
        given = base if options["jacobian"] == "none" else None
        return FunctionPart(
            cls(options["function"], prior, options["of"], jacobian=options["jacobian"], base=given), base
        )

    def _why_improper(self) -> str:
        return "a penalty on a function, which is no density of the parameters"

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            "No weight_decay is equivalent to a prior on a function of parameters: train it with br.attach or "
            "br.MAPTrainer, which add its gradient."
        )

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return self._in_words(self.base)

    def _in_words(self, base: Prior) -> str:
        how = {"none": "as a penalty", "elementwise": "with its Jacobian", "radial": "all directions alike"}[
            self.jacobian
        ]
        flat = (parabola := base.quadratic()) is not None and parabola.flat
        besides = "" if flat else f"; besides {base.describe()}"
        return f"{self.function_name} of {', '.join(self.of)} ({how}): {self.outcome.describe()}{besides}"

    def __repr__(self) -> str:
        return (
            f"FunctionPrior({self.function_name!r}, {self.outcome!r}, of={list(self.of)}, jacobian={self.jacobian!r}, "
            f"base={self.base!r})"
        )


class FunctionPart(Part):
    """One parameter's part of a prior on a function of several.

    Args:
        whole: The prior.
        base: What it says of this parameter besides.
        name: The parameter's name.
    """

    def __init__(self, whole: FunctionPrior, base: Prior, name: str = "") -> None:
        super().__init__(whole.of, name)
        self.whole = [whole]  # in a list, so that what all parts share is registered once, below
        self.traits = whole.traits
        self.outcome, self.base = whole.outcome, base
        self.no_map: str | None = None

    def _saved_family(self) -> type[Belief]:
        return FunctionPrior

    @classmethod
    def term(cls, parts: Mapping[str, FunctionPart], infos: Mapping[str, ParameterInfo]) -> JointFunction:
        """Return the density of all parameters together; see `Part.term`."""
        whole = next(iter(parts.values())).whole[0]
        made = JointFunction(whole, {name: part.base for name, part in parts.items()}, infos)
        for part in parts.values():
            part.no_map = made.no_map
        return made

    def _check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Do nothing: what the function returns is looked at with all parameters together."""

    def bound_to(self, name: str, parameter: Tensor) -> Self:
        base = self.base.bound_to(name, parameter)
        assert isinstance(base, Prior)
        return type(self)(self.whole[0], base, name)

    def _joining(self, names: Sequence[str]) -> Self:
        # The function's arguments by their names in this model.
        whole = copy.copy(self.whole[0])
        whole.of = tuple(names)
        return type(self)(whole, self.base, self.name)

    def _why_no_map(self) -> str | None:
        return self.no_map

    def _why_improper(self) -> str:
        return self.whole[0].remarks().improper or ""

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return self.whole[0]._why_no_decay(loss_scale)

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return held_by([self.outcome, self.base])

    def saved_options(self) -> dict[str, Any]:
        return {**options_of([self.outcome, self.base]), **self.whole[0].saved_options(), "of": list(self.joins)}

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return self.whole[0]._in_words(self.base)

    def __repr__(self) -> str:
        return repr(self.whole[0])


def _of_positive_numbers(prior: Prior) -> bool:
    """Return whether a density is over all positive numbers, without a kink among them."""
    if not isinstance(prior, FromDistribution):
        return False
    ends = prior.bounds()
    return ends is not None and float(ends[0]) == 0.0 and float(ends[1]) == math.inf
