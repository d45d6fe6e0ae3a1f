"""What of its start a run forgets by decay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from bayesreg.horizon.rates import Rates

__all__ = ["Horizon", "Regime", "horizon_of"]

Regime: TypeAlias = Literal["off", "between", "forgotten"]

# Of the start: from how much of it on a decay is as good as none, and from how little on it is forgotten.
_OFF, _FORGOTTEN = 0.95, 0.05


@dataclass(frozen=True)
class Horizon:
    """What decay makes of the start of a run.

    Attributes:
        steps: T, of the optimizer.
        epochs: Passes over the data, where batch size and n are known.
        decay_sum: k = Σ η_t λ, with the factor that momentum gives it in the long run.
        share_left: The share of the start that is left at the end: Π (1 − η_t λ), about e^(−k).
        memory: 1/(ηλ) at the largest learning rate, in steps: of what the weights were so long ago 37 % is left.
        memory_epochs: The same in epochs.
        regime: "off", "between" or "forgotten", by the share that is left: over 95 %, or less than 5 %.
        done: Steps that were taken already, where the optimizer's state tells.
        left_now: The share of the start that is left after these.
    """

    steps: int
    epochs: float | None
    decay_sum: float
    share_left: float
    memory: float
    memory_epochs: float | None
    regime: Regime
    done: int | None = None
    left_now: float | None = None

    @property
    def memory_share(self) -> float:
        """The memory as a share of the run; over 1 it is longer."""
        return self.memory / self.steps

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "memory_share": self.memory_share}


def horizon_of(
    kind: str,
    decay: float,
    rates: Rates,
    settings: Mapping[str, Any],
    *,
    epochs: float | None = None,
    done: int | None = None,
) -> Horizon:
    """Return what a decay makes of the start of a run.

    Args:
        kind: "decoupled": w ← (1 − ηλ)w beside the update; "coupled": λw is added to the gradient of an SGD.
        decay: λ.
        rates: η of each step.
        settings: Of the param group: momentum and dampening, where the decay is coupled.
        epochs: Of the run.
        done: Steps that were taken already.

    Returns:
        The horizon.
    """
    momentum = float(settings.get("momentum") or 0.0) if kind == "coupled" else 0.0
    dampening = float(settings.get("dampening") or 0.0) if momentum else 0.0
    gain = (1.0 - dampening) / (1.0 - momentum) if momentum < 1.0 else math.inf
    total = gain * decay * math.fsum(rates)
    if momentum:
        nesterov = bool(settings.get("nesterov"))
        left = _left_with_momentum(decay * rates, momentum, dampening, nesterov=nesterov)
    else:
        left = np.asarray(np.cumprod(1.0 - decay * rates), np.float64)
    share = float(left[-1])
    steps, largest = len(rates), float(rates.max(initial=0.0)) * gain * decay
    memory = 1.0 / largest if largest else math.inf
    taken = None if done is None else min(done, steps)
    return Horizon(
        steps=steps,
        epochs=epochs,
        decay_sum=total,
        share_left=share,
        memory=memory,
        memory_epochs=None if epochs is None else memory * epochs / steps,
        regime="off" if abs(share) > _OFF else "forgotten" if abs(share) < _FORGOTTEN else "between",
        done=done,
        left_now=None if taken is None else float(left[taken - 1]) if taken else 1.0,
    )


def _left_with_momentum(pulls: Rates, momentum: float, dampening: float, *, nesterov: bool) -> Rates:
    """Return what is left of 1 after each step where λw goes through the momentum of torch's SGD alone."""
    left, weight, buffer = np.empty_like(pulls), 1.0, None
    # In units of the learning rate of each step: buffers hold λw, which the rate multiplies when it is used.
    for step, pull in enumerate(pulls.tolist()):
        buffer = weight if buffer is None else momentum * buffer + (1.0 - dampening) * weight
        used = weight + momentum * buffer if nesterov else buffer
        weight -= pull * used
        left[step] = weight
    return left
