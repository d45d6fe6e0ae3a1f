"""The MAP objective of a whole data set as a function of one flat vector."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.data import Batch, Reading
from bayesreg.errors import UnsupportedError
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Prior
from bayesreg.priors.contract.asking import is_flat, learns, require_map
from bayesreg.priors.contract.joint import Term
from bayesreg.priors.contract.prior import kept_on_side

__all__ = ["FullBatchProblem", "refuse_random"]


class FullBatchProblem:
    """J(θ) = mean NLL + s · Σ penalties, s = 1/n, split into a smooth and a kinked part, over a flat θ.

    Args:
        model: The model; must compute the same output twice (no dropout, no batch statistics).
        prior: The prior.
        reading: The likelihood, as it reads batches; its own parameters are part of θ, without a prior.
        batches: All the data.
        num_data: n, or s.

    Raises:
        UnsupportedError: If the model is random or depends on batch statistics.
    """

    def __init__(
        self,
        model: nn.Module,
        prior: ModelPrior,
        reading: Reading,
        batches: Sequence[Batch],
        num_data: int | LossScale,
    ) -> None:
        refuse_random(model)
        self.model, self.reading, self.batches = model, reading, batches
        self.likelihood = reading.likelihood
        self.scale = as_loss_scale(num_data).value
        self.examples = sum(map(reading.count, batches))
        active = prior.active()
        for entry, belief in active:
            require_map(belief, entry.name)
            if learns(belief):
                raise UnsupportedError(
                    "a prior has a learned hyper-parameter: maximising the joint density over weights and their scale "
                    "collapses; fix the scale, or integrate it out: "
                    "br.HierarchicalGaussian(br.hyperpriors.InverseGamma(concentration, rate))."
                )
        own = [(f"the likelihood's {name}", p) for name, p in self.likelihood.named_parameters() if p.requires_grad]
        #: What is believed of each parameter that has a prior.
        self.beliefs = {entry.name: belief for entry, belief in active}
        self.names = [*self.beliefs, *(name for name, _ in own)]
        self.parameters: list[Tensor] = [*(entry.parameter for entry, _ in active), *(p for _, p in own)]
        #: The priors with kinks or boundaries, each on one parameter.
        self.kinked = {entry.name: kinked for entry, kinked in prior.kinked()}
        flat = {entry.name for entry, belief in active if is_flat(belief)}
        self._smooth = [
            term for term, _ in prior.active_terms() if term.names[0] not in self.kinked and not flat >= set(term.names)
        ]
        ends = list(itertools.accumulate((p.numel() for p in self.parameters), initial=0))
        #: Where each of the parameters is in a flat vector.
        self.places = [slice(start, end) for start, end in itertools.pairwise(ends)]
        self._kinked_at = [
            (name, at, parameter.shape)
            for name, at, parameter in zip(self.names, self.places, self.parameters, strict=True)
            if name in self.kinked
        ]
        dtypes = {p.dtype for p in self.parameters}
        self.dtype = torch.float64 if torch.float64 in dtypes else torch.float32

    # -- flat vectors ----------------------------------------------------------------------------------

    def get(self) -> Tensor:
        """Return the current parameters as one vector."""
        return torch.cat([p.detach().reshape(-1).to(self.dtype) for p in self.parameters])

    @torch.no_grad()
    def set(self, flat: Tensor) -> None:
        """Write a vector into the parameters."""
        for parameter, at in zip(self.parameters, self.places, strict=True):
            parameter.copy_(flat[at].view(parameter.shape))

    def _parts(self, flat: Tensor) -> list[Tensor]:
        return [flat[at].view(p.shape) for at, p in zip(self.places, self.parameters, strict=True)]

    # -- the smooth part -------------------------------------------------------------------------------

    def mean_nll(self) -> Tensor:
        """Return the mean NLL at the current parameters, differentiable."""
        terms = [self.reading.nll(self.reading.output(self.model, batch), batch) for batch in self.batches]
        return torch.stack(terms).sum() / self.examples

    def _with_own(self, nll: Tensor) -> Tensor:
        """Add what is believed of the likelihood's own parameters."""
        own = self.likelihood.penalty()
        return nll if own is None else nll + self.scale * own.to(nll)

    def value_and_grad(self, flat: Tensor) -> tuple[float, Tensor]:
        """Return value and gradient of the smooth part: mean NLL + s · penalties without kinks."""
        self.set(flat)
        with torch.enable_grad():
            nll = self.mean_nll()
            grads = torch.autograd.grad(self._with_own(nll), self.parameters, allow_unused=True)
        total = float(nll.detach())
        # Copies: autograd may give two parameters one tensor, or an expanded one, and the priors add to them in place.
        found = [torch.zeros_like(p) if g is None else g.clone() for g, p in zip(grads, self.parameters, strict=True)]
        total += self.scale * self._smooth_penalty()
        grads_of, values = dict(zip(self.names, found, strict=True)), self._values()
        for term in self._smooth:
            term.add_grad_(_of(term, grads_of), _of(term, values), self.scale)
        return total, torch.cat([g.detach().reshape(-1).to(self.dtype) for g in found])

    @torch.no_grad()
    def value(self, flat: Tensor) -> float:
        """Return the value of the smooth part."""
        self.set(flat)
        return float(self.mean_nll()) + self.scale * self._smooth_penalty()

    def _values(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in zip(self.names, self.parameters, strict=True)}

    @torch.no_grad()
    def _smooth_penalty(self) -> float:
        values = self._values()
        own = self.likelihood.penalty()
        rest = 0.0 if own is None else float(own)
        return rest + sum(float(term.penalty(_of(term, values))) for term in self._smooth)

    def hessian_times(self, flat: Tensor, direction: Tensor) -> Tensor:
        """Return Hessian · direction of the objective, off the kinks of its priors."""
        self.set(flat)
        with torch.enable_grad():
            grads = torch.autograd.grad(
                self._with_own(self.mean_nll()), self.parameters, create_graph=True, allow_unused=True
            )
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
        values, vectors = (dict(zip(self.names, self._parts(v), strict=True)) for v in (flat, direction))
        curved = {name: torch.zeros_like(p, dtype=self.dtype) for name, p in values.items()}
        for term in self._smooth:
            curved.update(term.curvature_times(_of(term, values), _of(term, vectors)))
        for name, prior in self.kinked.items():
            curved[name] = prior.curvature_times(values[name], vectors[name])
        return product + self.scale * torch.cat([curved[name].reshape(-1).to(self.dtype) for name in self.names])

    # -- the kinked part -------------------------------------------------------------------------------

    def _kinked_slices(self, flat: Tensor) -> list[tuple[slice, Prior, Tensor]]:
        return [(at, self.kinked[name], flat[at].view(shape)) for name, at, shape in self._kinked_at]

    def kinked_value(self, flat: Tensor) -> float:
        """Return s · penalties of the priors with kinks."""
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
            result[at] = kept_on_side(prior, part, part).reshape(-1)
        return result

    def has_no_boundary(self) -> bool:
        """Return whether every prior has a density on both sides of its kinks."""
        ones = torch.ones_like(self.get())
        return all(torch.equal(self.inside(side), side) for side in (ones, -ones))

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


def _of(term: Term, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[name] for name in term.names if name in tensors}


def refuse_random(model: nn.Module) -> None:
    """Raise if a model computes another output the second time, or one that depends on the batch.

    Args:
        model: The model.

    Raises:
        UnsupportedError: If it does.
    """
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
