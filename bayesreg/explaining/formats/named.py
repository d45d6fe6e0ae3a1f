"""Decays that settings name: along the update only, or none under a norm that is held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bayesreg.optimizers import DecayRule

__all__ = ["rule_by_settings"]

# Of dion, and as people write it.
_CAUTIOUS = ("cautious_wd", "cautious_weight_decay", "cautious_decay")
_HELD = ("adamh", "adamwh", "muonh", "hyperball", "adamhyperball", "muonhyperball")


def rule_by_settings(name: str, own: Mapping[str, Any], rule: DecayRule) -> DecayRule:
    """Return what an optimizer does with decay, where its name or a setting changes that.

    Args:
        name: As the settings write it.
        own: Its settings.
        rule: What is known of it otherwise.

    Returns:
        The rule.
    """
    short = name.rpartition(".")[2]
    if short.lower().replace("_", "") in _HELD:
        return DecayRule("held", short)
    if any(own.get(key) is True for key in _CAUTIOUS):
        return DecayRule("cautious", rule.name)
    return rule
