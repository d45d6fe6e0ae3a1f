"""Densities of a scale: what is believed of σ, σ² or 1/σ² where it is not known."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, TypeAlias, final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from bayesreg._support import checks
from bayesreg._support.calls import answering, answering_class
from bayesreg.errors import InvalidArgumentError, nearest

__all__ = ["BetaPrime", "Gamma", "HalfCauchy", "HalfNormal", "HyperPrior", "InverseGamma", "Quantity", "from_dict"]

Quantity: TypeAlias = Literal["scale", "variance", "precision"]

#: log of the quantity over log σ.
_POWERS: dict[str, int] = {"scale": 1, "variance": 2, "precision": -2}


@dataclass(frozen=True)
class HyperPrior(ABC):
    """A density of q > 0, which is a scale σ, its square or the inverse of that.

    A family says what log q is distributed like; all of them have log-concave densities there, so that maxima over
    log σ are unique.
    """

    _quantity: ClassVar[Quantity] = "scale"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "of":
                if value not in _POWERS:
                    raise InvalidArgumentError(
                        f"of: expected one of {', '.join(_POWERS)}, got {value!r}{nearest(str(value), _POWERS)}."
                    )
            else:
                object.__setattr__(self, field.name, checks.positive_float(field.name, value))

    # -- to implement ----------------------------------------------------------------------------------

    @abstractmethod
    def log_density(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log density of t = log q and its first two derivatives.

        Args:
            t: Any shape, in float64.

        Returns:
            Three tensors of that shape.
        """

    @abstractmethod
    def decay(self) -> tuple[float, float]:
        """Return the rates at which the density of log q falls off exponentially at −∞ and at ∞ (∞: faster)."""

    @abstractmethod
    def middle(self) -> float:
        """Return log q somewhere in the middle of the density."""

    @abstractmethod
    def moment(self, power: float) -> float:
        """Return E[q^power]; ∞ where there is none.

        Args:
            power: Any.

        Returns:
            The moment.
        """

    @abstractmethod
    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return draws of q.

        Args:
            like: A tensor of the shape, dtype and device wanted.
            generator: Source of randomness.

        Returns:
            The draws.
        """

    # -- what follows ----------------------------------------------------------------------------------

    @property
    def power(self) -> int:
        """Q = σ^power."""
        return _POWERS[getattr(self, "of", self._quantity)]

    def log_scale_density(self, eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log density of η = log σ, the Jacobian included, and its first two derivatives.

        Args:
            eta: Any shape, in float64.

        Returns:
            Three tensors of that shape.
        """
        value, first, second = self.log_density(self.power * eta)
        return value + math.log(abs(self.power)), self.power * first, self.power**2 * second

    def scale_decay(self) -> tuple[float, float]:
        """Return `decay` for log σ: at σ → 0 and at σ → ∞."""
        left, right = self.decay()
        pair = (left, right) if self.power > 0 else (right, left)
        return abs(self.power) * pair[0], abs(self.power) * pair[1]

    def draw_scale(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return draws of σ; see `draw`."""
        return self.draw(like, generator) ** (1.0 / self.power)

    def mean_square(self) -> float:
        """Return E[σ²]; ∞ where it is."""
        return self.moment(2.0 / self.power)

    def to_dict(self) -> dict[str, Any]:
        """Return the family and its numbers, ready for JSON."""
        return {"family": type(self).__name__, **asdict(self)}


@final
@answering_class
@dataclass(frozen=True)
class HalfCauchy(HyperPrior):
    """``p(q) = 2/(π·scale·(1 + q²/scale²))``: nearly flat up to `scale`, tails without a mean.

    Args:
        scale: The median > 0, in units of q.
        of: What q is: "scale" (default), "variance" or "precision".

    Example:
        >>> HalfCauchy(0.1).mean_square()
        inf

    References:
        Gelman (2006), Prior Distributions for Variance Parameters in Hierarchical Models, section 3.2.
    """

    scale: float
    of: Quantity = "scale"

    def log_density(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s = t - math.log(self.scale)
        share = torch.sigmoid(2.0 * s)
        return math.log(2.0 / math.pi) + s - softplus(2.0 * s), 1.0 - 2.0 * share, -4.0 * share * (1.0 - share)

    def decay(self) -> tuple[float, float]:
        return 1.0, 1.0

    def middle(self) -> float:
        return math.log(self.scale)

    def moment(self, power: float) -> float:
        return self.scale**power / math.cos(0.5 * math.pi * power) if abs(power) < 1.0 else math.inf

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        over, under = (
            torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device) for _ in range(2)
        )
        return self.scale * (over / under).abs()


@final
@answering_class
@dataclass(frozen=True)
class HalfNormal(HyperPrior):
    """``p(q) = √(2/π)/scale·exp(−q²/(2·scale²))``: nearly flat up to `scale`, hardly anything beyond three of it.

    Args:
        scale: > 0, in units of q.
        of: What q is: "scale" (default), "variance" or "precision".

    Example:
        >>> round(HalfNormal(0.1).mean_square(), 6)
        0.01

    References:
        Gelman (2006), Prior Distributions for Variance Parameters in Hierarchical Models, section 3.2.
    """

    scale: float
    of: Quantity = "scale"

    def log_density(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s = t - math.log(self.scale)
        square = torch.exp(2.0 * s)
        return 0.5 * math.log(2.0 / math.pi) + s - 0.5 * square, 1.0 - square, -2.0 * square

    def decay(self) -> tuple[float, float]:
        return 1.0, math.inf

    def middle(self) -> float:
        return math.log(self.scale)

    def moment(self, power: float) -> float:
        if power <= -1.0:
            return math.inf
        return float((math.sqrt(2.0) * self.scale) ** power) * math.gamma(0.5 * (power + 1.0)) / math.sqrt(math.pi)

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.scale * torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device).abs()


@final
@answering_class
@dataclass(frozen=True)
class Gamma(HyperPrior):
    """``p(q) = rate^a·q^(a−1)·e^(−rate·q)/Γ(a)``, a the concentration; on a precision conjugate to a Gaussian.

    Args:
        concentration: Shape a > 0; on a precision it counts as 2·a observed weights.
        rate: > 0, in 1/units of q; on a precision 2·rate is the sum of their squares.
        of: What q is: "precision" (default), "scale" or "variance".

    Example:
        >>> round(Gamma(2.0, 0.05).mean_square(), 6)  # rate/(a − 1)
        0.05

    References:
        Gelman et al. (2013), Bayesian Data Analysis, appendix A.
    """

    concentration: float
    rate: float
    of: Quantity = "precision"

    def log_density(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, grown = self.concentration, self.rate * torch.exp(t)
        fixed = a * math.log(self.rate) - math.lgamma(a)
        return fixed + a * t - grown, a - grown, -grown

    def decay(self) -> tuple[float, float]:
        return self.concentration, math.inf

    def middle(self) -> float:
        return math.log(self.concentration / self.rate)

    def moment(self, power: float) -> float:
        a = self.concentration
        if a + power <= 0.0:
            return math.inf
        return math.exp(math.lgamma(a + power) - math.lgamma(a) - power * math.log(self.rate))

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch._standard_gamma(torch.full_like(like, self.concentration), generator=generator) / self.rate


@final
@answering_class
@dataclass(frozen=True)
class InverseGamma(HyperPrior):
    """``p(q) = rate^a·q^(−a−1)·e^(−rate/q)/Γ(a)``, a the concentration; on a variance conjugate to a Gaussian.

    On a variance it is `Gamma` on the precision. It vanishes at 0 faster than any power: with it a MAP over weights and
    their scale exists.

    Args:
        concentration: Shape a > 0.
        rate: > 0, in units of q.
        of: What q is: "variance" (default), "scale" or "precision".

    Example:
        >>> round(InverseGamma(2.0, 0.05).mean_square(), 6)  # rate/(a − 1)
        0.05

    References:
        Gelman et al. (2013), Bayesian Data Analysis, appendix A.
    """

    concentration: float
    rate: float
    of: Quantity = "variance"

    def log_density(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, grown = self.concentration, self.rate * torch.exp(-t)
        fixed = a * math.log(self.rate) - math.lgamma(a)
        return fixed - a * t - grown, grown - a, -grown

    def decay(self) -> tuple[float, float]:
        return math.inf, self.concentration

    def middle(self) -> float:
        return math.log(self.rate / self.concentration)

    def moment(self, power: float) -> float:
        a = self.concentration
        if a - power <= 0.0:
            return math.inf
        return math.exp(math.lgamma(a - power) - math.lgamma(a) + power * math.log(self.rate))

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.rate / torch._standard_gamma(torch.full_like(like, self.concentration), generator=generator)


@final
@answering_class
@dataclass(frozen=True)
class BetaPrime(HyperPrior):
    """``p(q) = (q/scale)^(a−1)·(1 + q/scale)^(−a−b)/(scale·B(a, b))``: powers at both ends, a and b.

    On a variance with a = b = ½ it is a half-Cauchy on the scale (the horseshoe); in general it is what the local
    variances of R2D2 priors are each distributed like, where R² is Beta(a·p, b) over p of them.

    Args:
        concentration: a > 0: how much is near 0.
        tail: b > 0: how much is far out.
        scale: > 0, in units of q.
        of: What q is: "variance" (default), "scale" or "precision".

    Example:
        >>> round(BetaPrime(0.5, 2.0, scale=0.1).mean_square(), 6)  # scale·a/(b − 1)
        0.05

    References:
        Zhang, Naughton, Bondell and Reich (2022), Bayesian Regression Using a Prior on the Model Fit: The R2-D2
        Shrinkage Prior, section 2.
    """

    concentration: float
    tail: float
    scale: float
    of: Quantity = "variance"

    def log_density(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b, s = self.concentration, self.tail, t - math.log(self.scale)
        share = torch.sigmoid(s)
        fixed = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        return fixed + a * s - (a + b) * softplus(s), a - (a + b) * share, -(a + b) * share * (1.0 - share)

    def decay(self) -> tuple[float, float]:
        return self.concentration, self.tail

    def middle(self) -> float:
        return math.log(self.scale * self.concentration / self.tail)

    def moment(self, power: float) -> float:
        a, b = self.concentration, self.tail
        if a + power <= 0.0 or b - power <= 0.0:
            return math.inf
        logs = math.lgamma(a + power) + math.lgamma(b - power) - math.lgamma(a) - math.lgamma(b)
        return math.exp(logs + power * math.log(self.scale))

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        over, under = (
            torch._standard_gamma(torch.full_like(like, a), generator=generator)
            for a in (self.concentration, self.tail)
        )
        return self.scale * over / under


_FAMILIES = {cls.__name__: cls for cls in (BetaPrime, Gamma, HalfCauchy, HalfNormal, InverseGamma)}


@answering
def from_dict(record: Mapping[str, Any]) -> HyperPrior:
    """Return the hyper-prior that `to_dict` described.

    Args:
        record: Its family and numbers.

    Returns:
        The hyper-prior.

    Raises:
        InvalidArgumentError: If there is no such family, or the numbers are not its own.

    Example:
        >>> from_dict({"family": "HalfNormal", "scale": 0.1, "of": "scale"})
        HalfNormal(scale=0.1, of='scale')
    """
    family = str(record.get("family"))
    if family not in _FAMILIES:
        raise InvalidArgumentError(
            f"record: expected the family one of {', '.join(_FAMILIES)}, got {family!r}{nearest(family, _FAMILIES)}."
        )
    made: HyperPrior = _FAMILIES[family](**{str(name): value for name, value in record.items() if name != "family"})
    return made
