"""Settings in place of an optimizer: Hugging Face training arguments, timm's arguments, Keras regularizers."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from torch import nn

from bayesreg._support.calls import TELLING
from bayesreg.errors import InvalidArgumentError
from bayesreg.explaining.formats.blocks import block_settings
from bayesreg.explaining.formats.groups_of import Settings
from bayesreg.explaining.formats.hugging_face import RUN_ARGUMENTS, hugging_face_settings
from bayesreg.explaining.formats.keras import keras_optimizer_settings, keras_penalties
from bayesreg.explaining.formats.timm import timm_settings
from bayesreg.explaining.formats.torchtitan import torchtitan_settings
from bayesreg.explaining.formats.trainers import as_hugging_face, nano_gpt_settings

__all__ = ["penalties_of", "run_of", "settings_of"]

_HUGGING_FACE = ("optim", "learning_rate", "weight_decay")
_READ = (*_HUGGING_FACE, "optim_args", "max_grad_norm", "label_smoothing_factor", *RUN_ARGUMENTS)
# Names that no other program's arguments are likely to have beside a learning rate and a weight decay.
_ITS_OWN = ("max_grad_norm", "per_device_train_batch_size", "num_train_epochs", "lr_scheduler_type", "adam_beta1")


def settings_of(given: object, model: nn.Module | None) -> Settings | None:
    """Return what training settings say, None if these are none that are known.

    Args:
        given: What `br.explain` was given.
        model: The model, if it is at hand.

    Returns:
        Groups, clip and findings.
    """
    if isinstance(given, Mapping):
        if _holds_state(given):
            return None
        values: Mapping[str, Any] = given
    elif isinstance(given, Namespace):
        values = vars(given)
    elif all(hasattr(given, key) for key in _HUGGING_FACE):
        values = {key: value for key in _READ if (value := _attribute(given, key)) is not None}
    else:
        values = _config(given)
    for look in (torchtitan_settings, block_settings):
        if (found := look(values, model)) is not None:
            return found
    values = as_hugging_face(values) or values
    if (found := nano_gpt_settings(values, model)) is not None:
        return found
    if "learning_rate" in values and "weight_decay" in values and _is_hugging_face(values):
        return hugging_face_settings(values, model)
    if isinstance(values.get("opt"), str) and values.get("weight_decay") is not None:
        return timm_settings(values, model)
    return keras_optimizer_settings(values)


def _attribute(given: object, key: str) -> Any:
    # Some are asked of hardware that is not there.
    with contextlib.suppress(*TELLING, ImportError):
        return getattr(given, key)


def run_of(own: Mapping[str, Any], said: Mapping[str, Any], num_data: int | None) -> dict[str, Any]:
    """Return what is known of a run: what settings say, and in its place what was said besides.

    Args:
        own: What settings say, as arguments of `plan_of`.
        said: The same from the caller; None where nothing.
        num_data: n, where it is known.

    Returns:
        Arguments of `plan_of`.

    Raises:
        InvalidArgumentError: If a warm-up is said to a schedule of the settings.
    """
    given = {name: value for name, value in said.items() if value is not None}
    kept = dict(own)
    if "steps" in given or "epochs" in given:
        kept = {name: value for name, value in kept.items() if name not in ("steps", "epochs")}
    if "warmup" in given and "schedule" in own and "schedule" not in given:
        raise InvalidArgumentError("warmup: the settings have a schedule of their own; pass schedule= with it.")
    found = {**kept, **given}
    # Settings count in epochs, which are no steps where n is not a number of examples.
    if not given and "epochs" in found and num_data is None:
        return {}
    return found


def _is_hugging_face(values: Mapping[str, Any]) -> bool:
    optim = values.get("optim")
    named = str(getattr(optim, "value", optim)).startswith(("adamw_", "paged_", "galore_", "schedule_free_"))
    return named or any(key in values for key in _ITS_OWN)


def _holds_state(given: Mapping[Any, Any]) -> bool:
    """Return whether a mapping is a checkpoint: an optimizer's state, or one that has it under some key."""
    return _is_state(given) or any(isinstance(value, Mapping) and _is_state(value) for value in given.values())


def _is_state(given: Mapping[Any, Any]) -> bool:
    groups = given.get("param_groups")
    # torchtitan's configuration has groups of that name, with patterns.
    patterns = isinstance(groups, list) and any(isinstance(one, Mapping) and "pattern" in one for one in groups)
    return "param_groups" in given and not patterns


def penalties_of(given: object) -> dict[str, float] | None:
    """Return the coefficients of a Keras regularizer, `{"l1": …, "l2": …}`; None if it is none.

    Args:
        given: The regularizer, or its serialized configuration.

    Returns:
        The coefficients that are not 0.
    """
    values = given if isinstance(given, Mapping) else _config(given)
    return None if _holds_state(values) else keras_penalties(values)


def _config(given: object) -> Mapping[str, Any]:
    """Return the configuration of a Keras object as Keras serializes it."""
    make = getattr(given, "get_config", None)
    if not callable(make) or isinstance(given, type):
        return {}
    config = make()
    if not isinstance(config, Mapping):
        raise InvalidArgumentError(f"optimizer: get_config() of {type(given).__name__} returned no mapping.")
    return {"class_name": type(given).__name__, "config": config}
