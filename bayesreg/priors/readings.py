"""What a prior is in terms of weight decay, each reading by its name."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bayesreg.errors import InvalidArgumentError, NotEquivalentError
from bayesreg.priors.tensors import Hyperparameter, promoted

if TYPE_CHECKING:
    from bayesreg.priors.base import Prior
    from bayesreg.scale import LossScale

__all__ = ["WeightDecayReadings", "read_weight_decay"]


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


def read_weight_decay(prior: Prior, loss_scale: LossScale, at: Tensor | None) -> WeightDecayReadings:
    """Return all readings of a prior.

    Args:
        prior: The prior.
        loss_scale: s.
        at: Weights to read gradient and curvature at.

    Returns:
        The readings.

    Raises:
        InvalidArgumentError: If `at` is no tensor.
    """
    s = loss_scale.value
    if at is not None and not isinstance(at, Tensor):
        raise InvalidArgumentError(
            f"at: expected the tensor of one parameter, such as model[0].weight, got {type(at).__name__}."
        )
    try:
        exact = prior.exact_pull(loss_scale)
    except NotEquivalentError:
        exact = None
    gradient = curvature = None
    centre = prior.centre()
    if at is None:
        point = centre.expand(prior.hyper_shape()) if prior.traits.elementwise else None
    else:
        point = promoted(at.detach())
        offset = point - centre.to(point.device)
        slope = torch.zeros_like(point)
        prior.add_grad_([slope], [point], s)
        power = float(offset.square().sum())
        gradient = float((slope * offset).sum()) / power if power > 0 else None
    if at is None and centre.ndim and not prior.traits.elementwise:
        point = centre
    if point is not None and not bool(prior.at_kink(point).any()):
        curvature = s * float(prior.curvature(point).mean())
        curvature = curvature if math.isfinite(curvature) else None
    variance = prior.variance(None if at is None else at.shape)
    if isinstance(variance, Tensor):
        variance = float(variance.mean())
    matched = None if variance is None or not math.isfinite(variance) else s / variance
    return WeightDecayReadings(exact, gradient, curvature, matched)


def _short(value: Hyperparameter) -> str:
    return "one per element" if isinstance(value, Tensor) else f"{value:.3g}"
