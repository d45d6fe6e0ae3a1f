"""What timm's training arguments make its optimizer factory do with weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from bayesreg.explaining.findings.finding import Finding
from bayesreg.explaining.formats.groups_of import Settings, groups_of, heavy_ball, number_of, read_as, soft_targets
from bayesreg.explaining.formats.named import rule_by_settings
from bayesreg.horizon.plan import Shape
from bayesreg.horizon.rates import Rates
from bayesreg.optimizers import DecayRule, decay_rule
from bayesreg.optimizers.decay import CORRECTED
from bayesreg.selection import ParameterInfo

__all__ = ["timm_settings"]

# By probing every optimizer of timm 1.0.31's registry (br.decay_rule): names do not tell (nadam is coupled, adabelief
# is not).
# fmt: off
_COUPLED = {
    "adadelta", "adagrad", "adam", "adamax", "adopt", "cadopt", "crmsproptf", "madgrad", "momentum", "nadam",
    "nadamlegacy", "nesterov", "radam", "rmsprop", "rmsproptf", "sgd",
}
_DECOUPLED = {
    "adabelief", "adafactor", "adafactorbv", "adamuon", "adamw", "adamwlegacy", "adanw", "cadafactor",
    "cadafactorbv", "cadamw", "cadanw", "claprop", "clion", "cmars", "cnadamw", "csgdw", "lambc", "lambcw",
    "laprop", "lion", "mars", "muon", "nadamuon", "nadamw", "nmuon", "novogradw", "radabelief", "radamlegacy",
    "radamw", "rmsproptfw",
}
# Decoupled, by lr²/lr_max in place of lr.
_CORRECTED = {
    "adafactorbvc", "adamc", "cadafactorbvc", "cadamc", "clionc", "cnadamc", "csgdc", "lapropc", "lionc",
    "nadamc", "novogradc", "rmsproptfc", "sgdc",
}
_OTHER = {
    "adamp", "adan", "adoptc", "adoptw", "cadamp", "cadan", "cadoptc", "cadoptw", "clamb", "clambw", "csgdp",
    "kron", "kronc", "kronw", "lamb", "lambcd", "lambw", "larc", "lars", "madgradw", "nlarc", "nlars",
    "novograd", "sgdp",
}
# fmt: on
# Apart from the gradient, yet at rest as if added to it, with (1 − momentum) of the decay.
_HEAVY_BALL = ("sgdw", "nesterovw")
_TORCH: dict[str, type[Optimizer]] = {
    "sgd": torch.optim.SGD, "momentum": torch.optim.SGD, "nesterov": torch.optim.SGD, "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW, "nadam": torch.optim.NAdam, "radam": torch.optim.RAdam, "adamax": torch.optim.Adamax,
    "adagrad": torch.optim.Adagrad, "adadelta": torch.optim.Adadelta, "rmsprop": torch.optim.RMSprop,
}  # fmt: skip


def timm_settings(values: Mapping[str, Any], model: nn.Module | None) -> Settings:
    """Read the arguments of timm's training script, or of `create_optimizer_v2`.

    Args:
        values: The arguments.
        model: The model, if it is at hand.

    Returns:
        What they say.
    """
    name = str(values["opt"]).lower().removeprefix("lookahead_").replace("_", "")
    momentum = number_of(values, "momentum", 0.9)
    settings: dict[str, Any] = {
        "lr": number_of(values, "lr", 0.0), "weight_decay": number_of(values, "weight_decay", 0.0)
    }  # fmt: skip
    findings: tuple[Finding, ...] = (
        read_as("timm's arguments: vectors, biases and what the model names are left out"),
    )
    cls = _TORCH.get(name)
    if name in ("sgd", "momentum", "nesterov", "rmsprop", *_HEAVY_BALL):
        settings["momentum"] = momentum
    if name in _HEAVY_BALL:
        settings["weight_decay"], more = heavy_ball(name, settings["weight_decay"], momentum)
        findings += more
    mixed = [word for key, word in _MIXES.items() if number_of(values, key, 0.0)]
    clip, mode = number_of(values, "clip_grad", 0.0), str(values.get("clip_mode") or "norm")
    rule = rule_by_settings(name, values, _rule(name, cls))
    settings |= {CORRECTED: True} if name in _CORRECTED else {}
    if clip and mode != "norm" and rule.kind == "coupled" and settings["weight_decay"]:
        findings += (_other_clip(mode),)
    everything = values.get("filter_bias_and_bn") is False or values.get("weight_decay_exclude_1d") is False
    groups = groups_of(cls, rule, settings, model, None if everything else _decayed_in(model))
    run, unread = _run(values)
    findings += (*soft_targets(mixed), *unread)
    return Settings(groups, clip if clip and mode == "norm" else None, findings, run)


def _run(values: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """Return what the arguments say of the run; nothing of what they leave to defaults, which differ by version."""
    epochs, batch, peak = (number_of(values, key, 0.0) for key in ("epochs", "batch_size", "lr"))
    kind = values.get("sched")
    if not epochs or not batch or not peak or kind is None:
        return {}, ()
    others = ("lr_noise", "sched_on_updates", "warmup_prefix")
    cycles = number_of(values, "lr_cycle_limit", 1.0) > 1 or number_of(values, "lr_k_decay", 1.0) != 1.0
    if kind != "cosine" or cycles or any(values.get(key) for key in others):
        text = f"The schedule {kind!r} with these arguments is not read, so what decay makes of the start is not told."
        return {}, (Finding("schedule-not-read", "note", text, "Pass steps= and schedule= to br.explain."),)
    cooldown, up = number_of(values, "cooldown_epochs", 0.0), number_of(values, "warmup_epochs", 0.0)
    low, first = number_of(values, "min_lr", 0.0) / peak, number_of(values, "warmup_lr", 0.0) / peak

    def shape(total: int) -> Rates:
        # One learning rate per epoch; the cosine goes on under the warm-up.
        epoch = np.floor(np.arange(total) * (epochs + cooldown) / total + 1e-9)
        falling = low + 0.5 * (1.0 - low) * (1.0 + np.cos(np.pi * np.minimum(epoch / epochs, 1.0)))
        return np.where(epoch < up, first + epoch * (1.0 - first) / max(up, 1.0), falling)

    size = max(1, round(batch * number_of(values, "world_size", 1)))
    return {"epochs": epochs + cooldown, "batch_size": size, "schedule": Shape(shape), "drop_last": True}, ()


_MIXES = {"smoothing": "label smoothing", "mixup": "mixup", "cutmix": "cutmix"}


def _rule(name: str, cls: type[Optimizer] | None) -> DecayRule:
    if cls is not None:
        return decay_rule(cls)
    if name in _COUPLED or name in _HEAVY_BALL:
        return DecayRule("coupled", name)
    if name in _DECOUPLED or name in _CORRECTED:
        return DecayRule("decoupled", name)
    return DecayRule("other" if name in _OTHER else "unknown", name)


def _decayed_in(model: nn.Module | None) -> Any:
    """Return timm's own choice: no decay for vectors, biases and what the model names."""
    list_them = getattr(model, "no_weight_decay", None)
    free = tuple(list_them()) if callable(list_them) else ()

    def decayed(info: ParameterInfo) -> bool:
        kept_out = info.parameter.ndim <= 1 or info.name.endswith(".bias")
        return not kept_out and not any(fnmatch(info.name, pattern) for pattern in free)

    return decayed


def _other_clip(mode: str) -> Finding:
    return Finding(
        "clip-before-decay", "warning",
        f"Gradients are clipped by {mode}; a coupled decay acts after that and counts more wherever the clip acts.",
        "br.attach(..., before_clip=True) adds the prior before the clip, which keeps its strength.", 0.5,
    )  # fmt: skip
