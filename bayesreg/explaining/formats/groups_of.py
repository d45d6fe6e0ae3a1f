"""Param groups that settings will make, before there is an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from bayesreg.errors import InvalidArgumentError
from bayesreg.explaining.findings.finding import Finding
from bayesreg.explaining.groups.facts import GroupFacts, ParameterFacts, fact_of
from bayesreg.optimizers import DecayRule
from bayesreg.selection import ParameterInfo, Role, parameters_of

__all__ = ["Settings", "groups_of", "heavy_ball", "number_of", "read_as", "soft_targets"]

# Of a setting.
_ABSURD = 1e30


@dataclass(frozen=True)
class Settings:
    """What settings say.

    Attributes:
        groups: The groups that they will make.
        clip_norm: What they clip the norm of gradients to, None if nothing.
        findings: What only they can tell.
        run: What they say of the length of the run, as arguments of `plan_of`.
        clips_known: Whether they would say it, if gradients were clipped.
    """

    groups: list[GroupFacts]
    clip_norm: float | None = None
    findings: tuple[Finding, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    clips_known: bool = True


def groups_of(
    cls: type[Optimizer] | None,
    rule: DecayRule,
    settings: Mapping[str, Any],
    model: nn.Module | None,
    decayed: Callable[[ParameterInfo], bool] | None,
) -> list[GroupFacts]:
    """Return the groups: what is decayed, and the rest without decay.

    Args:
        cls: The optimizer's class, if torch ships it.
        rule: What it does with `weight_decay`.
        settings: Of the group that is decayed.
        model: The model, if it is at hand.
        decayed: Which parameters are; None for all.

    Returns:
        One group, or two.

    Raises:
        InvalidArgumentError: If the model has no trainable parameters.
    """
    free = {**settings, "weight_decay": 0.0}
    if model is None:
        if decayed is None:
            return [GroupFacts(0, cls, rule, settings, [_named("all weights")])]
        return [
            GroupFacts(0, cls, rule, settings, [_named("all but biases and norms")]),
            GroupFacts(1, cls, rule, free, [_named("biases and norms", "bias")]),
        ]
    infos = [info for info in parameters_of(model) if info.parameter.requires_grad]
    parts: tuple[list[ParameterFacts], list[ParameterFacts]] = ([], [])
    for info in infos:
        index = 0 if decayed is None or decayed(info) else 1
        parts[index].append(fact_of(info.parameter, info, {}, index))
    groups = [GroupFacts(i, cls, rule, (settings, free)[i], part) for i, part in enumerate(parts) if part]
    if not groups:
        raise InvalidArgumentError("model: it has no trainable parameters.")
    return groups


def _named(name: str, role: Role = "weight") -> ParameterFacts:
    return ParameterFacts(name, role, (0,), torch.float32, None, {})


def number_of(values: Mapping[str, Any], key: str, default: float) -> float:
    """Return a number of the settings, `default` where it is missing or None.

    Args:
        values: The settings.
        key: Its name.
        default: The library's default.

    Returns:
        The number.

    Raises:
        InvalidArgumentError: If it is no number >= 0, or one so large that products of it overflow.
    """
    value = values.get(key)
    if value is None:
        return default
    try:
        # True is a number only by accident.
        number = float("no" if isinstance(value, bool) else value)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{key}: expected a number, got {value!r}.") from error
    if not 0.0 <= number < _ABSURD:
        raise InvalidArgumentError(f"{key}: expected a number >= 0, and not beyond {_ABSURD:g}, got {number:g}.")
    return number


def soft_targets(names: list[str]) -> tuple[Finding, ...]:
    """Say what targets that are mixed do to the reading, if there are any."""
    if not names:
        return ()
    many = " and ".join(names)
    return (
        Finding(
            "soft-targets", "note",
            f"{many} change{'s' if len(names) == 1 else ''} the targets: the likelihood is that of other labels, "
            f"though each example still counts once, so n and the prior above stand.",
            "", 0.0,
        ),
    )  # fmt: skip


def read_as(what: str) -> Finding:
    """Say whose settings these were taken for."""
    return Finding("read-as", "note", f"Read as {what}.", "")


def heavy_ball(name: str, decay: float, momentum: float) -> tuple[float, tuple[Finding, ...]]:
    """Read a decay beside an SGD with momentum: at rest as if coupled, with (1 − momentum) of it.

    Args:
        name: The optimizer's name.
        decay: Its decay λ.
        momentum: μ.

    Returns:
        The coupled weight decay that it comes to, and what is worth knowing.

    Raises:
        InvalidArgumentError: If the momentum is not below 1.
    """
    if momentum >= 1.0:
        raise InvalidArgumentError(f"momentum: expected a number below 1, got {momentum:g}.")
    coupled = decay * (1.0 - momentum)
    if not decay or not momentum:
        return coupled, ()
    text = (
        f"{name} shrinks weights apart from a gradient that momentum {momentum:g} multiplies by "
        f"{1 / (1 - momentum):.3g}: weight_decay={decay:g} counts {1 - momentum:.3g} times as much as if it were "
        f"coupled; that is shown above."
    )
    remedy = f"A coupled SGD with weight_decay={coupled:.3g} has the same prior."
    return coupled, (Finding("decoupled-momentum", "warning", text, remedy, momentum),)
