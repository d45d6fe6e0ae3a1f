"""Training programs whose settings are other names for known ones: axolotl, LLaMA-Factory; and nanoGPT's own."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from bayesreg.errors import InvalidArgumentError
from bayesreg.explaining.formats.groups_of import Settings, groups_of, number_of, read_as
from bayesreg.horizon.plan import Shape
from bayesreg.horizon.rates import Rates
from bayesreg.optimizers import decay_rule

__all__ = ["as_hugging_face", "literals", "nano_gpt_settings"]

_AXOLOTL = {
    "optimizer": "optim", "num_epochs": "num_train_epochs", "micro_batch_size": "per_device_train_batch_size",
    "lr_scheduler": "lr_scheduler_type",
}  # fmt: skip


def as_hugging_face(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return settings of axolotl or LLaMA-Factory as Hugging Face's training arguments, which they become.

    Args:
        values: The settings.

    Returns:
        The arguments; None if these are settings of neither.
    """
    if "base_model" in values and "micro_batch_size" in values and "learning_rate" in values:
        found = {_AXOLOTL.get(key, key): value for key, value in values.items()}
        return {"weight_decay": 0.0, "lr_scheduler_type": "cosine", **found}
    if "model_name_or_path" in values and ("finetuning_type" in values or "stage" in values):
        return {"weight_decay": 0.0, "learning_rate": 5e-5, **values}
    return None


def literals(text: str) -> dict[str, Any]:
    """Return the names of a Python file that are given plain values; nothing of it is run.

    Args:
        text: The file.

    Returns:
        Values by name; of names that are given twice the last.

    Raises:
        InvalidArgumentError: If it is no Python.
    """
    try:
        lines = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidArgumentError(f"settings: no Python file ({type(error).__name__}).") from error
    found: dict[str, Any] = {}
    for line in lines:
        if not isinstance(line, ast.Assign | ast.AnnAssign) or line.value is None:
            continue
        targets = line.targets if isinstance(line, ast.Assign) else [line.target]
        for target in targets:
            if isinstance(target, ast.Name):
                value = _value(line.value)
                if value is not None:
                    found[target.id] = value
    return found


def _value(node: ast.expr) -> Any:
    """Return a plain value, or a product of numbers as people write them (5 * 8)."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        parts = _value(node.left), _value(node.right)
        # Numbers alone, and of a size that a setting may have.
        if all(isinstance(part, int | float) and abs(part) < 1e15 for part in parts):
            return parts[0] * parts[1]
        return None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def nano_gpt_settings(values: Mapping[str, Any], model: nn.Module | None) -> Settings | None:
    """Read nanoGPT's configuration: AdamW, tensors of two axes decayed, a cosine from a warm-up to `min_lr`.

    Args:
        values: Its names.
        model: The model, if it is at hand.

    Returns:
        What it says; None if it is none. What it leaves to train.py is not guessed.
    """
    if not {"learning_rate", "max_iters"} <= values.keys():
        return None
    peak, decay = number_of(values, "learning_rate", 0.0), number_of(values, "weight_decay", 0.1)
    told = "" if values.get("weight_decay") is not None else ", weight_decay is train.py's 0.1"
    betas = tuple(number_of(values, key, default) for key, default in (("beta1", 0.9), ("beta2", 0.95)))
    settings = {"lr": peak, "weight_decay": decay, "betas": betas}
    rule = decay_rule(torch.optim.AdamW)
    groups = groups_of(torch.optim.AdamW, rule, settings, model, lambda info: info.parameter.ndim >= 2)
    clip = number_of(values, "grad_clip", 1.0)
    note = read_as(f"nanoGPT's configuration: what has fewer than two axes is left out{told}")
    steps = int(number_of(values, "max_iters", 0.0))
    run: dict[str, Any] = {}
    if steps and values.get("decay_lr", True) is False:
        run = {"steps": steps}
    elif steps and peak and {"warmup_iters", "lr_decay_iters", "min_lr"} <= values.keys():
        up, end = (number_of(values, key, 0.0) for key in ("warmup_iters", "lr_decay_iters"))
        low = number_of(values, "min_lr", 0.0) / peak

        def shape(total: int) -> Rates:
            step = np.arange(total, dtype=np.float64)
            done = np.clip((step - up) / max(end - up, 1.0), 0.0, 1.0)
            falling = low + 0.5 * (1.0 - low) * (1.0 + np.cos(np.pi * done))
            return np.where(step < up, (step + 1.0) / (up + 1.0), falling)

        run = {"steps": steps, "schedule": Shape(shape)}
    return Settings(groups, clip or None, (note,), run)
