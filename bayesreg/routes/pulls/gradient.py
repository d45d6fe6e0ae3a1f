"""Adding the prior's gradient to `.grad`, many tensors per call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bayesreg._support.sharding import is_sharded, local
from bayesreg.conversion import LossScale
from bayesreg.errors import UnsupportedError
from bayesreg.priors import Prior
from bayesreg.priors.contract.joint import Term
from bayesreg.routes.planning.plan import GroupPlan, Planned
from bayesreg.routes.pulls.differences import add_differences_

__all__ = ["Gradients"]

_WIDE = (torch.float32, torch.float64)


class _Batch:
    """Parameters that are worked on in one call."""

    def __init__(self) -> None:
        self._members: list[Planned] = []
        self._parameters: list[nn.Parameter] = []
        self._sharded = False

    def take(self, member: Planned) -> None:
        self._members.append(member)
        self._parameters.append(member.parameter)
        self._sharded |= is_sharded(member.parameter)

    def names(self) -> list[str]:
        """Return the names of the parameters."""
        return [member.entry.name for member in self._members]

    def gradients(self) -> list[Tensor | None]:
        """Return each local gradient, None where there is none; refuse sparse ones."""
        grads = [parameter.grad for parameter in self._parameters]
        for member, grad in zip(self._members, grads, strict=True):
            if grad is not None and grad.is_sparse:
                raise UnsupportedError(
                    f"{member.entry.name}: its gradient is sparse, a prior's is dense; build the layer with "
                    f"sparse=False."
                )
        return [None if grad is None else local(grad) for grad in grads] if self._sharded else grads

    def pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the gradients that exist and their weights; no gradient, no prior, as in torch's own decay."""
        grads, values = [], []
        for parameter, grad in zip(self._parameters, self.gradients(), strict=True):
            if grad is not None:
                grads.append(grad)
                values.append(local(parameter.detach()))
        return grads, values


class _Centres(_Batch):
    """Parameters that are pulled, with one strength, toward a centre each.

    Where the optimizer's own decay does λθ, −λ·loc remains. Elsewhere the difference is taken first, so that on the
    centre the pull is 0 to the bit: of a rounding error an adaptive optimizer makes a whole step.

    Args:
        native: Whether the optimizer's own decay does λθ.
    """

    def __init__(self, native: bool) -> None:
        super().__init__()
        self._native = native
        self._work: dict[torch.dtype, Tensor] = {}
        self._locs: list[Tensor] = []

    def take(self, member: Planned) -> None:
        super().take(member)
        loc = member.prior.centre()
        self._locs.append(loc if loc.ndim else loc.to(member.parameter.device, member.parameter.dtype))

    def pull(self, strength: float) -> None:
        grads, locs = self.gradients(), self._locs
        present = [grad for grad in grads if grad is not None]
        if not present:
            return
        first = next(index for index, grad in enumerate(grads) if grad is not None)
        if present[0].device != locs[first].device:
            # The model was moved after the prior was attached: follow it, once.
            pairs = zip(grads, locs, strict=True)
            self._locs = locs = [loc if grad is None else loc.to(grad.device) for grad, loc in pairs]
        if len(present) < len(grads):
            locs = [loc for grad, loc in zip(grads, locs, strict=True) if grad is not None]
        if self._native:
            torch._foreach_add_(present, locs, alpha=-strength)
            return
        add_differences_(*self.pairs(), locs, strength, self._work)


class _Together(_Batch):
    """Parameters under one density: each takes part with its value, even where it has no gradient."""

    def add_(self, term: Term, coefficient: float) -> None:
        names = self.names()
        values = {name: parameter.detach() for name, parameter in zip(names, self._parameters, strict=True)}
        term.add_grad_(dict(zip(names, self.gradients(), strict=True)), values, coefficient)


class Gradients:
    """What one param group's gradients receive before the step.

    Parabolas of one strength become one pass over all their tensors at once, λ(θ − loc); where the optimizer's own
    decay does λθ, only −λ·loc remains. Everything else goes family by family.

    Args:
        plan: The group's routes.
        terms: The densities over several parameters, by the names of those.
        loss_scale: s.
    """

    def __init__(self, plan: GroupPlan, terms: Mapping[str, Term], loss_scale: LossScale) -> None:
        self._s = loss_scale.value
        self._pulls: defaultdict[float, _Batch] = defaultdict(_Batch)
        self._centres: dict[tuple[float, bool], _Centres] = {}
        self._rest: defaultdict[Prior, _Batch] = defaultdict(_Batch)
        self._joint: defaultdict[Term, _Together] = defaultdict(_Together)
        # From the last tensor to the first: the optimizer then starts with what is still in the cache.
        for member in reversed(plan.on("gradient", "native + centre")):
            native = member.route == "native + centre"
            term = terms.get(member.entry.name)
            if term is not None:
                self._joint[term].take(member)
                continue
            # In half precision add_grad_ takes the difference in float32.
            wide = native or member.parameter.dtype in _WIDE
            parabola = member.parabola
            if parabola is None or not parabola.uniform or not wide:
                self._rest[member.alone].take(member)
                continue
            strength = plan.decay if native else parabola.strength(loss_scale)
            assert isinstance(strength, float)
            if parabola.centre is None:
                self._pulls[strength].take(member)
            else:
                self._centres.setdefault((strength, native), _Centres(native)).take(member)
        for term, together in self._joint.items():
            term.require(together.names())

    def __bool__(self) -> bool:
        return bool(self._pulls or self._centres or self._rest or self._joint)

    def add_(self, factor: float) -> None:
        """Add factor · s · ∇(−log p) to the gradients that exist.

        Args:
            factor: −1 for an optimizer that maximises, times the scale that a GradScaler has left on the gradients.
        """
        for strength, batch in self._pulls.items():
            grads, values = batch.pairs()
            if grads:
                torch._foreach_add_(grads, values, alpha=factor * strength)
        for (strength, _), centres in self._centres.items():
            centres.pull(factor * strength)
        for prior, batch in self._rest.items():
            grads, values = batch.pairs()
            if grads:
                prior.add_grad_(grads, values, factor * self._s)
        for term, together in self._joint.items():
            together.add_(term, factor * self._s)
