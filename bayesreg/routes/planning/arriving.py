"""Optimizers that are not torch's: whether a prior can reach the weights through them."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer

from bayesreg.errors import UnsupportedError
from bayesreg.optimizers.arrival import arrivals
from bayesreg.routes.planning.plan import GroupPlan

__all__ = ["groups_to_watch"]


def groups_to_watch(optimizer: Optimizer, plans: Sequence[GroupPlan], *, before_clip: bool) -> list[int]:
    """Refuse an optimizer that loses or undoes the pull of a prior, found on a toy; tell where that could not be found.

    Args:
        optimizer: The optimizer.
        plans: The routes of its groups.
        before_clip: Whether the loop says when the prior's gradient is added.

    Returns:
        The indices of groups whose first steps must be watched.

    Raises:
        UnsupportedError: If a pull is lost or undone.
    """
    name, watched = type(optimizer).__name__, []
    if not any(plan.on("gradient", "loss", "decoupled") for plan in plans):
        return []
    for index, (plan, seen) in enumerate(zip(plans, arrivals(optimizer), strict=True)):
        for member in plan.on("gradient", "loss", "decoupled"):
            found = seen["matrix" if member.parameter.ndim > 1 else "vector"]
            if found == "held" and member.toward_zero:
                raise UnsupportedError(
                    f"{member.entry.name}: {name} holds the norm of such weights fixed (tried on a toy tensor), so a "
                    f"prior centred at zero cannot act on them; give them br.Flat(), centre the prior on reference "
                    f"weights, or turn the constraint off."
                )
            if member.route != "gradient":
                continue
            if found == "lost" and not before_clip:
                raise UnsupportedError(
                    f"{name} takes its gradients before step(), so a prior that br.attach adds to them there is lost "
                    f"(tried on a toy tensor); use br.attach(..., route='loss') and add handle.penalty() to the loss. "
                    f"Where gradients are taken only after backward(): br.attach(..., before_clip=True) and "
                    f"handle.apply_() right after it."
                )
            if found in ("lost", "unknown"):
                watched.append(index)
    return list(dict.fromkeys(watched))
