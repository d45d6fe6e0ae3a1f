"""What Hugging Face's `TrainingArguments` make the `Trainer` do with weight decay."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from bayesreg.explaining.formats.groups_of import Settings, groups_of, number_of, read_as, soft_targets
from bayesreg.optimizers import DecayRule, class_of, decay_rule
from bayesreg.selection import ParameterInfo

__all__ = ["hugging_face_settings"]

# What the Trainer leaves without decay: parameters inside nn.LayerNorm, and names that match one of these.
_FREE = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
# Its optimizers that torch ships, by the name it gives them.
_TORCH = {"sgd": "SGD", "adagrad": "Adagrad", "rmsprop": "RMSprop"}
_ADAMW = re.compile(r"^(paged_)?adamw(_torch|_torch_fused|_torch_xla|_torch_npu_fused|_apex_fused|_anyprecision|_hf"
                    r"|_bnb_8bit|_8bit|_32bit|_torch_4bit|_torch_8bit)?$")  # fmt: skip
_DECOUPLED = re.compile(r"^(paged_)?(lion|ademamix)(_8bit|_32bit)?$|^adafactor$")


def hugging_face_settings(values: Mapping[str, Any], model: nn.Module | None) -> Settings:
    """Read training arguments.

    Args:
        values: The arguments.
        model: The model, if it is at hand; it is wrapped in nothing when the Trainer makes its optimizer.

    Returns:
        What they say.
    """
    optim = values.get("optim") or "adamw_torch_fused"  # the Trainer's default
    name = str(getattr(optim, "value", optim))
    settings: dict[str, Any] = {
        "lr": number_of(values, "learning_rate", 5e-5),
        "weight_decay": number_of(values, "weight_decay", 0.0),
    }
    cls, rule = None, DecayRule("unknown", name)
    known = "AdamW" if _ADAMW.match(name) else _TORCH.get(name)
    if known:
        cls, rule = class_of(known)[0], decay_rule(known)
        if known != "AdamW":
            # The Trainer's groups and its learning rate come before these.
            settings = {**_own_arguments(values.get("optim_args")), **settings}
    elif _DECOUPLED.match(name):
        rule = DecayRule("decoupled", name)
    clip = number_of(values, "max_grad_norm", 1.0)
    smoothing = number_of(values, "label_smoothing_factor", 0.0)
    decayed = _decayed_in(model) if model is not None else None
    groups = groups_of(cls, rule, settings, model, decayed or (lambda _: True))
    told = "" if values.get("max_grad_norm") is not None else ", its default"
    clipped = f"gradients are clipped to {clip:g}{told}" if clip else "gradients are not clipped"
    note = read_as(f"Hugging Face training arguments: what is named like a bias or a norm is left out, {clipped}")
    return Settings(groups, clip or None, (note, *soft_targets(["label smoothing"] if smoothing else [])))


def _own_arguments(given: Any) -> dict[str, float]:
    """Return the numbers of `optim_args`, "momentum=0.9, ..."."""
    if not isinstance(given, str):
        return {}
    pairs = (part.split("=", 1) for part in given.replace(" ", "").split(",") if "=" in part)
    found = {}
    for key, value in pairs:
        with contextlib.suppress(ValueError):
            found[key] = float(value)
    return found


def _decayed_in(model: nn.Module) -> Any:
    inside = {
        f"{name}.{inner}"
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        for inner, _ in module.named_parameters()
    }

    def decayed(info: ParameterInfo) -> bool:
        return info.name not in inside and not _FREE.search(info.name.lower())

    return decayed
