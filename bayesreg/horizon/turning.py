"""What decay does to weights whose length the function does not see: it sets the angle that a step turns them by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

__all__ = ["Turning", "turning"]

_ADAMW = (torch.optim.AdamW, torch.optim.Adam)


@dataclass(frozen=True)
class Turning:
    """Where noise and decay hold weights in front of a normalisation.

    Attributes:
        angle: By which a step turns them, in radians.
        rms: Root mean square of the weights; None where it depends on the size of gradients.
    """

    angle: float
    rms: float | None


def turning(
    cls: type[Optimizer] | None, kind: str, rate: float, decay: float, settings: Mapping[str, Any]
) -> Turning | None:
    """Return where weights in front of a normalisation come to rest, if gradients are mostly noise.

    Growth by steps across the weights and shrinking by decay are in balance there. For AdamW (and Adam with
    `decoupled_weight_decay`) a gradient moves a weight by η in the long run: ‖w‖² = ηd/(2λ), and a step turns by
    √(2ηλ(1 − β₁)/(1 + β₁)). For SGD with coupled decay gradients grow as weights shrink, and a step turns by
    √(2ηλ/(1 + μ)).

    Args:
        cls: The optimizer's class.
        kind: "decoupled" or "coupled".
        rate: η.
        decay: λ.
        settings: Of the param group: betas, momentum, dampening, amsgrad.

    Returns:
        The balance; None for other optimizers.

    References:
        Kosson, Messmer and Jaggi (2024), Rotational Equilibrium, table 1.
    """
    if not rate or not decay:
        return None
    if kind == "decoupled" and cls in _ADAMW and not settings.get("amsgrad"):
        # Where settings do not say it, it is what every library takes.
        beta1 = float(settings.get("betas", (0.9,))[0])
        angle = math.sqrt(2.0 * rate * decay * (1.0 - beta1) / (1.0 + beta1))
        return Turning(angle, math.sqrt(rate / (2.0 * decay)))
    momentum = float(settings.get("momentum") or 0.0)
    if kind == "coupled" and cls is torch.optim.SGD and not settings.get("nesterov") and not settings.get("dampening"):
        return Turning(math.sqrt(2.0 * rate * decay / (1.0 + momentum)), None)
    return None
