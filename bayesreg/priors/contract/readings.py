"""What a prior is in terms of weight decay, each reading by its name."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from bayesreg.priors.contract.tensors import Hyperparameter

__all__ = ["WeightDecayReadings", "matched", "over_variance"]


@dataclass(frozen=True)
class WeightDecayReadings:
    """Weight decays, toward the prior's centre, that a prior resembles; only `exact` gives the same MAP.

    Attributes:
        exact: The λ of a coupled optimizer whose MAP is the same; None for all but Gaussians and flat priors.
        gradient_matched: The λ whose pull on the given weights is nearest to the prior's, in least squares:
            s · ⟨∇(−log p), w − loc⟩ / ‖w − loc‖². None where no weights were given or all sit on the centre.
        curvature_matched: s times the mean second derivative of −log p, at the given weights or at the centre.
            None at a kink; negative where −log p is concave, which no weight decay can do.
        variance_matched: s / variance: the Gaussian of the same variance. None where the prior has none.

    Example:
        >>> import bayesreg as br
        >>> print(br.Logistic(scale=0.1).weight_decay_readings(1000))
        exact none; curvature-matched 0.05; variance-matched 0.0304
    """

    exact: Hyperparameter | None
    gradient_matched: float | None
    curvature_matched: float | None
    variance_matched: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the readings by name."""
        return asdict(self)

    def __str__(self) -> str:
        exact = "none" if self.exact is None else _short(self.exact)
        words = [f"exact {exact}"]
        for name in ("gradient_matched", "curvature_matched", "variance_matched"):
            number = getattr(self, name)
            if number is not None:
                words.append(f"{name.replace('_', '-')} {number:.3g}")
        return "; ".join(words)


def matched(shares: Tensor, offset: Tensor) -> float | None:
    """Return the strength of the pull toward the centre that is nearest to these slopes, in least squares.

    Args:
        shares: s · ∇(−log p).
        offset: w − loc.

    Returns:
        None where all weights sit on the centre.
    """
    power = float(offset.square().sum())
    return float((shares * offset).sum()) / power if power > 0 else None


def over_variance(s: float, variance: Hyperparameter | None) -> float | None:
    """Return s / variance, of the mean variance where elements differ; None where there is none."""
    if isinstance(variance, Tensor):
        variance = float(variance.mean())
    return None if variance is None or not 0 < variance < math.inf else s / variance


def _short(value: Hyperparameter) -> str:
    return "one per element" if isinstance(value, Tensor) else f"{value:.3g}"
