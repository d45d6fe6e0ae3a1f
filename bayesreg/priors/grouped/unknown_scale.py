"""What the squares of a group of weights say where the scale they share is not known: maximised or integrated over."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from bayesreg.hyperpriors import Gamma, HyperPrior, InverseGamma
from bayesreg.priors.numerics.roots import increasing_root

__all__ = ["ScaleCoordinate", "UnknownScale"]

ScaleCoordinate: TypeAlias = Literal["log", "scale", "variance", "precision", "noncentered"]

# −log |d log σ / d coordinate| = this · log σ + const.
_JACOBIANS = {"log": 0, "scale": 1, "variance": 2, "precision": -2, "noncentered": 0}
# Drop of the integrand, in nats, at the ends of the trapezoidal rule, and its nodes.
_DROP, _NODES = 46.0, 801
_CHUNK = 2048


@dataclass(frozen=True)
class UnknownScale:
    """−log p of m weights with sum of squares S, as a function of S alone.

    h(η, S) = ½·S·e^(−2η) + drift·η − log p(η) with η = log σ: its minimum over η for a coordinate, −log ∫ e^(−h) for
    None. drift is m, plus what the coordinate's Jacobian adds, and without m for w = σ·z (noncentered).

    Args:
        hyper: The density of σ.
        size: m.
        coordinate: What the maximum is over; None integrates.
    """

    hyper: HyperPrior
    size: int
    coordinate: ScaleCoordinate | None

    @property
    def drift(self) -> int:
        """The slope of h in η, but for the squares and the hyper-prior."""
        if self.coordinate is None:
            return self.size
        return _JACOBIANS[self.coordinate] + (0 if self.coordinate == "noncentered" else self.size)

    @property
    def bounded(self) -> bool:
        """Whether −log p has a minimum at S = 0, for every m."""
        return self.coordinate == "noncentered" or self.hyper.scale_decay()[0] == math.inf

    @property
    def has_largest(self) -> bool:
        """Whether the maximum over σ is not at ∞."""
        return self.drift + self.hyper.scale_decay()[1] > 0

    @property
    def conjugate(self) -> bool:
        """Whether the precision given the weights is Gamma again: Student-t marginals, closed forms."""
        kind, power = type(self.hyper), self.hyper.power
        return (kind is Gamma and power == -2) or (kind is InverseGamma and power == 2)

    def _conjugate(self) -> tuple[float, float]:
        assert isinstance(self.hyper, Gamma | InverseGamma)
        return self.hyper.concentration, self.hyper.rate

    # -- the three that a prior needs ------------------------------------------------------------------

    def penalty(self, squares: Tensor) -> Tensor:
        """Return −log p, differentiable twice: 0 at S = 0 where a coordinate or a conjugate hyper-prior bounds it.

        Args:
            squares: S of each group, in float64.

        Returns:
            Tensor of that shape, in nats.
        """
        if self.conjugate:
            a, b = self._conjugate()
            return 0.5 * (self.drift + 2.0 * a) * torch.log1p(squares / (2.0 * b))
        if self.coordinate is None:
            return -self._log_integrals(squares)
        whole = torch.cat([squares.reshape(-1), squares.new_zeros(1)])
        eta = self.log_scale(whole.detach())
        # One Newton step that autograd sees: it moves η no further, and carries dη/dS into the second derivative.
        slope, bend = self._slope(eta, whole)
        value = self._h(eta - slope / bend.detach(), whole)
        # Without a bound at 0: whole, and −∞ there.
        value = value - value[-1].detach() if self.bounded else torch.where(whole > 0, value, -math.inf)
        return value[:-1].reshape(squares.shape)

    @torch.no_grad()
    def precision(self, squares: Tensor) -> Tensor:
        """Return 2·d(−log p)/dS: 1/σ² at the maximum, or what is expected of it."""
        if self.coordinate is None and not self.conjugate:
            return self._moments(squares)[0]
        return torch.exp(-2.0 * self.log_scale(squares))

    @torch.no_grad()
    def precision_slope(self, squares: Tensor) -> Tensor:
        """Return the derivative of `precision` by S, <= 0."""
        if self.conjugate:
            a, b = self._conjugate()
            return -(self.drift + 2.0 * a) / (squares + 2.0 * b).square()
        if self.coordinate is None:
            mean, second = self._moments(squares)
            return -0.5 * (second - mean.square()).clamp_min(0.0)
        eta = self.log_scale(squares)
        return -2.0 * torch.exp(-4.0 * eta) / self._slope(eta, squares)[1]

    # -- maxima ----------------------------------------------------------------------------------------

    def _h(self, eta: Tensor, squares: Tensor) -> Tensor:
        pulled = torch.where(squares > 0, 0.5 * squares * torch.exp(-2.0 * eta), 0.0)
        return pulled + self.drift * eta - self.hyper.log_scale_density(eta)[0]

    def _slope(self, eta: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
        _, first, second = self.hyper.log_scale_density(eta)
        pulled = torch.where(squares > 0, squares * torch.exp(-2.0 * eta), 0.0)
        return self.drift - first - pulled, 2.0 * pulled - second

    @torch.no_grad()
    def log_scale(self, squares: Tensor) -> Tensor:
        """Return log σ at the maximum (of the integrand, where it is integrated over)."""
        if self.conjugate:
            a, b = self._conjugate()
            return 0.5 * torch.log((squares + 2.0 * b) / (self.drift + 2.0 * a))
        low, high, start = self._bracket(squares)
        return increasing_root(lambda eta: self._slope(eta, squares), low, high, start)

    def _bracket(self, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        middle = squares.new_full((), self.hyper.middle() / self.hyper.power)
        own = 0.5 * torch.log(torch.where(squares > 0, squares, torch.exp(2.0 * middle)) / max(self.size, 1))
        start = torch.maximum(own, middle.expand_as(own)) if self.coordinate == "noncentered" else own
        return torch.minimum(own, middle) - 60.0, torch.maximum(own, middle) + 60.0, start

    # -- integrals -------------------------------------------------------------------------------------

    def _nodes(self, squares: Tensor) -> Tensor:
        """Return log σ at the nodes: where the integrand, log-concave, is within e^−46 of its largest."""
        with torch.no_grad():
            low, high, _ = self._bracket(squares)
            low, high = low.clone(), high.clone()
            for _ in range(40):
                middle = 0.5 * (low + high)
                falls = self._slope(middle, squares)[0] < 0
                low, high = torch.where(falls, middle, low), torch.where(falls, high, middle)
            top, least = high, self._h(high, squares)
            ends = []
            for sign in (-1.0, 1.0):
                near, far = torch.zeros_like(top), torch.full_like(top, 1.0)
                for _ in range(10):
                    short = self._h(top + sign * far, squares) < least + _DROP
                    far = torch.where(short, 2.0 * far, far)
                for _ in range(20):
                    middle = 0.5 * (near + far)
                    short = self._h(top + sign * middle, squares) < least + _DROP
                    near, far = torch.where(short, middle, near), torch.where(short, far, middle)
                ends.append(top + sign * far)
            share = torch.linspace(0.0, 1.0, _NODES, dtype=squares.dtype, device=squares.device)
            return ends[0][:, None] + (ends[1] - ends[0])[:, None] * share

    def _terms(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Return log of step · integrand at the nodes, and the precisions there."""
        eta = self._nodes(squares.detach())
        step = (eta[:, 1] - eta[:, 0])[:, None]
        logs = -self._h(eta, squares[:, None]) - 0.5 * self.size * math.log(2.0 * math.pi) + step.log()
        return logs, torch.exp(-2.0 * eta)

    def _log_integrals(self, squares: Tensor) -> Tensor:
        found = [self._terms(part)[0].logsumexp(1) for part in squares.reshape(-1).split(_CHUNK)]
        whole = torch.cat(found).reshape(squares.shape)
        if self.bounded:
            return whole
        # At S = 0 the integral is infinite unless the density of σ vanishes fast enough there.
        return torch.where(squares > 0, whole, math.inf)

    def _moments(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[1/σ²] and E[1/σ⁴] given the weights."""
        means, seconds = [], []
        for part in squares.reshape(-1).split(_CHUNK):
            logs, precision = self._terms(part)
            share = logs.softmax(1)
            means.append((share * precision).sum(1))
            seconds.append((share * precision.square()).sum(1))
        return torch.cat(means).reshape(squares.shape), torch.cat(seconds).reshape(squares.shape)
