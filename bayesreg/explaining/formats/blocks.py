"""Optimizer blocks in configuration files: DeepSpeed, Hydra, Lightning's command line."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from bayesreg.errors import InvalidArgumentError
from bayesreg.explaining.findings.finding import Finding
from bayesreg.explaining.formats.groups_of import Settings, groups_of, number_of, read_as
from bayesreg.explaining.formats.named import rule_by_settings
from bayesreg.optimizers import DecayRule, decay_rule

__all__ = ["block_settings", "numbers_of", "of_torch", "rule_of"]

_NUMBERS = ("lr", "weight_decay", "momentum", "dampening", "lambd")


def block_settings(values: Mapping[str, Any], model: nn.Module | None) -> Settings | None:
    """Read a configuration with an optimizer in it.

    Args:
        values: The configuration.
        model: The model, if it is at hand.

    Returns:
        What it says; None if there is no such block.
    """
    for key in ("optimizer", "optim"):
        block = values.get(key)
        if not isinstance(block, Mapping):
            continue
        if isinstance(block.get("type"), str) and isinstance(block.get("params"), Mapping):
            return _deepspeed(block["type"], block["params"], values, model)
        if isinstance(block.get("_target_"), str):
            return _named("Hydra", block["_target_"], block, values, model)
        if isinstance(block.get("class_path"), str):
            own = block.get("init_args")
            return _named("Lightning", block["class_path"], own if isinstance(own, Mapping) else {}, values, model)
    return None


def _deepspeed(name: str, own: Mapping[str, Any], values: Mapping[str, Any], model: nn.Module | None) -> Settings:
    for key in ("lr", "weight_decay"):
        if own.get(key) == "auto":
            raise InvalidArgumentError(
                f"{key}: 'auto' is filled in by Hugging Face's Trainer; explain its arguments in place of this file."
            )
    adam = name.lower() in ("adam", "adamw")
    decoupled = name.lower() == "adamw" or own.get("adam_w_mode", True)
    known = {"adam": torch.optim.AdamW if decoupled else torch.optim.Adam, "adamw": torch.optim.AdamW}
    found = known.get(name.lower()) or of_torch(name)
    more: tuple[Finding, ...] = ()
    if adam and decoupled and name.lower() == "adam":
        text = "DeepSpeed takes Adam for AdamW unless adam_w_mode is false: its decay is decoupled."
        more = (Finding("read-as", "note", text, 'Write "type": "AdamW", or "adam_w_mode": false.'),)
    clip = number_of(values, "gradient_clipping", 0.0)
    note = read_as("a DeepSpeed configuration: all weights are in one group")
    groups = groups_of(found, rule_of(found, name), numbers_of(found, own), model, None)
    return Settings(groups, clip or None, (note, *more))


def _named(
    whose: str, path: str, own: Mapping[str, Any], values: Mapping[str, Any], model: nn.Module | None
) -> Settings:
    module, _, name = path.rpartition(".")
    found = of_torch(name) if module in ("torch.optim", "") or module.startswith("torch.optim.") else None
    trainer = values.get("trainer")
    held: Mapping[str, Any] = trainer if isinstance(trainer, Mapping) else {}
    clip = number_of(held, "gradient_clip_val", 0.0)
    steps = held.get("max_steps")
    run: dict[str, Any] = {}
    unread: tuple[Finding, ...] = ()
    if isinstance(steps, int) and steps > 0:
        if any(isinstance(values.get(key), Mapping) for key in ("lr_scheduler", "scheduler")):
            text = "Its scheduler is not read, so what decay makes of the start is not told."
            unread = (Finding("schedule-not-read", "note", text, "Pass steps= and schedule= to br.explain."),)
        else:
            run = {"steps": steps}
    note = read_as(f"a configuration of {whose}: {path} over all weights in one group")
    rule = rule_by_settings(path, own, rule_of(found, path))
    groups = groups_of(found, rule, numbers_of(found, own), model, None)
    return Settings(groups, clip or None, (note, *unread), run, clips_known=bool(held))


def of_torch(name: str) -> type[Optimizer] | None:
    """Return the optimizer of torch that has this name, in whatever case.

    Args:
        name: The name.
    """
    found = next((one for known, one in vars(torch.optim).items() if known.lower() == name.lower()), None)
    usable = inspect.isclass(found) and issubclass(found, Optimizer) and found is not Optimizer
    return found if usable else None


def rule_of(cls: type[Optimizer] | None, name: str) -> DecayRule:
    """Return what an optimizer of settings does with decay.

    Args:
        cls: Its class, if torch ships it.
        name: Its name or path.
    """
    if cls is not None:
        return decay_rule(cls)
    # Of Lion every library's decay is decoupled.
    short = name.rpartition(".")[2]
    return DecayRule("decoupled" if short.lower() == "lion" else "unknown", short)


def numbers_of(cls: type[Optimizer] | None, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a group: what is said, and else what the class has by default.

    Args:
        cls: The class, if torch ships it.
        own: What is said.
    """
    make: Any = cls
    defaults: dict[str, Any] = {} if cls is None else make([nn.Parameter(torch.zeros(2, 2))]).defaults
    held = {name: value for name, value in defaults.items() if name in (*_NUMBERS, "betas", "nesterov", "amsgrad")}
    held = {"lr": 0.0, "weight_decay": 0.0, **held}
    said: dict[str, Any] = {name: number_of(own, name, 0.0) for name in _NUMBERS if own.get(name) is not None}
    betas = own.get("betas")
    if isinstance(betas, list | tuple) and len(betas) >= 2:
        said["betas"] = tuple(number_of({"betas": beta}, "betas", 0.0) for beta in betas[:2])
    return {**held, **said}
