"""Adding the prior's gradient to `.grad`, many tensors per call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bayesreg._sharding import is_sharded, local
from bayesreg.errors import UnsupportedError
from bayesreg.priors import Gaussian, Prior
from bayesreg.routes.plan import GroupPlan, Planned

__all__ = ["Gradients"]

_WIDE = (torch.float32, torch.float64)


class Gradients:
    """What one param group's gradients receive before the step.

    Isotropic Gaussians become at most two passes over all their tensors at once, λθ and −λ·loc; where the optimizer's
    own decay does the first, only the second remains. Everything else goes family by family.

    Args:
        plan: The group's routes.
        s: The loss scale.
    """

    def __init__(self, plan: GroupPlan, s: float) -> None:
        self._s = s
        self._pulls: dict[float, list[Planned]] = {}
        self._centres: dict[float, list[Planned]] = {}
        self._rest: dict[int, tuple[Prior, list[Planned]]] = {}
        for member in plan.on("gradient", "native + centre"):
            native = member.route == "native + centre"
            prior = member.prior
            # In half precision λθ and λ·loc would cancel to nothing; add_grad_ takes the difference first, in float32.
            wide = native or member.parameter.dtype in _WIDE
            if not (isinstance(prior, Gaussian) and prior.scale.ndim == 0 and wide):
                self._rest.setdefault(id(prior), (prior, []))[1].append(member)
                continue
            strength = plan.decay if native else s / float(prior.scale) ** 2
            if not native:
                self._pulls.setdefault(strength, []).append(member)
            if bool((prior.loc != 0).any()):
                self._centres.setdefault(strength, []).append(member)

    def __bool__(self) -> bool:
        return bool(self._pulls or self._centres or self._rest)

    def add_(self, factor: float) -> None:
        """Add factor · s · ∇(−log p) to the gradients that exist.

        Args:
            factor: −1 for an optimizer that maximises, times the scale that a GradScaler has left on the gradients.
        """
        for strength, members in self._pulls.items():
            grads, values = _pairs(members)
            if grads:
                torch._foreach_add_(grads, values, alpha=factor * strength)
        for strength, members in self._centres.items():
            self._subtract_centres(members, factor * strength)
        for prior, members in self._rest.values():
            grads, values = _pairs(members)
            if grads:
                prior.add_grad_(grads, values, factor * self._s)

    def _subtract_centres(self, members: Sequence[Planned], strength: float) -> None:
        grads, locs = [], []
        for member in members:
            grad = member.parameter.grad
            if grad is None:
                continue
            prior = member.prior
            assert isinstance(prior, Gaussian)
            grad = local(grad)
            if prior.loc.ndim == 0:
                grad.sub_(strength * float(prior.loc))
                continue
            if prior.loc.device != grad.device:
                # The model was moved after the prior was attached: follow it, once.
                prior._buffers["loc"] = prior.loc.to(grad.device)
            grads.append(grad)
            locs.append(prior.loc)
        if grads:
            torch._foreach_add_(grads, locs, alpha=-strength)


def _pairs(members: Sequence[Planned]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the gradients that exist and their weights; no gradient, no prior, as in torch's own decay."""
    grads, values = [], []
    for member in members:
        parameter = member.parameter
        grad = parameter.grad
        if grad is None:
            continue
        if grad.is_sparse:
            raise UnsupportedError(
                f"{member.entry.name}: its gradient is sparse, a prior's is dense; build the layer with sparse=False."
            )
        grads.append(local(grad))
        values.append(local(parameter.detach()) if is_sharded(parameter) else parameter.data)
    return grads, values
