"""The objective of a linear layer, with gradient and Hessian in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bayesreg.likelihoods.local import Local
from bayesreg.priors import Prior
from bayesreg.priors.contract.asking import is_flat
from bayesreg.trainer.full_batch.linear.kinks import Kinks, kinks_of, serves
from bayesreg.trainer.full_batch.linear.view import LinearView
from bayesreg.trainer.full_batch.problem import FullBatchProblem

__all__ = ["LinearProblem"]


class LinearProblem(FullBatchProblem):
    """The same function as `FullBatchProblem`, without automatic differentiation.

    Args:
        view: The model, as a linear layer.
        *objective: As `FullBatchProblem` takes it.
        least_own: The least that the likelihood's own parameter (log τ) may become, where the data would have no noise.

    Raises:
        UnsupportedError: As there.
    """

    def __init__(self, view: LinearView, *objective: Any, least_own: float | None = None) -> None:
        super().__init__(*objective)
        self.least_own = least_own
        self.view = view
        self.features = view.features.to(self.dtype)
        self.target = view.target
        self.weight = None if view.weight is None else view.weight.to(self.dtype)
        self.outputs = view.layer.out_features
        #: What one nat of the NLL counts in the objective.
        self.per = 1.0 / self.examples
        at = {id(parameter): index for index, parameter in enumerate(self.parameters)}
        where = self.places
        self.at_weight = where[at[id(view.layer.weight)]]
        self.at_bias = None if view.layer.bias is None else where[at[id(view.layer.bias)]]
        own = [p for p in self.likelihood.parameters() if p.requires_grad]
        #: Where the likelihood's own parameter is, which `minimise_newton` finds around all others.
        self.at_own = where[at[id(own[0])]] if own else None
        #: What is believed of the weights; None where there is no prior on them.
        pairs = zip(self.beliefs.values(), where, strict=False)
        self.on_weight = next((belief for belief, place in pairs if place == self.at_weight), None)
        self._curved = [
            (where[at], belief, self.parameters[at].shape)
            for at, belief in enumerate(self.beliefs.values())
            if isinstance(belief, Prior) and not is_flat(belief)
        ]
        #: The kinks, where all of them are on the weights, and they are L1 terms or norms of groups.
        self.kinks: Kinks | None = None
        (kinked, *others) = self.kinked.values() or [None]
        if kinked is not None and not others and kinked is self.on_weight and serves(kinked):
            self.kinks = kinks_of(kinked, view.layer.weight.shape)
        # In NumPy, whose calls take less time on what is small.
        on_cpu = self.features.device.type == "cpu" and self.dtype == torch.float64
        self._small = self.kinks if on_cpu and self.kinks is not None and self.kinks.groups is None else None
        self._own_scale = self.scale
        self._last: tuple[Tensor, Local] | None = None
        self._last_grad: tuple[Tensor, tuple[float, Tensor]] | None = None

    def at_strength(self, factor: float) -> None:
        """Multiply the penalties of all priors by a factor; what is known of the data stays.

        Args:
            factor: > 0, of the penalties as they are.
        """
        self.scale, self._last_grad = factor * self._own_scale, None

    def data_nll(self, flat: Tensor) -> float:
        """Return the mean NLL of the data at a place."""
        return self._nll(self.local(flat))

    # -- at one place -----------------------------------------------------------------------------------

    def matrix(self, flat: Tensor) -> Tensor:
        """Return the weights in a flat vector, (outputs, d)."""
        return flat[self.at_weight].reshape(self.outputs, -1)

    def _output(self, flat: Tensor) -> Tensor:
        weight = self.matrix(flat).T
        found = (
            self.features @ weight if self.at_bias is None else torch.addmm(flat[self.at_bias], self.features, weight)
        )
        view = self.view
        return found if view.gain == 1.0 and view.shift == 0.0 else view.shift + view.gain * found

    @torch.no_grad()
    def local(self, flat: Tensor) -> Local:
        """Return NLL, slope and Hessian of each example in the layer's output, before weights of examples."""
        if self.at_own is not None:
            self.set(flat)
        if self._last is not None and torch.equal(self._last[0], flat):
            return self._last[1]
        found = self.likelihood._local(self._output(flat), self.target)
        assert found is not None
        gain = self.view.gain
        if gain != 1.0:
            outer = None if found.outer is None else gain * found.outer
            found = Local(found.nll, gain * found.slope, gain**2 * found.diagonal, outer)
        self._last = (flat.clone(), found)
        return found

    def _nll(self, local: Local) -> float:
        return self.per * float(local.nll.sum() if self.weight is None else local.nll @ self.weight)

    def _weighted(self, rows: Tensor) -> Tensor:
        return rows if self.weight is None else rows * self.weight[:, None]

    def _gathered(self, rows: Tensor, flat: Tensor) -> Tensor:
        """Return what slopes in the outputs are as slopes in the parameters."""
        found = torch.zeros_like(flat)
        rows = self._weighted(rows)
        torch.mul(rows.T @ self.features, self.per, out=found[self.at_weight].view(self.outputs, -1))
        if self.at_bias is not None:
            torch.mul(rows.sum(0), self.per, out=found[self.at_bias])
        return found

    # -- the objective ----------------------------------------------------------------------------------

    def value_and_grad(self, flat: Tensor) -> tuple[float, Tensor]:
        """Return value and gradient of the smooth part; see `FullBatchProblem.value_and_grad`."""
        self.set(flat)
        return self.smooth_part(flat)

    def smooth_part(self, flat: Tensor) -> tuple[float, Tensor]:
        """Return them without a trace in the model, whose weights no closed derivative needs."""
        if self._last_grad is not None and torch.equal(self._last_grad[0], flat):
            value, grad = self._last_grad[1]
            return value, grad.clone()
        local = self.local(flat)
        grad = self._gathered(local.slope, flat)
        total = self._nll(local)
        if self.at_own is not None:
            grad[self.at_own] = self._own_slope(flat)
            own = self.likelihood.penalty()
            total += 0.0 if own is None else self.scale * float(own.detach())
        values: dict[str, Tensor] = {}
        grads: dict[str, Tensor | None] = {}
        if self._smooth:
            values.update(zip(self.names, self._parts(flat), strict=True))
            grads.update(zip(self.names, self._parts(grad), strict=True))
        for term in self._smooth:
            total += self.scale * float(term.penalty(values))
            term.add_grad_(grads, values, self.scale)
        self._last_grad = (flat.clone(), (total, grad.clone()))
        return total, grad

    @torch.no_grad()
    def value(self, flat: Tensor) -> float:
        """Return the value of the smooth part."""
        self.set(flat)
        total = self._nll(self.local(flat))
        return total + self.scale * self._smooth_penalty()

    def _own_slope(self, flat: Tensor) -> Tensor:
        """Return the slope in the likelihood's own parameter."""
        (own,) = [p for p in self.likelihood.parameters() if p.requires_grad]
        with torch.enable_grad():
            each = self.likelihood.nll(self._output(flat).detach(), self.target)
            nll = self.per * (each.sum() if self.weight is None else each @ self.weight)
            (slope,) = torch.autograd.grad(self._with_own(nll), own)
        return slope

    def at_least_own(self, flat: Tensor) -> bool:
        """Return whether the likelihood's own parameter rests on the least that it may be."""
        return self.at_own is not None and self.least_own is not None and float(flat[self.at_own]) <= self.least_own

    def residual(self, flat: Tensor, grad: Tensor) -> float:
        """Return the KKT residual; see `FullBatchProblem.residual`."""
        if self.at_least_own(flat):
            grad = grad.clone()
            grad[self.at_own] = grad[self.at_own].clamp_max(0.0)
        if self._small is None:
            return super().residual(flat, grad)
        distance = grad.abs()
        weights, slopes = self.matrix(flat).numpy(), self.matrix(grad).numpy()
        self.matrix(distance).numpy()[:] = self._small.distance(weights, slopes, self.scale)
        return float(distance.max())

    def kinked_value(self, flat: Tensor) -> float:
        """Return s · penalties of the priors with kinks."""
        if self._small is None:
            return super().kinked_value(flat)
        return self.scale * self._small.penalty(self.matrix(flat).numpy())

    def hessian_times(self, flat: Tensor, direction: Tensor) -> Tensor:
        """Return Hessian · direction in the weights, off the kinks; the likelihood's own parameter stays."""
        local = self.local(flat)
        moved = self.features @ self.matrix(direction).T
        if self.at_bias is not None:
            moved += direction[self.at_bias]
        rows = local.diagonal * moved
        if local.outer is not None:
            rows -= local.outer * (local.outer * moved).sum(1, keepdim=True)
        found = self._gathered(rows, flat)
        values, vectors = (dict(zip(self.names, self._parts(v), strict=True)) for v in (flat, direction))
        images = dict(zip(self.names, self._parts(found), strict=True))
        for term in self._smooth:
            for name, curved in term.curvature_times(values, vectors).items():
                images[name].add_(curved, alpha=self.scale)
        for name, prior in self.kinked.items():
            images[name].add_(prior.curvature_times(values[name], vectors[name]), alpha=self.scale)
        return found

    def curvature(self, flat: Tensor) -> Tensor:
        """Return the diagonal of the Hessian of the priors."""
        found = torch.zeros_like(flat)
        for at, prior, shape in self._curved:
            found[at] = self.scale * prior.curvature(flat[at].reshape(shape)).reshape(-1)
        return found

    def bias_curvature(self, flat: Tensor) -> Tensor | None:
        """Return the part of it on the biases, not below 0; None where they are flat, or there are none."""
        for at, prior, shape in self._curved:
            if at == self.at_bias:
                return self.scale * prior.curvature(flat[at].reshape(shape)).to(flat).clamp_min(0.0)
        return None
