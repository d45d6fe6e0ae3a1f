"""A pull so strong that the step jumps past the centre, farther every time: say so once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import SGD, Optimizer

from bayesreg.conversion import LossScale
from bayesreg.errors import OvershootWarning
from bayesreg.priors.contract.asking import stiffness
from bayesreg.routes.planning.plan import GroupPlan

__all__ = ["OvershootWatch", "stable_below"]


def stable_below(momentum: float = 0.0, *, nesterov: bool = False) -> float:
    """Return the largest lr · λ for which SGD on the quadratic ½·λ·w² does not diverge.

    2·(1 + β) for heavy-ball momentum β, 2·(1 + β)/(1 + 2·β) for Nesterov's.

    Args:
        momentum: β.
        nesterov: Whether it is Nesterov's.

    Returns:
        The bound.

    Example:
        >>> stable_below(), stable_below(0.9), round(stable_below(0.9, nesterov=True), 3)
        (2.0, 3.8, 1.357)
    """
    bound = 2.0 * (1.0 + momentum)
    return bound / (1.0 + 2.0 * momentum) if nesterov else bound


class OvershootWatch:
    """Watches lr · λ of an SGD, and warns once when the prior alone makes it diverge.

    Args:
        optimizer: The optimizer; adaptive ones rescale the pull, so nothing is said of them.
        plans: Its routes.
        loss_scale: s.
    """

    def __init__(self, optimizer: Optimizer, plans: Iterable[GroupPlan], loss_scale: LossScale) -> None:
        self._strongest: dict[int, tuple[float, str, bool]] = {}
        # Many parameters have one prior.
        known: dict[int, float] = {}
        for index, plan in enumerate(plans) if isinstance(optimizer, SGD) else ():
            for member in plan.on("native", "native + centre", "gradient"):
                if id(member.prior) not in known:
                    known[id(member.prior)] = stiffness(member.prior)
                strength = loss_scale.value * known[id(member.prior)]
                if strength > self._strongest.get(index, (0.0, "", False))[0]:
                    self._strongest[index] = (strength, member.entry.name, member.prior.traits.has_prox)

    def check(self, groups: list[dict[str, Any]]) -> None:
        """Look at the learning rates of this step."""
        for index, (strength, name, has_prox) in list(self._strongest.items()):
            limit, rate = _limit(groups[index]), groups[index]["lr"]
            if limit is None or (isinstance(rate, Tensor) and rate.device.type != "cpu"):
                continue
            pull = float(rate) * strength
            if pull > limit:
                del self._strongest[index]
                cure = ", or use route='proximal', which is stable at any" if has_prox else ""
                warnings.warn(
                    f"{name}: lr·λ = {pull:.3g} of the prior's strongest pull is more than the {limit:.3g} at which "
                    f"SGD with this momentum diverges from the prior alone; lower the learning rate below "
                    f"{limit / strength:.2g}, widen the prior{cure}.",
                    OvershootWarning,
                    stacklevel=5,
                )


def _limit(group: Mapping[str, Any]) -> float | None:
    if group.get("dampening"):
        return None
    return stable_below(float(group.get("momentum") or 0.0), nesterov=bool(group.get("nesterov")))
