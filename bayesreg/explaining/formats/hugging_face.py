"""What Hugging Face's `TrainingArguments` make the `Trainer` do with weight decay."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import nn

from bayesreg.explaining.findings.finding import Finding
from bayesreg.explaining.formats.groups_of import Settings, groups_of, number_of, read_as, soft_targets
from bayesreg.horizon.plan import Shape
from bayesreg.horizon.rates import Rates
from bayesreg.optimizers import DecayRule, class_of, decay_rule
from bayesreg.selection import ParameterInfo

__all__ = ["RUN_ARGUMENTS", "hugging_face_settings"]

#: What they say of the length of a run.
RUN_ARGUMENTS = (
    "max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "world_size",
    "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio",
)  # fmt: skip

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
    run, unread = _run(values)
    return Settings(groups, clip or None, (note, *soft_targets(["label smoothing"] if smoothing else []), *unread), run)


def _run(values: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """Return what the arguments say of the run, as the Trainer acts on it."""
    if not any(values.get(key) is not None for key in RUN_ARGUMENTS):
        # A few settings picked by hand: no length is better than that of defaults.
        return {}, ()
    kind = values.get("lr_scheduler_type") or "linear"
    name = str(getattr(kind, "value", kind))
    if name not in _SHAPES or values.get("lr_scheduler_kwargs"):
        text = f"lr_scheduler_type {name!r} is not read, so what decay makes of the start is not told."
        return {}, (Finding("schedule-not-read", "note", text, "Pass steps= and schedule= to br.explain."),)
    each = number_of(values, "per_device_train_batch_size", 8) * number_of(values, "gradient_accumulation_steps", 1)
    most = values.get("max_steps")
    steps = int(most) if isinstance(most, int | float) and most > 0 else None
    length: dict[str, Any] = (
        {"epochs": number_of(values, "num_train_epochs", 3.0)} if steps is None else {"steps": steps}
    )
    rising = number_of(values, "warmup_steps", 0.0)
    # In newer versions a share may be written as a number of steps below 1.
    share = rising if rising < 1.0 else 0.0
    share = share or number_of(values, "warmup_ratio", 0.0)

    def shape(total: int) -> Rates:
        up = int(rising) if rising >= 1.0 else math.ceil(total * share)
        return _SHAPES[name](np.arange(total, dtype=np.float64), up, total)

    size = max(1, round(each * number_of(values, "world_size", 1)))
    return {**length, "batch_size": size, "schedule": Shape(shape)}, ()


def _rising(step: Rates, warmup: int, after: Rates) -> Rates:
    return np.where(step < warmup, step / max(1, warmup), after)


# As transformers' optimization.py has them: the first step of a warm-up is taken with 0.
_SHAPES: dict[str, Callable[[Rates, int, int], Rates]] = {
    "constant": lambda step, _, __: np.ones_like(step),
    "constant_with_warmup": lambda step, up, _: _rising(step, up, np.ones_like(step)),
    "linear": lambda step, up, total: _rising(step, up, np.clip((total - step) / max(1, total - up), 0.0, None)),
    "cosine": lambda step, up, total: _rising(step, up, 0.5 * (1.0 + np.cos(np.pi * (step - up) / max(1, total - up)))),
}


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
