"""One regularisation constant in every notation at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg._support.tables import Table, Tabled
from bayesreg.conversion import sklearn
from bayesreg.conversion.loss_scale import LossScale, as_loss_scale
from bayesreg.conversion.weight_decay import (
    l1_to_laplace_scale,
    l2_coefficient_to_variance,
    laplace_scale_to_l1,
    variance_to_l2_coefficient,
    variance_to_weight_decay,
    weight_decay_to_variance,
)
from bayesreg.errors import InvalidArgumentError, NotEquivalentError, nearest
from bayesreg.optimizers import OptimizerLike, decay_rule, require_coupled

__all__ = ["Conversion", "Notation", "convert"]

Notation: TypeAlias = Literal[
    "weight_decay", "variance", "std", "precision", "l2_coefficient", "ridge_alpha", "logistic_c", "l1_coefficient",
    "laplace_scale", "lasso_alpha",
]  # fmt: skip

_LOGISTIC = (
    "sklearn's C of two classes is that of one output (Bernoulli); a softmax of two outputs has C = 2 x variance."
)

_LAPLACE = ("l1_coefficient", "laplace_scale", "lasso_alpha")


@dataclass(frozen=True, repr=False)
class Conversion(Tabled):
    """A regularisation constant as a prior, and in every other notation; made by `br.convert`.

    Printed it is a table. Fields that the prior's family does not have, or for which something was not given, are None.

    Attributes:
        title: What was converted.
        family: "Gaussian" or "Laplace".
        loss_scale: s.
        loss: In plain words, where s comes from.
        variance: Of one weight under the prior, in squared units of the weights.
        std: Its root.
        precision: 1/variance, of a Gaussian; what laplace-torch calls `prior_precision`.
        weight_decay: λ in (λ/2)‖θ‖², of a Gaussian; None where the optimizer has none that means it.
        l2_coefficient_without_half: α in α‖θ‖², of a Gaussian; Keras' `l2`.
        scale: b of a Laplace.
        l1_coefficient: α in α‖θ‖₁, of a Laplace.
        sklearn_logistic_C: C of `LogisticRegression`.
        sklearn_ridge_alpha: α of `Ridge`, of a Gaussian; needs the noise.
        sklearn_lasso_alpha: α of `Lasso`, of a Laplace; needs the noise and n.
        notes: What else there is to say.
    """

    title: str
    family: str
    loss_scale: float
    loss: str
    variance: float
    std: float
    precision: float | None = None
    weight_decay: float | None = None
    l2_coefficient_without_half: float | None = None
    scale: float | None = None
    l1_coefficient: float | None = None
    sklearn_logistic_C: float | None = None  # noqa: N815 (its name there)
    sklearn_ridge_alpha: float | None = None
    sklearn_lasso_alpha: float | None = None
    notes: tuple[str, ...] = ()

    def values(self) -> dict[str, float | None]:
        """Return the notations that this family has, by name."""
        own = _GAUSSIAN_FIELDS if self.family == "Gaussian" else _LAPLACE_FIELDS
        found: dict[str, float | None] = {name: getattr(self, name) for name in own}
        # A weight_decay that is None says something; a notation for which something was not given does not.
        return {name: value for name, value in found.items() if value is not None or name == "weight_decay"}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"family": self.family, "loss_scale": self.loss_scale, "loss": self.loss, **self.values()}

    def table(self) -> Table:
        """Return it as a table."""
        scale = LossScale(self.loss_scale, self.loss).words
        rows = [(name.replace("_", " "), number) for name, number in self.values().items()]
        return Table(self.title, ("quantity", "value"), rows, (scale, *self.notes))


_GAUSSIAN_FIELDS = (
    "variance", "std", "precision", "weight_decay", "l2_coefficient_without_half", "sklearn_logistic_C",
    "sklearn_ridge_alpha",
)  # fmt: skip
_LAPLACE_FIELDS = ("scale", "std", "variance", "l1_coefficient", "sklearn_logistic_C", "sklearn_lasso_alpha")


@answering
def convert(
    value: float,
    notation: Notation = "weight_decay",
    *,
    num_data: int | LossScale,
    optimizer: OptimizerLike | None = None,
    noise_std: float | None = None,
) -> Conversion:
    """Convert a regularisation constant to a prior, and to every other notation.

    Args:
        value: The number, >= 0 in the notation's own units.
        notation: What it is: "weight_decay" (default, with the ½), "variance", "std", "precision", "l2_coefficient"
            (without the ½), "ridge_alpha", "logistic_c"; of a Laplace prior "l1_coefficient", "laplace_scale",
            "lasso_alpha". scikit-learn's count each example once, whatever `num_data` says of emphasis.
        num_data: Size of the training set of a mean loss, or the `LossScale` of another.
        optimizer: The optimizer in use (instance, class, factory or name); a coupled one is assumed if None.
        noise_std: τ > 0, standard deviation of Gaussian noise, for ridge and lasso. Default: what the LossScale states.

    Returns:
        All notations: `.variance`, `.weight_decay`, `.sklearn_ridge_alpha` ...; prints as a table.

    Raises:
        InvalidArgumentError: If a number is out of range, something that the notation needs is missing, or the
            notation or the optimizer is not known.
        NotEquivalentError: If `value` is a weight_decay of an optimizer whose decay is no Gaussian prior.

    Example:
        >>> print(convert(5e-4, "weight_decay", num_data=50_000))
        weight_decay 0.0005 as a Gaussian prior
        quantity                     value
        ---------------------------  -------
        variance                     0.04
        std                          0.2
        precision                    25
        weight decay                 0.0005
        l2 coefficient without half  0.00025
        sklearn logistic C           0.04
        Training loss = s x NLL with s = 2e-05 (mean NLL over 50,000 examples).
        sklearn's C of two classes is that of one output (Bernoulli); a softmax of two outputs has C = 2 x variance.
    """
    scale = as_loss_scale(num_data)
    known = get_args(Notation)
    if notation not in known:
        raise InvalidArgumentError(
            f"notation: expected one of {', '.join(known)}, got {notation!r}{nearest(str(notation), known) or '.'}"
        )
    if optimizer is not None:
        decay_rule(optimizer)
    endless = isinstance(value, float) and value == math.inf
    number = math.inf if endless else checks.finite("value", value)
    if not isinstance(number, float):
        raise InvalidArgumentError(f"value: expected one number, got {type(value).__name__}.")
    # scikit-learn counts each example once: emphasis acts there as less noise, or as a larger C.
    emphasis = scale.likelihood_weight
    noise = None if noise_std is None else checks.positive_float("noise_std", noise_std) / math.sqrt(emphasis)
    stated = scale.noise_std
    if noise is not None and stated is not None and not math.isclose(noise_std or 0.0, stated, rel_tol=1e-6):
        raise InvalidArgumentError(
            f"noise_std: the loss scale was made with {stated:g}, got {noise_std:g}; leave it out, or give the same."
        )
    if noise is None and stated is not None:
        noise = stated / math.sqrt(emphasis)
    title = f"{notation} {number:g} as a {'Laplace' if notation in _LAPLACE else 'Gaussian'} prior"
    if notation in _LAPLACE:
        return Conversion(title, "Laplace", scale.value, scale.origin, **_laplace(number, notation, scale, noise))
    values = _gaussian(number, notation, scale, noise, optimizer)
    notes: tuple[str, ...] = (_LOGISTIC,)
    if values["weight_decay"] is None:
        name = decay_rule(optimizer or "sgd").name
        notes = (*notes, f"No weight_decay of {name} means this prior; br.attach adds its gradient instead.")
    elif not math.isclose(values["l2_coefficient_without_half"], values["weight_decay"] / 2, rel_tol=1e-9):
        name = decay_rule(optimizer or "sgd").name
        notes = (*notes, f"{name} shrinks by more than its weight_decay; the other rows count all of it.")
    return Conversion(title, "Gaussian", scale.value, scale.origin, **values, notes=notes)


def _gaussian(
    value: float, notation: str, scale: LossScale, noise: float | None, optimizer: OptimizerLike | None
) -> dict[str, Any]:
    if optimizer is not None and notation == "weight_decay":
        require_coupled(optimizer)
    emphasis = scale.likelihood_weight
    to_variance: dict[str, Callable[[float], float]] = {
        "weight_decay": lambda v: weight_decay_to_variance(v, scale, optimizer=optimizer),
        "variance": lambda v: v,
        "std": lambda v: v * v,
        "precision": lambda v: 1.0 / v if v else math.inf,
        "l2_coefficient": lambda v: l2_coefficient_to_variance(v, scale),
        "ridge_alpha": lambda v: sklearn.ridge_alpha_to_variance(v, _noise(noise, notation)),
        "logistic_c": lambda v: sklearn.logistic_c_to_variance(v) / emphasis,
    }
    if value < 0:
        raise InvalidArgumentError(f"{notation}: expected a number >= 0, got {value:g}.")
    variance = float(to_variance[notation](value))
    if not 0 < variance < math.inf:
        raise InvalidArgumentError(
            f"{notation}: expected a number that gives a prior a finite width > 0, got {value:g}"
            f"{'; no penalty at all is the prior flat()' if variance else ''}."
        )
    return {
        "variance": variance,
        "std": math.sqrt(variance),
        "precision": 1.0 / variance,
        "weight_decay": _weight_decay(variance, scale, optimizer),
        "l2_coefficient_without_half": variance_to_l2_coefficient(variance, scale),
        "sklearn_logistic_C": variance * emphasis,
        "sklearn_ridge_alpha": None if noise is None else sklearn.variance_to_ridge_alpha(variance, noise),
    }


def _weight_decay(variance: float, scale: LossScale, optimizer: OptimizerLike | None) -> float | None:
    try:
        return variance_to_weight_decay(variance, scale, optimizer=optimizer)
    except NotEquivalentError:
        return None


def _laplace(value: float, notation: str, scale: LossScale, noise: float | None) -> dict[str, Any]:
    if not 0 < value < math.inf:
        raise InvalidArgumentError(f"{notation}: expected a finite number > 0, got {value:g}.")
    n = scale.num_data
    b = value
    if notation == "l1_coefficient":
        b = float(l1_to_laplace_scale(value, scale))
    elif notation == "lasso_alpha":
        if n is None:
            raise InvalidArgumentError(
                f"num_data: {notation} depends on the size of the training set; pass it, or a LossScale that was made "
                f"with it."
            )
        b = float(sklearn.lasso_alpha_to_laplace_scale(value, n, _noise(noise, notation)))
    if not 0 < b * b < math.inf:
        raise InvalidArgumentError(
            f"{notation}: expected a number that gives a prior a finite width > 0, got {value:g}, a scale of {b:g}."
        )
    told = n is not None and noise is not None
    return {
        "scale": b,
        "std": math.sqrt(2.0) * b,
        "variance": 2.0 * b**2,
        "l1_coefficient": laplace_scale_to_l1(b, scale),
        "sklearn_logistic_C": b * scale.likelihood_weight,
        "sklearn_lasso_alpha": sklearn.laplace_scale_to_lasso_alpha(b, n or 1, noise or 1.0) if told else None,
    }


def _noise(noise: float | None, notation: str) -> float:
    if noise is None:
        raise InvalidArgumentError(f"noise_std: {notation} is relative to the noise; pass its standard deviation.")
    return noise
