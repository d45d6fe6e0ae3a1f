"""torchtitan's configuration: param groups by regular expressions, first match first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from bayesreg.errors import InvalidArgumentError
from bayesreg.explaining.findings.finding import Finding
from bayesreg.explaining.formats.blocks import numbers_of, of_torch, rule_of
from bayesreg.explaining.formats.groups_of import Settings, number_of, read_as
from bayesreg.explaining.groups.facts import GroupFacts, ParameterFacts, fact_of
from bayesreg.horizon.plan import Shape
from bayesreg.horizon.rates import Rates
from bayesreg.selection import parameters_of

__all__ = ["torchtitan_settings"]

_WHOSE = ("training", "lr_scheduler", "parallelism", "job", "metrics")
# What its optimizer has where nothing is said.
_OWN = {"lr": 8e-4, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95}
_FALLS = ("linear", "sqrt", "cosine")


def torchtitan_settings(values: Mapping[str, Any], model: nn.Module | None) -> Settings | None:
    """Read a configuration of torchtitan: an optimizer by name, with groups by patterns of parameter names.

    Args:
        values: The configuration.
        model: The model, if it is at hand.

    Returns:
        What it says; None if it is none.

    Raises:
        InvalidArgumentError: If a pattern is no regular expression.
    """
    block = values.get("optimizer")
    if not isinstance(block, Mapping):
        return None
    listed = block.get("param_groups")
    rules: list[Any] = list(listed) if isinstance(listed, list | tuple) else []
    named = isinstance(block.get("name"), str) and any(isinstance(values.get(key), Mapping) for key in _WHOSE)
    if not (named or rules) or not all(isinstance(r, Mapping) and isinstance(r.get("pattern"), str) for r in rules):
        return None
    whole = _settings(block)
    groups: list[tuple[str | None, str, dict[str, Any]]] = []
    # Where each group names an optimizer of its own there is no other.
    if not rules or not all("optimizer_name" in rule for rule in rules):
        groups.append((None, str(block.get("name") or "AdamW"), whole))
    groups += [(rule["pattern"], *_of_rule(rule, block, whole)) for rule in rules]
    facts, empty = _grouped(groups, model)
    training = _held(values, "training")
    clip = number_of(training, "max_norm", 0.0)
    run, unread = _run(values, training)
    how = "groups by patterns of names, the first that matches" if rules else "all weights are in one group"
    notes = (read_as(f"torchtitan's configuration: {how}"), *empty, *unread)
    return Settings(facts, clip or None, notes, run, clips_known="max_norm" in training)


def _held(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def _settings(own: Mapping[str, Any]) -> dict[str, Any]:
    betas = tuple(number_of(own, key, _OWN[key]) for key in ("beta1", "beta2"))
    return {"betas": betas, **{key: number_of(own, key, _OWN[key]) for key in ("lr", "weight_decay")}}


def _of_rule(rule: Mapping[str, Any], block: Mapping[str, Any], whole: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return optimizer and settings of a group: its own, or the whole's times its multipliers."""
    if isinstance(rule.get("optimizer_name"), str):
        return rule["optimizer_name"], dict(_held(rule, "optimizer_kwargs"))
    times = {key: number_of(rule, f"{key}_multiplier", 1.0) for key in ("lr", "weight_decay")}
    betas = tuple(number_of(rule, f"beta{i + 1}", beta) for i, beta in enumerate(whole["betas"]))
    made = {**whole, "betas": betas, **{key: times[key] * whole[key] for key in times}}
    return str(block.get("name") or "AdamW"), {**made, **_held(rule, "optimizer_kwargs")}


def _grouped(
    groups: Sequence[tuple[str | None, str, dict[str, Any]]], model: nn.Module | None
) -> tuple[list[GroupFacts], tuple[Finding, ...]]:
    """Return the groups that have members, and what there is to say of patterns that match nothing."""
    found: list[GroupFacts] = []
    unmatched = []
    for (pattern, name, settings), held in zip(
        groups, _members([pattern for pattern, *_ in groups], model), strict=True
    ):
        if held:
            cls = of_torch(name)
            found.append(GroupFacts(len(found), cls, rule_of(cls, name), numbers_of(cls, settings), held))
        elif pattern is not None:
            unmatched.append(repr(pattern))
    if not unmatched:
        return found, ()
    text = f"param_groups: no parameter has a name that matches {' or '.join(unmatched)}."
    return found, (Finding("pattern-unmatched", "warning", text, "Its settings act on nothing."),)


def _members(patterns: Sequence[str | None], model: nn.Module | None) -> list[list[ParameterFacts]]:
    """Return the parameters of each pattern, of None those that no other matches."""
    try:
        looks = [None if pattern is None else re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise InvalidArgumentError(f"param_groups: expected patterns, regular expressions; {error}.") from error
    if model is None:
        return [[_unnamed(pattern, alone=len(patterns) == 1)] for pattern in patterns]
    found: list[list[ParameterFacts]] = [[] for _ in patterns]
    for info in parameters_of(model):
        if info.parameter.requires_grad:
            at = next((i for i, look in enumerate(looks) if look is not None and look.search(info.name)), None)
            place = looks.index(None) if at is None and None in looks else at
            if place is not None:
                found[place].append(fact_of(info.parameter, info, {}, place))
    return found


def _unnamed(pattern: str | None, *, alone: bool) -> ParameterFacts:
    name = f"names like {pattern}" if pattern is not None else "all weights" if alone else "all others"
    vector = pattern is not None and re.search(pattern, "layers.0.feed_forward.w1.bias") is not None and pattern != ".*"
    return ParameterFacts(name, "bias" if vector else "weight", (0,), torch.float32, None, {})


def _run(values: Mapping[str, Any], training: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """Return what is said of the run: a warm-up, a plateau and a fall; nothing of what is left to defaults."""
    steps, schedule = int(number_of(training, "steps", 0.0)), _held(values, "lr_scheduler")
    if not steps:
        return {}, ()
    if "warmup_steps" not in schedule or schedule.get("decay_type", "linear") not in _FALLS:
        text = "The schedule is not said in whole, so what decay makes of the start is not told."
        return {}, (Finding("schedule-not-read", "note", text, "Pass steps= and schedule= to br.explain."),)
    up, share = int(number_of(schedule, "warmup_steps", 0.0)), schedule.get("decay_ratio")
    low = number_of(schedule, "min_lr_factor", number_of(schedule, "lr_min", 0.0))
    falling = steps - up if share is None else round(steps * number_of(schedule, "decay_ratio", 0.0))
    kind = str(schedule.get("decay_type", "linear"))

    def shape(total: int) -> Rates:
        step, stable = np.arange(total, dtype=np.float64), steps - falling
        done = np.clip((step + 1.0 - stable) / (falling + 1.0), 0.0, 1.0)
        left = {"linear": 1.0 - done, "sqrt": 1.0 - np.sqrt(done), "cosine": 0.5 * (1.0 + np.cos(np.pi * done))}[kind]
        down = np.where((step < stable) | (falling == 0), 1.0, low + (1.0 - low) * left)
        return np.where(step < up, (step + 1.0) / (up + 1.0), down)

    batch = int(number_of(training, "global_batch_size", 0.0)) if training.get("global_batch_size") != -1 else 0
    run = {"steps": steps, "schedule": Shape(shape)}
    return run | ({"batch_size": batch} if batch > 0 else {}), ()
