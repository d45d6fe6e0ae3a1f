"""Priors in Lightning: one callback, `Trainer(callbacks=[PriorCallback("gaussian(0.5)")])`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from bayesreg._support.optional import require
from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.data.size import examples_in
from bayesreg.errors import InvalidArgumentError, ShortWindowWarning, UnsupportedError
from bayesreg.interop.keeping import packed, require_same_scale, resumed, unpacked
from bayesreg.interop.making import of_the_weights, prior_about
from bayesreg.model_prior import ModelPrior
from bayesreg.optimizers import unwrap
from bayesreg.optimizers.attached import attachment_of
from bayesreg.priors import Belief
from bayesreg.routes import Handle, attach

__all__ = ["PriorCallback"]


def _callbacks() -> tuple[Any, ...]:
    """Return Lightning's class of callbacks; it is published under two names, each of which knows its own alone."""
    names = ("lightning.pytorch", "pytorch_lightning")
    used = [name for name in names if name in sys.modules]
    if not used:
        used = [name for name in names if importlib.util.find_spec(name.partition(".")[0]) is not None][:1]
    if not used:
        require("lightning", "lightning", "priors in Lightning")
    return tuple(importlib.import_module(name).Callback for name in used)


class PriorCallback(*_callbacks()):  # type: ignore[misc]
    """A prior on the module that a Lightning trainer fits: its weights are then the MAP under it.

    The prior is made of the module as it comes, before a checkpoint is restored; attached to the module's optimizers
    when training starts; added before Lightning's clip, whether the trainer's setting or `self.clip_gradients(...)`
    in manual optimization calls for it; kept in checkpoints, in the callback's state and not among the module's
    weights, and taken from there when a run is resumed. `handle` and `model_prior` are there from the start of
    training. Logs have `prior/log_prior` and `prior/penalty_in_loss`.

    Args:
        prior: A prior; words, as `br.prior_from_words` takes them, or "pretrained(std)" for a Gaussian about the
            weights that the module came with, or "lora(std)" for one on the update that LoRA adapters add; rules, as
            `br.ModelPrior` takes them; or a function from the module to a `br.ModelPrior`.
        num_data: What the loss of `training_step` is a mean over: the number of examples, or of tokens for language
            models; or the `LossScale` of a loss that is no mean. Default: the size of the training set, read off the
            training loader: right where each example has one label, and to be told where it has several (pixels,
            tokens), which cannot be seen from here.

    Example:
        >>> import torch, bayesreg as br
        >>> from lightning.pytorch import LightningModule, Trainer
        >>> class Line(LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(3, 1)
        ...     def training_step(self, batch, _):
        ...         return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1)
        >>> prior = br.interop.lightning.PriorCallback({"*": br.Gaussian(0.5)}, num_data=1000)
        >>> prior.handle is None
        True
        >>> trainer = Trainer(callbacks=[prior], max_epochs=1)  # doctest: +SKIP
        >>> trainer.fit(Line(), loader)  # doctest: +SKIP
    """

    def __init__(
        self, prior: Belief | str | Mapping[Any, Belief] | Any, num_data: int | LossScale | None = None
    ) -> None:
        self.prior, self.num_data = prior, num_data
        #: The prior over the module, and what it is attached by; None before training.
        self.model_prior: ModelPrior | None = None
        self.handle: Handle | None = None
        self._forget()

    def _forget(self) -> None:
        #: What the prior was made of: the module and what the user gave.
        self._made_of: tuple[Any, Any] | None = None
        self._kept: Tensor | None = None
        self._kept_scale: float | None = None
        #: Whether the prior goes in before a clip, whether it has a kink, and whether a short window was said.
        self._early, self._kinked, self._said = False, False, False
        #: Optimizers to whose gradients the prior was added at a clip that the user called for.
        self._added: set[int] = set()
        self._clips: Any = None

    # -- the prior -----------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Make what depends on the weights that the module came with; Lightning calls it."""
        if stage != "fit":
            return
        if "deepspeed" in type(trainer.strategy).__name__.lower():
            raise UnsupportedError("prior: DeepSpeed clips and steps inside its engine, where no prior can be added.")
        self._kept, self._kept_scale = None, None
        # Both come after this; such a module may have no weights yet, or others.
        if not (_overrides(pl_module, "configure_model") or _overrides(pl_module, "setup")):
            self._take_weights(pl_module)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Make it of a module that made or loaded weights in `setup` or `configure_model`; Lightning calls it."""
        if not trainer.strategy.restore_checkpoint_after_setup:
            if trainer.ckpt_path is None:
                self._take_weights(pl_module)
            return
        # A sharded state may be loaded next, into what is there: the settings of a prior too, whatever its strength.
        self._take_weights(pl_module)
        scale = as_loss_scale(1)
        given = self.model_prior if self._is_made_of(pl_module) else prior_about(pl_module, self.prior, scale)
        assert given is not None
        self._attach(trainer, pl_module, given, scale)

    def _take_weights(self, module: Any) -> None:
        if of_the_weights(self.prior) and not self._is_made_of(module):
            self._make(module, as_loss_scale(1))

    def _is_made_of(self, module: Any) -> bool:
        return self._made_of is not None and self._made_of[0] is module and self._made_of[1] is self.prior

    def _make(self, module: Any, scale: LossScale) -> None:
        self.model_prior = prior_about(module, self.prior, scale)
        self._made_of = (module, self.prior)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach the prior; Lightning calls it after optimizers are made and a checkpoint is restored."""
        scale = self._scale_of(trainer)
        resumes = trainer.ckpt_path is not None
        moved = of_the_weights(self.prior)
        # Words may be relative to n, which another fit has another one of.
        if not moved or not self._is_made_of(pl_module):
            if resumes and moved and self._kept is None:
                raise InvalidArgumentError(
                    f"prior: {trainer.ckpt_path} holds no prior, and the weights that the module makes in its setup or "
                    f"configure_model are those of the checkpoint already; give the centre as weights: "
                    f"br.Gaussian.centered_at(weights, std)."
                )
            self._make(pl_module, scale)
        assert self.model_prior is not None
        if resumes and self._kept is not None:
            require_same_scale(self._kept_scale, scale)
            found = unpacked(self._kept, pl_module)
            self.model_prior = resumed(found, self.model_prior, "resume without ckpt_path", moved=moved)
        self._kept = None
        self._attach(trainer, pl_module, self.model_prior, scale)
        self._wrap_clips(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Notice what has changed with the epoch: the size of the data, the number of batches in a step."""
        if self.handle is None:
            return
        if self.num_data is None and trainer.reload_dataloaders_every_n_epochs:
            now = self._scale_of(trainer)
            if now != self.handle.loss_scale:
                raise InvalidArgumentError(
                    f"num_data: the training set was loaded anew with n = {1.0 / now.value:,.0f} in place of "
                    f"{1.0 / self.handle.loss_scale.value:,.0f}; pass how many examples are met in all: "
                    f"PriorCallback(prior, num_data=n)."
                )
        if not self._said:
            self._said = _say_short_window(trainer)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Attach to optimizers that were made anew in the meantime."""
        if self.model_prior is None or self.handle is None:
            return
        if any(attachment_of(unwrap(one)) is None for one in trainer.optimizers):
            self._attach(trainer, pl_module, self.model_prior, self.handle.loss_scale, clips=self._early)

    def _attach(self, trainer: Any, module: Any, prior: ModelPrior, scale: LossScale, *, clips: bool = False) -> None:
        if self.handle is not None:
            self.handle.remove()
        early = clips or bool(trainer.gradient_clip_val) or _overrides(module, "configure_gradient_clipping")
        self.handle, self._early = attach(list(trainer.optimizers), prior, scale, before_clip=early), early
        self._kinked = any(entry.prior is not None and not entry.prior.traits.smooth for entry in prior)

    def _scale_of(self, trainer: Any) -> LossScale:
        if self.num_data is not None:
            return as_loss_scale(self.num_data)
        loader = trainer.train_dataloader
        n = examples_in(loader) if isinstance(loader, DataLoader) else None
        if n is None:
            raise InvalidArgumentError(
                f"num_data: the size of the training set cannot be read off {type(loader).__name__}; pass it: "
                f"PriorCallback(prior, num_data=n)."
            )
        batches, drawn = len(loader), trainer.num_training_batches
        if drawn < batches and not trainer.fast_dev_run:
            raise InvalidArgumentError(
                f"num_data: limit_train_batches or overfit_batches leaves {drawn} of {batches} batches an epoch, the "
                f"same ones or others each time; pass how many examples are met in all: PriorCallback(prior, "
                f"num_data=n)."
            )
        return as_loss_scale(n)

    # -- the clip ------------------------------------------------------------------------------------------

    def _wrap_clips(self, trainer: Any, module: Any) -> None:
        """Go before every clip of Lightning, which all pass through one method, in both kinds of optimization."""
        self._unwrap_clips()
        plugin = trainer.precision_plugin
        clip: Callable[..., None] = plugin.clip_gradients

        def clip_gradients(
            optimizer: Optimizer, clip_val: float = 0.0, gradient_clip_algorithm: Any = "norm", **more: Any
        ) -> None:
            if clip_val > 0:
                self._before_clip(trainer, module, unwrap(optimizer), clip_val, gradient_clip_algorithm)
            clip(optimizer, clip_val=clip_val, gradient_clip_algorithm=gradient_clip_algorithm, **more)

        plugin.clip_gradients = clip_gradients
        self._clips = plugin

    def _unwrap_clips(self) -> None:
        if self._clips is not None:
            vars(self._clips).pop("clip_gradients", None)
            self._clips = None

    def _before_clip(self, trainer: Any, module: Any, optimizer: Optimizer, limit: float, algorithm: Any) -> None:
        assert self.handle is not None
        assert self.model_prior is not None
        if self._kinked and str(getattr(algorithm, "value", algorithm)).lower() == "value":
            raise UnsupportedError(
                "gradient_clip_algorithm='value' with a prior that has a kink: a clip by value leaves no one factor by "
                "which its proximal step could shrink; clip by norm, or use a smooth prior."
            )
        if not module.automatic_optimization:
            if not self._early:
                # That there is a clip was not known before: the trainer has no setting for it.
                self._attach(trainer, module, self.model_prior, self.handle.loss_scale, clips=True)
            self._add(trainer, optimizer)
            self._added.add(id(optimizer))
        elif not self._early:
            raise UnsupportedError(
                "clip_gradients was called where it cannot be foreseen; clip by Trainer(gradient_clip_val=...), or in "
                "the module's configure_gradient_clipping."
            )
        if self._kinked:
            grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            norm: Any = torch.nn.utils.get_total_norm(grads)
            self.handle.clipped(norm.full_tensor() if hasattr(norm, "full_tensor") else norm, limit, optimizer)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Optimizer) -> None:
        """Add the prior before a clip; Lightning calls it, in manual optimization within the step."""
        # A training step that returns None leaves a batch out.
        if not self._early or self.handle is None or not _has_gradients(optimizer):
            return
        if pl_module.automatic_optimization:
            self._add(trainer, optimizer)
        elif id(unwrap(optimizer)) in self._added:
            self._added.discard(id(unwrap(optimizer)))
        else:
            self._add(trainer, optimizer)
            self.handle.clipped(0.0, 1.0, optimizer)

    def _add(self, trainer: Any, optimizer: Optimizer) -> None:
        assert self.handle is not None
        _refuse_scaled(getattr(trainer.precision_plugin, "scaler", None), unwrap(optimizer))
        self.handle.apply_(optimizer)

    # -- logs and state ------------------------------------------------------------------------------------

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Log the prior's terms as often as the trainer logs, and at the end of an epoch."""
        each = trainer.log_every_n_steps if trainer.loggers else 0
        due = trainer.is_last_batch or (each and trainer.global_step % each == 0)
        if not due or self.handle is None or trainer.barebones:
            return
        terms = self.handle.log()
        pl_module.log_dict({f"prior/{name}": terms[name] for name in ("log_prior", "penalty_in_loss")})

    def state_dict(self) -> dict[str, Any]:
        """Return the prior, for checkpoints."""
        if self.model_prior is None:
            return {}
        scale = {} if self.handle is None else {"loss_scale": self.handle.loss_scale.value}
        return {"prior": packed(self.model_prior), **scale}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the prior of a checkpoint."""
        self._kept, self._kept_scale = state_dict.get("prior"), state_dict.get("loss_scale")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave Lightning's clip as it was; Lightning calls it."""
        self._unwrap_clips()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave Lightning's clip as it was; Lightning calls it."""
        self._unwrap_clips()

    def __getstate__(self) -> dict[str, Any]:
        # Hooks go into no copy: the copy attaches its own when training starts.
        return {"prior": self.prior, "num_data": self.num_data}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _overrides(module: Any, hook: str) -> bool:
    own = next(cls for cls in type(module).__mro__ if hook in vars(cls))
    return not own.__module__.startswith(("lightning.", "pytorch_lightning."))


def _refuse_scaled(scaler: Any, optimizer: Optimizer) -> None:
    if not isinstance(scaler, GradScaler) or not scaler.is_enabled():
        return
    if scaler._per_optimizer_states[id(optimizer)]["stage"] is not OptState.UNSCALED:
        raise UnsupportedError(
            "a clip of gradients that are still multiplied by the scale of a GradScaler (in manual optimization, or of "
            "a fused optimizer), where a prior would be lost; call self.trainer.precision_plugin.scaler.unscale_("
            "optimizer) before it, take an optimizer with fused=False, or train in bf16-mixed."
        )


def _has_gradients(optimizer: Any) -> bool:
    return any(p.grad is not None for group in unwrap(optimizer).param_groups for p in group["params"])


def _say_short_window(trainer: Any) -> bool:
    """Say that Lightning divides by the number of batches in a window, also in a short one; return whether it did."""
    size, batches = trainer.accumulate_grad_batches, trainer.num_training_batches
    if size == 1 or batches == float("inf") or batches % size == 0:
        return False
    last = batches % size
    warnings.warn(
        f"short-window: the last step of an epoch accumulates {last} of accumulate_grad_batches={size} batches, and "
        f"Lightning divides by {size} all the same, so beside {last}/{size} of the loss the prior counts in full in "
        f"that step; a number of batches that {size} divides mends it.",
        ShortWindowWarning,
        stacklevel=2,
    )
    return True
