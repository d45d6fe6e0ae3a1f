"""The MAP objective of a whole data set as a function of one flat vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bayesreg.errors import UnsupportedError
from bayesreg.likelihoods import Likelihood
from bayesreg.likelihoods.output import tensor_output
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Flat, Prior, joint
from bayesreg.priors.base import require_map

__all__ = ["FullBatchProblem"]

_FLAT = Flat()


class FullBatchProblem:
    """J(θ) = mean NLL + (1/n) Σ penalties, split into a smooth and a kinked part, over a flat θ.

    Args:
        model: The model; must compute the same output twice (no dropout, no batch statistics).
        prior: The prior.
        likelihood: The likelihood; its own parameters are part of θ, without a prior.
        batches: All the data.
        num_data: n.

    Raises:
        UnsupportedError: If the model is random or depends on batch statistics.
    """

    def __init__(
        self,
        model: nn.Module,
        prior: ModelPrior,
        likelihood: Likelihood,
        batches: Sequence[tuple[Tensor, Tensor]],
        num_data: int,
    ) -> None:
        _refuse_random(model)
        self.model, self.likelihood, self.batches = model, likelihood, batches
        self.scale = 1.0 / num_data
        self.examples = sum(len(target) for _, target in batches)
        active = prior.active()
        self.names = [entry.name for entry, _ in active]
        self.parameters: list[Tensor] = [entry.parameter for entry, _ in active]
        self.priors: list[Prior] = [p for _, p in active]
        for name, p in zip(self.names, self.priors, strict=True):
            require_map(p, name)
            if any(h.requires_grad for h in p.parameters()):
                raise UnsupportedError(
                    "a prior has a learned hyper-parameter: maximising the joint density over weights and their scale "
                    "collapses; fix the scale, or integrate it out: "
                    "br.HierarchicalGaussian(br.hyperpriors.InverseGamma(concentration, rate))."
                )
        for name, parameter in likelihood.named_parameters():
            if not parameter.requires_grad:
                continue
            self.names.append(f"likelihood.{name}")
            self.parameters.append(parameter)
            self.priors.append(_FLAT)
        self._sizes = [p.numel() for p in self.parameters]
        self.kinked = [not p.traits.smooth for p in self.priors]
        dtypes = {p.dtype for p in self.parameters}
        self.dtype = torch.float64 if torch.float64 in dtypes else torch.float32

    # -- flat vectors ----------------------------------------------------------------------------------

    def get(self) -> Tensor:
        """Return the current parameters as one vector."""
        return torch.cat([p.detach().reshape(-1).to(self.dtype) for p in self.parameters])

    @torch.no_grad()
    def set(self, flat: Tensor) -> None:
        """Write a vector into the parameters."""
        for parameter, part in zip(self.parameters, flat.split(self._sizes), strict=True):
            parameter.copy_(part.reshape(parameter.shape))

    def _parts(self, flat: Tensor) -> list[Tensor]:
        return [v.reshape(p.shape) for v, p in zip(flat.split(self._sizes), self.parameters, strict=True)]

    # -- the smooth part -------------------------------------------------------------------------------

    def mean_nll(self) -> Tensor:
        """Return the mean NLL at the current parameters, differentiable."""
        terms = [self.likelihood.nll(tensor_output(self.model, x), y).sum() for x, y in self.batches]
        return torch.stack(terms).sum() / self.examples

    def value_and_grad(self, flat: Tensor) -> tuple[float, Tensor]:
        """Return value and gradient of the smooth part: mean NLL + (1/n) · penalties without kinks."""
        self.set(flat)
        with torch.enable_grad():
            nll = self.mean_nll()
            grads = torch.autograd.grad(nll, self.parameters, allow_unused=True)
        total = float(nll.detach())
        # Copies: autograd may give two parameters one tensor, or an expanded one, and the priors add to them in place.
        found = [torch.zeros_like(p) if g is None else g.clone() for g, p in zip(grads, self.parameters, strict=True)]
        total += self.scale * self._smooth_penalty()
        smooth, values = self._smooth()
        joint.add_gradients_(
            smooth, [g for g, kinked in zip(found, self.kinked, strict=True) if not kinked], values, self.scale
        )
        return total, torch.cat([g.detach().reshape(-1).to(self.dtype) for g in found])

    @torch.no_grad()
    def value(self, flat: Tensor) -> float:
        """Return the value of the smooth part."""
        self.set(flat)
        return float(self.mean_nll()) + self.scale * self._smooth_penalty()

    def _smooth(self) -> tuple[list[Prior], list[Tensor]]:
        """Return the priors without kinks and their parameters' values."""
        pairs = [(q, p) for q, p, kinked in zip(self.priors, self.parameters, self.kinked, strict=True) if not kinked]
        return [q for q, _ in pairs], [p.detach() for _, p in pairs]

    @torch.no_grad()
    def _smooth_penalty(self) -> float:
        return sum(float(term) for term, _ in joint.penalty_terms(*self._smooth()))

    def hessian_times(self, flat: Tensor, direction: Tensor) -> Tensor:
        """Return Hessian · direction of the objective, off the kinks of its priors."""
        self.set(flat)
        with torch.enable_grad():
            grads = torch.autograd.grad(self.mean_nll(), self.parameters, create_graph=True, allow_unused=True)
            inner = [
                (g * v).sum()
                for g, v in zip(grads, self._parts(direction), strict=True)
                if g is not None and g.requires_grad
            ]
            second: Sequence[Tensor | None] = [None] * len(self.parameters)
            if inner:
                second = torch.autograd.grad(torch.stack(inner).sum(), self.parameters, allow_unused=True)
        product = torch.cat([
            (torch.zeros_like(p) if s is None else s.detach()).reshape(-1).to(self.dtype)
            for s, p in zip(second, self.parameters, strict=True)
        ])
        curved = joint.curvature_products(self.priors, self._parts(flat), self._parts(direction))
        return product + self.scale * torch.cat([part.reshape(-1).to(self.dtype) for part in curved])

    # -- the kinked part -------------------------------------------------------------------------------

    def _kinked_slices(self, flat: Tensor) -> list[tuple[slice, Prior, Tensor]]:
        found, start = [], 0
        for prior, part, kinked, size in zip(self.priors, self._parts(flat), self.kinked, self._sizes, strict=True):
            if kinked:
                found.append((slice(start, start + size), prior, part))
            start += size
        return found

    def kinked_value(self, flat: Tensor) -> float:
        """Return (1/n) · penalties of the priors with kinks."""
        return self.scale * sum(float(prior.penalty(part)) for _, prior, part in self._kinked_slices(flat))

    def prox(self, flat: Tensor, step: float) -> Tensor:
        """Return the proximal point of the kinked part."""
        result = flat.clone()
        for at, prior, part in self._kinked_slices(flat):
            result[at] = prior.prox(part, step * self.scale).reshape(-1)
        return result

    def inside(self, flat: Tensor) -> Tensor:
        """Return the vector with coordinates beyond a boundary moved onto it."""
        result = flat.clone()
        for at, prior, part in self._kinked_slices(flat):
            result[at] = prior.kept_on_side(part, part).reshape(-1)
        return result

    def free(self, flat: Tensor) -> Tensor:
        """Return which coordinates are not at a kink."""
        mask = torch.ones_like(flat, dtype=torch.bool)
        for at, prior, part in self._kinked_slices(flat):
            mask[at] = ~prior.at_kink(part).reshape(-1)
        return mask

    def slope(self, flat: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of the whole objective where it exists, given that of the smooth part."""
        total = grad.clone()
        for at, prior, part in self._kinked_slices(flat):
            extra = torch.zeros_like(part)
            prior.add_grad_([extra], [part], self.scale)
            total[at] += extra.reshape(-1)
        return total

    def residual(self, flat: Tensor, grad: Tensor) -> float:
        """Return the KKT residual: the largest distance of the subdifferential from 0, per example."""
        distance = grad.abs()
        for at, prior, part in self._kinked_slices(flat):
            distance[at] = prior.subdiff_distance(part, grad[at].reshape(part.shape), self.scale).reshape(-1)
        return float(distance.max()) if len(distance) else 0.0


def _refuse_random(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise UnsupportedError(
                f"{name or 'model'}: a full-batch solver needs a model that computes the same output twice, and "
                f"{type(module).__name__}(p={module.p}) does not; set p=0 or train with a stochastic optimizer."
            )
        dropped = module.dropout if isinstance(module, nn.RNNBase | nn.MultiheadAttention) else 0.0
        if dropped:
            raise UnsupportedError(
                f"{name or 'model'}: a full-batch solver needs a model that computes the same output twice, and "
                f"{type(module).__name__}(dropout={dropped}) does not; set it to 0 or use a stochastic optimizer."
            )
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise UnsupportedError(
                f"{name or 'model'}: a full-batch solver cannot train through {type(module).__name__}, whose output "
                f"depends on the batch; train with a stochastic optimizer."
            )
