"""What Keras's regularizers and the `weight_decay` of its optimizers say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError
from bayesreg.explaining.findings.finding import Finding
from bayesreg.explaining.formats.groups_of import Settings, groups_of, heavy_ball, number_of, read_as
from bayesreg.explaining.groups.reading import GroupReading
from bayesreg.optimizers import DecayRule
from bayesreg.priors import ElasticNet, Gaussian, Laplace, Prior
from bayesreg.priors.contract.tensors import as_number

__all__ = ["keras_optimizer_settings", "keras_penalties", "read_penalties"]


def keras_penalties(values: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the coefficients of a serialized regularizer, or of its configuration alone; None if it is none."""
    config = values.get("config") if "class_name" in values else values
    if not isinstance(config, Mapping) or not config or not set(config) <= {"l1", "l2"}:
        return None
    found = {key: number_of(config, key, 0.0) for key in config}
    if not any(found.values()):
        raise InvalidArgumentError("regularizer: expected l1 or l2 > 0, got none; no penalty is the prior br.Flat().")
    return {key: value for key, value in found.items() if value}


def keras_optimizer_settings(values: Mapping[str, Any]) -> Settings | None:
    """Return what a serialized Keras optimizer says: all of them decay apart from the gradient; None if it is none.

    For SGD that is a coupled decay all the same, of (1 − momentum) times as much.
    """
    config = values.get("config")
    if not isinstance(config, Mapping) or "learning_rate" not in config:
        return None
    name = f"keras.{values.get('class_name', 'Optimizer')}"
    rate = config["learning_rate"]
    settings = {
        # A schedule is no number.
        "lr": 0.0 if isinstance(rate, Mapping) else number_of(config, "learning_rate", 0.0),
        "weight_decay": number_of(config, "weight_decay", 0.0),
    }
    clip = number_of(config, "global_clipnorm", 0.0)
    findings: tuple[Finding, ...] = (read_as("a Keras optimizer: its weight_decay is on all variables"),)
    rule = DecayRule("decoupled", name)
    if name == "keras.SGD":
        rule = DecayRule("coupled", name)
        momentum = number_of(config, "momentum", 0.0)
        settings["weight_decay"], more = heavy_ball(name, settings["weight_decay"], momentum)
        findings += more
    return Settings(groups_of(None, rule, settings, None, None), clip or None, findings)


def read_penalties(penalties: Mapping[str, float], scale: LossScale) -> tuple[GroupReading, tuple[Finding, ...]]:
    """Read Keras-style penalties, λ₁‖w‖₁ + λ₂‖w‖² added to the loss, as a prior.

    Args:
        penalties: λ₁ under "l1", λ₂ under "l2".
        scale: The scale of the loss.

    Returns:
        The reading and what is worth knowing.
    """
    s, l1, l2 = scale.value, penalties.get("l1", 0.0), penalties.get("l2", 0.0)
    prior: Prior
    if not l1:
        prior = Gaussian.from_weight_decay(2.0 * l2, scale)
    elif not l2:
        prior = Laplace.from_l1(l1, scale)
    else:
        prior = ElasticNet(l1 / s, 2.0 * l2 / s)
    variance = as_number(prior.variance())
    assert isinstance(variance, float)
    findings = [_of_a_layer()]
    if l2:
        same = f"The same prior: br.Gaussian(scale={(s / (2 * l2)) ** 0.5:.3g})." if not l1 else ""
        text = f"Keras writes its L2 without the half: l2={l2:g} is weight_decay={2 * l2:g} of a coupled optimizer."
        findings.append(Finding("missing-half", "warning", text, same, 0.5))
    if l1:
        text = "An L1 penalty in the loss leaves no weight exactly zero: gradient steps jump over the kink."
        findings.append(Finding("subgradient", "warning", text, f"br.attach with {prior!r} takes proximal steps.", 0.5))
    reading = GroupReading(
        group=0, parameters=("the layer's weights",), roles={"weight": 1}, elements=0, decay="penalty",
        weight_decay=2.0 * l2 or None, prior=prior.describe(), mean=0.0, std=variance**0.5, variance=variance,
        implied=None, weights_rms=None,
    )  # fmt: skip
    return reading, tuple(findings)


def _of_a_layer() -> Finding:
    text = (
        "A regularizer belongs to one layer and one of its variables (kernel_regularizer leaves biases flat); a "
        "penalty in the loss is coupled with every optimizer, Adam included."
    )
    return Finding("regularizer-of-a-layer", "note", text, "")
