"""Weights whose variances share an unknown rate: the integrals of `R2D2`, in float64 by SciPy's Bessel functions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, kve, logsumexp

__all__ = ["Moments", "SharedRate"]

Array = npt.NDArray[np.float64]

# Drop of the integrand, in nats, at the ends of the trapezoidal rule, and the longest step between its nodes.
_DROP, _STEP, _LEAST = 40.0, 0.22, 96
# Elements of an array over rows, weights and nodes that is made at a time.
_PIECE = 2**21


class Moments(NamedTuple):
    """What the density of each row is near its weights.

    Attributes:
        slope: d log p / dr, (rows, p).
        weights: Of the nodes, (rows, nodes).
        slopes: d log f / dr at each node, (rows, p, nodes).
        bends: d² log f / dr² at each node, (rows, p, nodes).
    """

    slope: Array
    weights: Array
    slopes: Array
    bends: Array

    def diagonal(self) -> Array:
        """Return the diagonal of the Hessian of log p, (rows, p)."""
        spread = self.slopes - self.slope[:, :, None]
        return np.asarray(np.einsum("rk,rpk->rp", self.weights, self.bends + np.square(spread)))

    def times(self, vector: Array) -> Array:
        """Return the Hessian of log p times a vector, both (rows, p)."""
        spread = self.slopes - self.slope[:, :, None]
        along = np.einsum("rpk,rp->rk", spread, vector)
        bent = np.einsum("rk,rpk->rp", self.weights, self.bends) * vector
        return np.asarray(bent + np.einsum("rk,rpk->rp", self.weights * along, spread))


@dataclass(frozen=True)
class SharedRate:
    """r_j | λ_j ~ N(0, s²·λ_j), λ_j | ξ ~ Gamma(concentration, ξ), ξ ~ Gamma(tail, 1), all λ_j and ξ integrated out.

    Given ξ a weight has the density 2·(z/2)^ν·K_ν(z)·√ξ/(s·√(2π)·Γ(a)) with ν = a − ½ and z = √(2ξ)·|r|/s; the
    integral over log ξ, whose integrand has one peak and falls off exponentially or faster, is the trapezoidal rule.

    Attributes:
        concentration: a > 0.
        tail: b > 0.
        scale: s > 0.
    """

    concentration: float
    tail: float
    scale: float

    @property
    def order(self) -> float:
        """Of the Bessel function: a − ½."""
        return self.concentration - 0.5

    def log_peak(self, size: int) -> float:
        """Return log p where all of so many weights are 0; for concentrations over ½."""
        one = gammaln(self.order) - gammaln(self.concentration) - 0.5 * math.log(2.0 * math.pi) - math.log(self.scale)
        return float(size * one + gammaln(self.tail + 0.5 * size) - gammaln(self.tail))

    # -- what is asked of rows -------------------------------------------------------------------------

    def log_density(self, r: Array) -> Array:
        """Return log p of each row of (rows, p), infinite where a weight is 0 and the concentration at most ½."""
        return np.concatenate([self._log_density(rows, t) for rows, t in self._pieces(r)])

    def slope(self, r: Array) -> Array:
        """Return d log p / dr, (rows, p); 0 where there is none."""
        return np.concatenate([self._moments(rows, t).slope for rows, t in self._pieces(r)])

    def diagonal(self, r: Array) -> Array:
        """Return the diagonal of the Hessian of log p, (rows, p)."""
        return np.concatenate([self._moments(rows, t).diagonal() for rows, t in self._pieces(r)])

    def times(self, r: Array, vector: Array) -> Array:
        """Return the Hessian of log p times a vector, both (rows, p)."""
        done, found = 0, []
        for rows, t in self._pieces(r):
            found.append(self._moments(rows, t).times(vector[done : done + len(rows)]))
            done += len(rows)
        return np.concatenate(found)

    # -- given the rate --------------------------------------------------------------------------------

    @property
    def _small(self) -> float:
        """The least argument at which no Bessel function overflows."""
        nu = self.order
        return 1e-100 if nu <= 2.0 else 2.0 * math.exp((math.lgamma(nu) - 690.0) / nu)

    def _log_kernel(self, z: Array) -> Array:
        """Return log[(z/2)^ν·K_ν(z)]."""
        nu, least = self.order, self._small
        safe = np.maximum(z, least)
        found = nu * np.log(0.5 * safe) + np.log(kve(nu, safe)) - safe
        low = np.minimum(z, least)
        with np.errstate(divide="ignore"):
            if nu > 1.0:
                near = math.lgamma(nu) - math.log(2.0) + np.log1p(-np.square(low) / (4.0 * (nu - 1.0)))
            elif nu == 0.0:
                near = np.log(-np.log(0.5 * low) - np.euler_gamma)
            elif nu > 0.0:
                near = np.full_like(z, math.lgamma(nu) - math.log(2.0))
            else:
                near = math.lgamma(-nu) - math.log(2.0) + 2.0 * nu * np.log(0.5 * low)
        return np.where(z < least, near, found)

    def _ratio(self, z: Array) -> Array:
        """Return K_{ν−1}(z)/K_ν(z), minus the slope of the kernel's logarithm; 0 at 0."""
        nu, least = self.order, self._small
        safe = np.maximum(z, least)
        found = kve(nu - 1.0, safe) / kve(nu, safe)
        if nu > 1.0:
            found = np.where(z < least, z / (2.0 * (nu - 1.0)), found)
        return np.where(z > 0.0, found, 0.0)

    def _z(self, r: Array, t: Array) -> Array:
        """Return √(2ξ)·|r|/s for r of (rows, p) and t = log ξ of (rows, k): (rows, p, k)."""
        return np.asarray(math.sqrt(2.0) / self.scale * np.abs(r)[:, :, None] * np.exp(0.5 * t)[:, None, :])

    def _log_integrand(self, r: Array, t: Array) -> Array:
        """Return the logarithm of what is integrated over t, (rows, k)."""
        a, b, p = self.concentration, self.tail, r.shape[1]
        each = 0.5 * math.log(2.0) - math.log(self.scale) - 0.5 * math.log(math.pi) - gammaln(a)
        kernels = self._log_kernel(self._z(r, t)).sum(1)
        return np.asarray(p * (each + 0.5 * t) + kernels + b * t - np.exp(t) - gammaln(b))

    # -- the integral ----------------------------------------------------------------------------------

    def _pieces(self, r: Array) -> Iterator[tuple[Array, Array]]:
        """Yield some rows at a time, and the logarithms of the rate at their nodes."""
        at_once = max(1, _PIECE // (max(1, r.shape[1]) * 256))
        for start in range(0, len(r), at_once):
            rows = r[start : start + at_once]
            yield rows, self._nodes(rows)

    def _nodes(self, r: Array) -> Array:
        p = r.shape[1]
        # The integrand rises as long as ξ + Σ z·ρ/2 < b + p/2, so nowhere beyond ξ = b + p/2.
        high = np.full((len(r), 1), math.log(self.tail + 0.5 * p))
        low = high - 1400.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            z = self._z(r, middle)
            rises = self.tail + 0.5 * p - np.exp(middle) - 0.5 * (z * self._ratio(z)).sum(1) > 0.0
            low, high = np.where(rises, middle, low), np.where(rises, high, middle)
        least = self._log_integrand(r, low) - _DROP
        ends = []
        for sign in (-1.0, 1.0):
            near, far = np.zeros_like(low), np.full_like(low, 0.5)
            for _ in range(14):
                far = np.where(self._log_integrand(r, low + sign * far) > least, 2.0 * far, far)
            for _ in range(10):
                middle = 0.5 * (near + far)
                short = self._log_integrand(r, low + sign * middle) > least
                near, far = np.where(short, middle, near), np.where(short, far, middle)
            ends.append(low + sign * far)
        count = max(_LEAST, math.ceil(float((ends[1] - ends[0]).max()) / _STEP))
        return np.asarray(ends[0] + (ends[1] - ends[0]) * np.linspace(0.0, 1.0, count))

    def _log_density(self, r: Array, t: Array) -> Array:
        found = logsumexp(self._log_integrand(r, t), axis=1) + np.log(t[:, 1] - t[:, 0])
        return np.where(self._at_pole(r), np.inf, found)

    def _at_pole(self, r: Array) -> npt.NDArray[np.bool_]:
        return np.asarray((r == 0.0).any(1) & (self.order <= 0.0))

    def _moments(self, r: Array, t: Array) -> Moments:
        logs = self._log_integrand(r, t)
        with np.errstate(invalid="ignore"):
            weights = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
        z, c = self._z(r, t), math.sqrt(2.0) / self.scale * np.exp(0.5 * t)[:, None, :]
        ratio, nu = self._ratio(z), self.order
        safe = np.maximum(z, 1e-150)
        at_zero = -0.5 / (nu - 1.0) if nu > 1.0 else 0.0
        bent = np.where(z > 0.0, 1.0 - np.square(ratio) - (2.0 * nu - 1.0) * ratio / safe, at_zero)
        slopes = -ratio * c * np.sign(r)[:, :, None]
        bends = np.square(c) * bent
        away = self._at_pole(r)
        weights[away] = 0.0
        return Moments((weights[:, None, :] * slopes).sum(2), weights, slopes, bends)
