"""Any torch or Pyro distribution as a prior."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from bayesreg._support.plain import alike, from_plain, to_plain
from bayesreg._support.sharding import is_sharded
from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.priors.contract.prior import Prior
from bayesreg.priors.contract.quadratic import Quadratic
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, promoted, summed
from bayesreg.priors.contract.traits import Traits

__all__ = ["FromDistribution"]

_KINKED = {"Laplace", "AsymmetricLaplace"}
# Families that torch builds by a transform but that have a name of their own.
_NAMED = {"Logistic", "Gumbel", "LogNormal", "HalfNormal", "HalfCauchy", "Weibull", "Pareto", "Kumaraswamy"}
_LOG_CONCAVE = {"Normal", "MultivariateNormal", "LowRankMultivariateNormal", "Laplace", "Gumbel", "Logistic"}


@register_family(words=False)
@final
class FromDistribution(Prior):
    """A prior whose density is a `torch.distributions` (or Pyro) distribution, differentiated by autograd.

    Prefer a family of bayesreg where there is one: those have hand-derived gradients and proximal steps.

    Args:
        distribution: The distribution of one parameter tensor; its batch and event shape must broadcast to the
            parameter's. It must be continuous.
        smooth: Whether −log p has a gradient everywhere. Default: yes if the support is the whole real line
            and the family is not a Laplace.
        convex: Whether −log p is convex. Default: yes for the families known to be log-concave.

    Raises:
        InvalidArgumentError: If it is not a continuous distribution.

    Example:
        >>> prior = FromDistribution(torch.distributions.StudentT(df=4.0, scale=0.1))
        >>> prior.traits.smooth, prior.traits.convex
        (True, False)
        >>> round(prior.log_prob(torch.zeros(2)).item(), 4)
        2.6435
    """

    def __init__(self, distribution: Distribution, *, smooth: bool | None = None, convex: bool | None = None) -> None:
        super().__init__()
        if not isinstance(distribution, Distribution):
            raise InvalidArgumentError(
                f"distribution: expected an instance of torch.distributions.Distribution, got "
                f"{getattr(distribution, '__name__', type(distribution).__name__)}."
            )
        if distribution.support is None or distribution.support.is_discrete:
            raise InvalidArgumentError(
                f"distribution: expected a continuous distribution, got {type(distribution).__name__}."
            )
        self.distribution = distribution
        name = type(_base(distribution)).__name__
        unbounded = _is_real(distribution.support)
        self.traits = Traits(
            proper=True,
            convex=convex if convex is not None else name in _LOG_CONCAVE,
            smooth=smooth if smooth is not None else unbounded and name not in _KINKED,
            elementwise=len(_base(distribution).event_shape) == 0,
            has_prox=False,
        )

    def _localized(self, parameter: Tensor) -> Self:
        if is_sharded(parameter) and self.distribution.batch_shape:
            raise UnsupportedError(
                f"{self.family}: the parameter is sharded over processes and the distribution has one set of arguments "
                f"per element, which bayesreg cannot cut; use a family of bayesreg or scalar arguments."
            )
        return super()._localized(parameter)

    @property
    def family(self) -> str:
        """The name of the family."""
        return f"FromDistribution({type(self.distribution).__name__})"

    def _element_penalty(self, value: Tensor) -> Tensor:
        if not self.traits.elementwise:
            return super()._element_penalty(value)
        return -self.distribution.log_prob(promoted(value)).expand(value.shape)

    def _log_normaliser(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64) if self.traits.elementwise else super()._log_normaliser()

    def penalty(self, value: Tensor) -> Tensor:
        self._check_shape(value.shape)
        density = self.distribution.log_prob(promoted(value))
        # A density with an event covers several elements at once; broadcast factors count once per element.
        return -summed(density)

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        for grad, value in zip(grads, values, strict=True):
            with torch.enable_grad():
                leaf = promoted(value.detach()).clone().requires_grad_()
                (slope,) = torch.autograd.grad(self.penalty(leaf), leaf)
            grad.add_(slope, alpha=coefficient)

    def curvature(self, value: Tensor) -> Tensor:
        if not self.traits.elementwise:
            raise UnsupportedError(f"{self.family}: the curvature of a density joint over elements is not diagonal.")
        with torch.enable_grad():
            leaf = promoted(value.detach()).clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.penalty(leaf), leaf, create_graph=True)
            if not slope.requires_grad:
                return torch.zeros_like(leaf).detach()
            (second,) = torch.autograd.grad(slope.sum(), leaf, allow_unused=True)
        return torch.zeros_like(leaf).detach() if second is None else second.detach()

    def curvature_times(self, value: Tensor, vector: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = promoted(value.detach()).clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.penalty(leaf), leaf, create_graph=True)
            if not slope.requires_grad:
                return torch.zeros_like(leaf).detach()
            (product,) = torch.autograd.grad((slope * vector).sum(), leaf, allow_unused=True)
        return torch.zeros_like(leaf).detach() if product is None else product.detach()

    def _draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        own = tuple(self.distribution.batch_shape + self.distribution.event_shape)
        wanted = tuple(like.shape)
        extra = wanted[: len(wanted) - len(own)]
        widened = self.distribution
        if own != wanted[len(extra) :]:
            batch = wanted[len(extra) : len(wanted) - len(self.distribution.event_shape)]
            widened = self.distribution.expand(torch.Size(batch))
        with _RngFrom(generator):
            return widened.sample(torch.Size(extra)).to(like.device)

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        try:
            variance = self.distribution.variance
        except NotImplementedError:
            return None
        if not bool(torch.isfinite(variance).all()):
            return None
        return float(variance) if variance.ndim == 0 else variance.detach()

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """Return the distribution's own arguments; raises where it cannot be rebuilt from them."""
        arguments = _arguments(self.distribution)
        if arguments is None:
            raise UnsupportedError(
                f"{self.family}: this distribution cannot be rebuilt from its arguments, so it cannot be saved; use "
                f"a plain torch or Pyro distribution, or a family of bayesreg."
            )
        return dict(arguments)

    def saved_options(self) -> dict[str, Any]:
        """Return the distribution's class and the declared traits."""
        kind = type(self.distribution)
        package = "pyro" if kind.__module__.startswith("pyro.") else "torch"
        return {
            "distribution": f"{package}.{kind.__name__}",
            "smooth": self.traits.smooth,
            "convex": self.traits.convex,
        }

    @classmethod
    def from_saved(cls, arguments: dict[str, Tensor], options: dict[str, Any]) -> Self:
        """Rebuild the prior; only distributions that torch or Pyro ship are looked up."""
        package, name = options["distribution"].split(".")
        kind: Any = getattr(_library(package), name, None)
        if not (isinstance(kind, type) and issubclass(kind, Distribution)):
            raise InvalidArgumentError(f"distribution: expected one that {package} ships, got {name!r}.")
        build: Callable[..., Distribution] = kind
        return cls(build(**arguments), smooth=options["smooth"], convex=options["convex"])

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Return the distribution's arguments as plain values, where it can be rebuilt from them; see `Holder`."""
        arguments = _arguments(self.distribution)
        plain = {name: to_plain(torch.as_tensor(held)) for name, held in (arguments or {}).items()}
        if arguments is None or None in plain.values():
            return super().__reduce_ex__(protocol)
        return _from_pickle, (type(self), plain, self.saved_options(), self._said())

    def same_as(self, other: object) -> bool:
        """Return whether another prior is of the same distribution, with equal arguments; see `Belief.same_as`."""
        if not isinstance(other, FromDistribution):
            return False
        declared = self.saved_options() == other.saved_options()
        return self is other or (declared and alike(self.distribution, other.distribution))

    def quadratic(self) -> Quadratic | None:
        """Return the parabola of a Normal, None for every other distribution; see `Prior.quadratic`."""
        base: Any = _base(self.distribution)
        normal, transformed = torch.distributions.Normal, torch.distributions.TransformedDistribution
        # A subclass may have a density of its own.
        plain_normal = isinstance(base, normal) and type(base).log_prob is normal.log_prob
        if isinstance(self.distribution, transformed) or not plain_normal:
            return None
        scale, loc = _collapsed(base.scale), torch.as_tensor(_collapsed(base.loc))
        return Quadratic(scale * scale, loc.to(torch.float64) if bool((loc != 0).any()) else None)

    def centre(self) -> Tensor:
        parabola = self.quadratic()
        about = None if parabola is None else parabola.centre
        return about if isinstance(about, Tensor) else super().centre()

    def _mean(self) -> Tensor:
        """Return the distribution's mean, where it has one; its centre is known only of a Normal."""
        try:
            mean = self.distribution.mean.detach().to(torch.float64)
        except NotImplementedError:
            return self.centre()
        return mean if bool(mean.isfinite().all()) else self.centre()

    def _hyper_shape(self) -> torch.Size:
        return torch.Size((*self.distribution.batch_shape, *self.distribution.event_shape))

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            f"No weight_decay is equivalent to {self.family}: only a zero-centred Gaussian has one. Train it with "
            f"br.MAPTrainer or br.attach, which add its gradient."
        )

    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """Return the ends of the distribution's support; see `Prior.bounds`."""
        support: Any = self.distribution.support
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        low, high = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
        if low is None and high is None:
            return None
        ends = [math.inf * sign if end is None else end for end, sign in ((low, -1.0), (high, 1.0))]
        return torch.as_tensor(ends[0]), torch.as_tensor(ends[1])

    def _check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Raise unless the distribution's shape broadcasts to `shape`; see `Prior`."""
        own = self.distribution.batch_shape + self.distribution.event_shape
        event = len(self.distribution.event_shape)
        try:
            fits = torch.broadcast_shapes(own, tuple(shape)) == torch.Size(shape)
        except RuntimeError:
            fits = False
        if not fits or (event and tuple(shape)[-event:] != tuple(self.distribution.event_shape)):
            raise InvalidArgumentError(
                f"{self.family}: expected a shape that broadcasts to {what} of shape {tuple(shape)}, got {tuple(own)}."
            )

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return f"{self.distribution}"

    def __repr__(self) -> str:
        return f"FromDistribution({self.distribution})"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        # Move, never narrow: what `fn` does to the dtype is not wanted here.
        device = fn(torch.empty(0)).device
        arguments = _arguments(self.distribution)
        if arguments is None:
            if device.type != "cpu":
                raise UnsupportedError(f"{self.family}: it cannot be rebuilt, so it cannot be moved to {device}.")
        else:
            moved = {name: value.to(device) for name, value in arguments.items()}
            self.distribution = _rebuilt(self.distribution, moved)
        return self


def _base(distribution: Distribution) -> Distribution:
    """Strip `Independent`, which changes only how log_prob is summed, and transforms, which keep a kink a kink."""
    wrappers = (torch.distributions.Independent, torch.distributions.TransformedDistribution)
    while isinstance(distribution, wrappers) and type(distribution).__name__ not in _NAMED:
        distribution = distribution.base_dist
    return distribution


def _is_real(support: Any) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real or support is constraints.real_vector


def _arguments(distribution: Distribution) -> dict[str, Tensor] | None:
    """Return constructor arguments that rebuild the distribution, or None."""
    names = [n for n in getattr(distribution, "arg_constraints", {}) if n in vars(distribution)]
    arguments = {n: torch.as_tensor(vars(distribution)[n]).detach() for n in names}
    try:
        again = _rebuilt(distribution, arguments)
        same = again.batch_shape == distribution.batch_shape and again.event_shape == distribution.event_shape
        return arguments if arguments and same else None
    except (TypeError, ValueError):
        return None


def _rebuilt(distribution: Distribution, arguments: dict[str, Tensor]) -> Distribution:
    kind: Callable[..., Distribution] = type(distribution)
    return kind(**arguments, validate_args=False)


def _collapsed(value: Tensor) -> Hyperparameter:
    """Return one float where a distribution has expanded a scalar."""
    detached = value.detach()
    if math.prod(detached.shape) and bool((detached == detached.reshape(-1)[0]).all()):
        return float(detached.reshape(-1)[0])
    return detached


class _RngFrom:
    """Draw from a generator inside torch.distributions, which has no generator argument, and restore torch's own."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.generator = generator

    def __enter__(self) -> None:
        if self.generator is not None:
            self.fork = torch.random.fork_rng(devices=[])
            self.fork.__enter__()
            seed = int(torch.randint(2**62, (), generator=self.generator, device=self.generator.device))
            torch.default_generator.manual_seed(seed)

    def __exit__(self, *details: Any) -> None:
        if self.generator is not None:
            self.fork.__exit__(*details)


def _library(package: str) -> Any:
    """Return the distributions of torch or Pyro; a folder `pyro` beside a file is no library, and not imported."""
    if package != "pyro":
        return torch.distributions
    if "pyro" not in sys.modules:
        found = importlib.util.find_spec("pyro")
        place = None if found is None or found.origin is None else Path(found.origin).resolve().parent.parent
        if place is None or place == Path.cwd():
            raise InvalidArgumentError(
                "distribution: expected Pyro to be installed, and found no pyro but, if any, a folder of that name in "
                "the current one, which is not imported."
            )
    return importlib.import_module("pyro.distributions")


def _from_pickle(
    cls: type[FromDistribution], plain: dict[str, Any], options: dict[str, Any], said: dict[str, str]
) -> FromDistribution:
    arguments = {name: from_plain(held) for name, held in plain.items()}
    return cls.from_saved({name: held for name, held in arguments.items() if held is not None}, options)._say(said)
