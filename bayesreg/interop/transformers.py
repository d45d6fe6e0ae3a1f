"""Priors in Hugging Face's Trainer: `PriorTrainer(..., prior="gaussian(0.5)")`, and a mixin for others built on it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bayesreg._support.optional import require
from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.interop.making import prior_over
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Belief, Gaussian
from bayesreg.routes import Handle, attach
from bayesreg.transfer import lora_prior

require("transformers", "transformers", "priors in Hugging Face's Trainer")
require("accelerate", "transformers", "priors in Hugging Face's Trainer")

from transformers import Trainer  # noqa: E402 (a clear sentence where it is missing)

__all__ = ["PriorMixin", "PriorTrainer", "count_tokens"]

#: Of the prior, in a checkpoint beside the model.
FILE = "prior.safetensors"

# What the labels of transformers' losses leave out.
_IGNORED = -100


class PriorMixin:
    """A prior for trainers built on Hugging Face's `Trainer`: `class Mine(PriorMixin, SFTTrainer): ...`.

    The prior is made of the model as it comes, before a checkpoint is loaded; attached to the optimizer before its
    state is; added before the clip (`max_grad_norm=1.0` by default); written into each checkpoint as
    `prior.safetensors` and taken from there at resume. Logs have `prior/log_prior` and `prior/penalty_in_loss`.

    Args:
        *args: As the trainer takes them.
        prior: A prior; words, as `br.prior_from_words` takes them, or "pretrained(std)" for a Gaussian about the
            weights that the model came with, or "lora(std)" for one on the update that LoRA adapters add; rules, as
            `br.ModelPrior` takes them; or a function from the model to a `br.ModelPrior`.
        num_data: What the loss is a mean over: the number of examples, or of label tokens that count (`count_tokens`),
            or the `LossScale` of a loss that is no mean. Default: the size of `train_dataset`, where each example has
            one label; else it must be told.
        **kwargs: As the trainer takes them.

    Raises:
        InvalidArgumentError: If `TrainingArguments.weight_decay` is set beside the prior, n cannot be told, or the
            prior is none.
        UnsupportedError: Under DeepSpeed or FSDP.
    """

    args: Any
    model: Any
    accelerator: Any
    train_dataset: Any
    label_names: list[str]
    is_deepspeed_enabled: bool
    is_fsdp_enabled: bool
    _scale: LossScale | None

    def __init__(
        self,
        *args: Any,
        prior: Belief | str | Mapping[Any, Belief] | Any,
        num_data: int | LossScale | None = None,
        **kwargs: Any,
    ) -> None:
        self._rules, self._scale = prior, None
        #: The prior over the model, and what it is attached by; None before training.
        self.model_prior: ModelPrior | None = None
        self.prior_handle: Handle | None = None
        super().__init__(*args, **kwargs)
        if self.args.weight_decay:
            raise InvalidArgumentError(
                f"TrainingArguments.weight_decay={self.args.weight_decay:g} would count on top of the prior; leave it "
                f"out, and let the prior decide."
            )
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise UnsupportedError(
                "prior: not under DeepSpeed or FSDP yet; on a loop of one's own br.attach takes FSDP2."
            )
        self._scale = _scale_of(
            num_data, self.train_dataset, self.label_names, getattr(self, "_loss_shifts_labels", False)
        )
        self._take(self.model)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Make a model anew, as the trainer does, and its prior of the weights that it has now."""
        made: nn.Module = super().call_model_init(trial)  # type: ignore[misc]
        # The trainer makes one while it is made itself, and another one at each beginning.
        if self._scale is not None:
            self._take(made)
        return made

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer as the trainer does, and attach the prior to it."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)  # type: ignore[misc]
        if self.prior_handle is not None:
            self.prior_handle.remove()
        assert self.model_prior is not None
        assert self._scale is not None
        self.prior_handle = attach(optimizer, self.model_prior, self._scale, before_clip=self.args.max_grad_norm > 0)
        return optimizer

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the prior's terms beside the loss of training."""
        if self.prior_handle is not None and "loss" in logs:
            terms = self.prior_handle.log()
            logs = {**logs, **{f"prior/{name}": terms[name] for name in ("log_prior", "penalty_in_loss")}}
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _take(self, model: nn.Module) -> None:
        assert self._scale is not None
        self.model_prior = _prior_of(model, self._rules, self._scale)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Add the prior before the clip; the trainer calls it where there is one."""
        assert self.prior_handle is not None
        limit = self.args.max_grad_norm
        if self.accelerator.scaler is None:
            self.prior_handle.apply_()
            norm = super()._clip_grad_norm(model)  # type: ignore[misc]
        else:
            # Accelerate's own clip unscales once more, which torch refuses.
            self.accelerator.unscale_gradients()
            self.prior_handle.apply_()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        self.prior_handle.clipped(norm, limit)
        return norm

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        if self.args.should_save and self.model_prior is not None:
            self.model_prior.save(Path(output_dir or self.args.output_dir) / FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str | os.PathLike[str], model: Any = None) -> None:
        path = Path(resume_from_checkpoint) / FILE
        if path.is_file():
            self.model_prior = _resumed(path, self.model, self.model_prior)
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]


class PriorTrainer(PriorMixin, Trainer):
    """Hugging Face's `Trainer` with a prior: see `PriorMixin` for its arguments.

    Example:
        >>> import torch, bayesreg as br
        >>> from transformers import TrainingArguments
        >>> PriorTrainer.__mro__[1].__name__
        'PriorMixin'
    """


def count_tokens(dataset: Any, *, causal: bool, column: str = "labels") -> int:
    """Return how many label tokens count in a data set, those that are not −100: n of a loss that is a mean over them.

    Args:
        dataset: Examples as mappings.
        causal: Whether the first label of each example is left out, as the Trainer does where it knows that the
            model's loss shifts labels. It does not for every language model: the error that asks for n says which.
        column: The name of the labels.

    Returns:
        The number.

    Example:
        >>> dataset = [{"labels": [4, 5, 6]}, {"labels": [-100, 7]}]
        >>> count_tokens(dataset, causal=True), count_tokens(dataset, causal=False)
        (3, 4)
    """
    first = 1 if causal else 0
    return sum(int((torch.as_tensor(example[column])[..., first:] != _IGNORED).sum()) for example in dataset)


def _prior_of(model: nn.Module, given: Any, num_data: int | LossScale) -> ModelPrior:
    own = re.fullmatch(r"\s*(pretrained|lora)\s*(?:\(([^)]*)\))?\s*", given) if isinstance(given, str) else None
    if own is None:
        return prior_over(model, given, num_data)
    name, std = own.groups()
    try:
        scale = float(std or "")
    except ValueError:
        raise InvalidArgumentError(
            f"prior: expected the width of {name!r} as a number, such as '{name}(0.05)', got {given!r}; how to choose "
            f"it where a fit costs hours: docs/frameworks.md, Which width."
        ) from None
    return lora_prior(model, scale) if name == "lora" else ModelPrior(model, Gaussian.centered_at(model, scale))


def _resumed(path: Path, model: nn.Module, now: ModelPrior | None) -> ModelPrior:
    found = ModelPrior.load(path, model)
    if now is not None and not _same_but_for_centres(found, now):
        raise InvalidArgumentError(
            f"prior: the checkpoint was written under another prior than is given now; pass the same, or remove {path} "
            f"to go on under the new one."
        )
    return found


def _same_but_for_centres(one: ModelPrior, other: ModelPrior) -> bool:
    """Return whether priors are of the same families and widths; a centre is that of the model as it first came."""
    first, second = ({entry.name: entry.prior for entry in prior} for prior in (one, other))
    return first.keys() == second.keys() and all(_alike(first[name], second[name]) for name in first)


def _alike(one: Belief | None, other: Belief | None) -> bool:
    if one is None or other is None or one.family != other.family:
        return one is other
    ours, theirs = one.hyperparameters(), other.hyperparameters()
    return ours.keys() == theirs.keys() and all(_equal(name, value, theirs[name]) for name, value in ours.items())


def _equal(name: str, one: object, other: object) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return repr(one) == repr(other)
    moved = name == "loc" and one.ndim > 0 and other.ndim > 0
    return moved or (one.shape == other.shape and bool((one.cpu() == other.cpu()).all()))


def _scale_of(given: int | LossScale | None, dataset: Any, names: Sequence[str], shifts: bool) -> LossScale:
    if given is not None:
        return as_loss_scale(given)
    try:
        count, first = len(dataset), dataset[0]
    except (TypeError, IndexError, KeyError):
        raise InvalidArgumentError(
            "num_data: train_dataset has no length; pass num_data=, what the loss is a mean over."
        ) from None
    held = first if isinstance(first, Mapping) else {}
    # The default collator calls them `labels`.
    found = [held[name] for name in dict.fromkeys(("label", "label_ids", *names)) if name in held]
    if not found:
        raise InvalidArgumentError(
            f"num_data: the examples have no {' or '.join(names) or 'labels'}, so a collator or the model makes them, "
            f"as for language models, whose loss is a mean over tokens; pass what the loss is a mean over."
        )
    if len(found) > 1 or torch.as_tensor(found[0]).numel() > 1:
        raise InvalidArgumentError(
            f"num_data: an example has several labels, and the loss is a mean over all of them; pass how many there "
            f"are: num_data=br.interop.transformers.count_tokens(train_dataset, causal={shifts}) for tokens."
        )
    return as_loss_scale(count)
