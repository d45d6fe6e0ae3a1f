"""Priors in Hugging Face's Trainer: `PriorTrainer(..., prior="gaussian(0.5)")`, and a mixin for others built on it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader

from bayesreg._support.files import write_json
from bayesreg._support.optional import require
from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.data.size import undisturbed
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.interop.keeping import FILE, require_same_scale, resumed
from bayesreg.interop.making import of_the_weights, prior_about
from bayesreg.model_prior import ModelPrior
from bayesreg.optimizers import unwrap
from bayesreg.optimizers.attached import attachment_of
from bayesreg.priors import Belief
from bayesreg.routes import Handle, attach

require("transformers", "transformers", "priors in Hugging Face's Trainer")
require("accelerate", "transformers", "priors in Hugging Face's Trainer")

from transformers import Trainer  # noqa: E402 (a clear sentence where it is missing)

__all__ = ["PriorMixin", "PriorTrainer"]

# What the labels of transformers' losses leave out.
_IGNORED = -100
# Beside the prior in a checkpoint: what the run took for n.
_SCALE = "prior.json"
_NOTHING: Any = object()


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
        num_data: What the loss is a mean over: the number of examples; "tokens", which counts the labels that the
            trainer divides by in one pass over the prepared data, by its own collator; another number; or the
            `LossScale` of a loss that is no mean. Default: the size of `train_dataset`, where each example has one
            label; else it must be told. Counted again where `train_dataset` has been replaced.
        **kwargs: As the trainer takes them.

    Raises:
        InvalidArgumentError: If `TrainingArguments.weight_decay` is set beside the prior, n cannot be told, or the
            prior is none.
        UnsupportedError: Under DeepSpeed or FSDP1.
    """

    args: Any
    model: Any
    accelerator: Any
    train_dataset: Any
    label_names: list[str]
    is_deepspeed_enabled: bool
    is_fsdp_enabled: bool
    data_collator: Any
    _remove_unused_columns: Any
    _get_collator_with_removed_columns: Any
    optimizer: Any

    def __init__(
        self,
        *args: Any,
        prior: Belief | str | Mapping[Any, Belief] | Any,
        num_data: int | LossScale | Literal["tokens"] | None = None,
        **kwargs: Any,
    ) -> None:
        self._rules, self._num_data, self._scale, self._made = prior, num_data, as_loss_scale(1), False
        #: The data that were counted; none yet.
        self._counted: Any = _NOTHING
        #: The prior over the model, and what it is attached by; None before training.
        self.model_prior: ModelPrior | None = None
        self.prior_handle: Handle | None = None
        super().__init__(*args, **kwargs)
        if self.args.weight_decay:
            raise InvalidArgumentError(
                f"TrainingArguments.weight_decay={self.args.weight_decay:g} would count on top of the prior; leave it "
                f"out, and let the prior decide."
            )
        if self.is_deepspeed_enabled:
            raise UnsupportedError("prior: DeepSpeed clips and steps inside its engine, where no prior can be added.")
        if self.is_fsdp_enabled and not self.accelerator.is_fsdp2:
            raise UnsupportedError(
                "prior: FSDP1 joins weights and biases in flat parameters, so a prior would see a part of them; pass "
                "fsdp_config={'version': 2, ...}, FSDP2."
            )
        if isinstance(num_data, str) and num_data != "tokens":
            raise InvalidArgumentError(f"num_data: expected a number, 'tokens' or a LossScale, got {num_data!r}.")
        self._made = True
        if self.train_dataset is not None or num_data not in (None, "tokens"):
            self._count()
        # To evaluate alone, nothing needs to be counted.
        if self.model_prior is None and of_the_weights(prior):
            self._take(self.model)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Make a model anew, as the trainer does, and its prior of the weights that it has now."""
        made: nn.Module = super().call_model_init(trial)  # type: ignore[misc]
        # The trainer makes one while it is made itself, and another one at each beginning.
        if self._made:
            self._take(made)
        return made

    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator as the trainer does; before version 5 the trainer clips by calling it."""
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        if not hasattr(Trainer, "_clip_grad_norm"):
            clip = self.accelerator.clip_grad_norm_
            self.accelerator.clip_grad_norm_ = partial(self._clip_with_prior, clip)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Make the optimizer as the trainer does, and attach the prior to it."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        # Of whole weights, which FSDP2 takes out of the optimizer when it shards them.
        if not self.is_fsdp_enabled:
            self._attach(optimizer)
        return optimizer

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """Make the scheduler as the trainer does: weights are sharded by then, the optimizer's state is not loaded."""
        if self.is_fsdp_enabled:
            self._attach(self.optimizer)
        return super().create_scheduler(*args, **kwargs)  # type: ignore[misc]

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Train on a batch as the trainer does, with an optimizer that has the prior, whoever made it."""
        if self.optimizer is not None and attachment_of(unwrap(self.optimizer)) is None:
            self._attach(self.optimizer)
        return super().training_step(*args, **kwargs)  # type: ignore[misc]

    def _attach(self, optimizer: torch.optim.Optimizer) -> None:
        if self.prior_handle is not None:
            self.prior_handle.remove()
        self._count()
        assert self.model_prior is not None
        self.prior_handle = attach(optimizer, self.model_prior, self._scale, before_clip=self.args.max_grad_norm > 0)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the prior's terms beside the loss of training."""
        if self.prior_handle is not None and "loss" in logs:
            terms = self.prior_handle.log()
            logs = {**logs, **{f"prior/{name}": terms[name] for name in ("log_prior", "penalty_in_loss")}}
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _count(self) -> None:
        """Read n off the data, unless these were counted; words that are relative to it are read anew."""
        if self._counted is self.train_dataset:
            return
        known = not isinstance(self._num_data, str | None)
        if known and self._counted is not _NOTHING:
            return
        given = self._tokens() if isinstance(self._num_data, str) else self._num_data
        if given is None and _overrides(self, "get_train_dataloader"):
            raise InvalidArgumentError(
                "num_data: get_train_dataloader is overridden, and may read other data than train_dataset; pass what "
                "the loss is a mean over."
            )
        self._scale, self._counted = _scale_of(given, self.train_dataset, self.label_names), self.train_dataset
        if self.model_prior is None or not of_the_weights(self._rules):
            self._take(self.model)

    def _tokens(self) -> int:
        """Return how many labels the trainer divides by in an epoch, as it counts them in each step."""
        data, collate = self.train_dataset, self.data_collator
        if not isinstance(data, Sized):
            raise InvalidArgumentError(
                "num_data: 'tokens' counts them in one pass, and train_dataset has no length; pass their number."
            )
        if hasattr(data, "column_names"):
            data = self._remove_unused_columns(data)
        else:
            collate = self._get_collator_with_removed_columns(collate)
        size, own = self.args.per_device_train_batch_size, torch.Generator()
        with undisturbed():
            batches: DataLoader[Any] = DataLoader(data, batch_size=size, collate_fn=collate, generator=own)
            return sum(self._targets_in(batch) for batch in batches)

    def _targets_in(self, batch: Mapping[str, Any]) -> int:
        labels = batch.get("shift_labels")
        if labels is None:
            labels = batch.get("labels")
            if labels is None:
                raise InvalidArgumentError("num_data: 'tokens' needs labels, which the collator did not make.")
            labels = labels[..., 1:] if getattr(self, "_loss_shifts_labels", False) else labels
        return int((labels != _IGNORED).sum())

    def _take(self, model: nn.Module) -> None:
        self.model_prior = prior_about(model, self._rules, self._scale)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Add the prior before the clip; the trainer calls it where there is one."""
        clip = super()._clip_grad_norm  # type: ignore[misc]
        return self._clip_with_prior(lambda *_: clip(model), model.parameters(), self.args.max_grad_norm)

    def _clip_with_prior(self, clip: Callable[..., Any], parameters: Any, limit: float, *more: Any) -> Any:
        assert self.prior_handle is not None
        if self.accelerator.scaler is None:
            self.prior_handle.apply_()
            norm = clip(parameters, limit, *more)
        else:
            # Accelerate's own clip unscales once more, which torch refuses.
            self.accelerator.unscale_gradients()
            self.prior_handle.apply_()
            norm = torch.nn.utils.clip_grad_norm_(parameters, limit, *more)
        self.prior_handle.clipped(norm, limit)
        return norm

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        self._save_prior(output_dir)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
        # A sharded model is not saved by `_save`.
        if self.is_fsdp_enabled:
            self._save_prior(output_dir)

    def _save_prior(self, folder: str | None) -> None:
        if self.args.should_save and self.model_prior is not None:
            place = Path(folder or self.args.output_dir)
            self.model_prior.save(place / FILE)
            write_json(place / _SCALE, {"loss_scale": self._scale.value})

    def _load_from_checkpoint(self, resume_from_checkpoint: str | os.PathLike[str], model: Any = None) -> None:
        path, scale = Path(resume_from_checkpoint) / FILE, Path(resume_from_checkpoint) / _SCALE
        self._count()
        if path.is_file():
            assert self.model_prior is not None
            moved = of_the_weights(self._rules)
            self.model_prior = resumed(
                ModelPrior.load(path, self.model), self.model_prior, f"remove {path}", moved=moved
            )
            if scale.is_file():
                require_same_scale(json.loads(scale.read_text("utf-8")).get("loss_scale"), self._scale)
            if self.is_fsdp_enabled:
                self._attach(self.optimizer)
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]


class PriorTrainer(PriorMixin, Trainer):
    """Hugging Face's `Trainer` with a prior: see `PriorMixin` for its arguments.

    Example:
        >>> import torch, bayesreg as br
        >>> from transformers import TrainingArguments
        >>> PriorTrainer.__mro__[1].__name__
        'PriorMixin'
    """


def _overrides(trainer: Any, method: str) -> bool:
    """Return whether a method is the user's: of no library that is built on the Trainer."""
    own = next(cls for cls in type(trainer).__mro__ if method in vars(cls))
    return not own.__module__.startswith(("transformers.", "trl.", "bayesreg."))


def _scale_of(given: int | LossScale | None, dataset: Any, names: Sequence[str]) -> LossScale:
    if given is not None:
        return as_loss_scale(given)
    try:
        with undisturbed():
            count, first = len(dataset), dataset[0]
    except (TypeError, IndexError, KeyError, NotImplementedError):
        raise InvalidArgumentError(
            "num_data: train_dataset has no length, or no first example to look at; pass num_data=, what the loss is "
            "a mean over."
        ) from None
    held = first if isinstance(first, Mapping) else {}
    # The default collator calls them `labels`.
    found = [held[name] for name in dict.fromkeys(("label", "label_ids", *names)) if name in held]
    if not found:
        raise InvalidArgumentError(
            f"num_data: the examples have no {' or '.join(names) or 'labels'}, so a collator or the model makes them, "
            f"as for language models, whose loss is a mean over tokens; pass num_data='tokens', which counts them, or "
            f"the number of what the loss is a mean over."
        )
    if len(found) > 1:
        raise InvalidArgumentError(
            "num_data: an example has labels of several kinds; pass what the loss is a mean over (for question "
            "answering, whose starts and ends are averaged, the number of examples)."
        )
    if torch.as_tensor(found[0]).numel() > 1:
        raise InvalidArgumentError(
            "num_data: an example has several labels, and the loss is a mean over all of them; pass num_data='tokens', "
            "which counts them, or their number."
        )
    return as_loss_scale(count)
