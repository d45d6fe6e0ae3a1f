"""Mistakes in what stands between a framework and a prior: the clip, n, checkpoints, whose turn it is."""

from __future__ import annotations

from tests.mistakes.mutation import Mutation

__all__ = ["FRAMEWORKS"]

_LIGHTNING = "interop/test_lightning.py"
_HUGGING_FACE = "interop/test_transformers.py"
_SKORCH = "interop/test_skorch.py"
_PROCESSES = "interop/test_processes.py"

FRAMEWORKS = [
    # Lightning
    Mutation(
        "interop/lightning.py", "early = clips or bool(trainer.gradient_clip_val) or", "early = clips or", _LIGHTNING
    ),
    Mutation("interop/lightning.py", 'or _overrides(module, "configure_gradient_clipping")', "", _LIGHTNING),
    Mutation(
        "interop/lightning.py", "            self._added.discard(id(unwrap(optimizer)))", "            pass", _LIGHTNING
    ),
    Mutation("interop/lightning.py", "            self._added.add(id(optimizer))\n", "", _LIGHTNING),
    Mutation("interop/lightning.py", "            self.handle.clipped(0.0, 1.0, optimizer)\n", "", _LIGHTNING),
    Mutation(
        "interop/lightning.py",
        'full_tensor") else norm, limit, optimizer)',
        'full_tensor") else norm, limit)',
        _LIGHTNING,
    ),
    Mutation(
        "interop/lightning.py", "        self.handle.apply_(optimizer)\n", "        self.handle.apply_()\n", _LIGHTNING
    ),
    Mutation("interop/lightning.py", "if self._kinked and str(", "if False and str(", _LIGHTNING),
    Mutation(
        "interop/lightning.py", "if drawn < batches and not trainer.fast_dev_run:", "if drawn < batches:", _LIGHTNING
    ),
    Mutation("interop/lightning.py", "if drawn < batches and not trainer.fast_dev_run:", "if False:", _LIGHTNING),
    Mutation(
        "interop/lightning.py", "        if resumes and self._kept is not None:\n", "        if False:\n", _LIGHTNING
    ),
    Mutation("interop/lightning.py", "self._made_of[0] is module and", "", _LIGHTNING),
    Mutation(
        "interop/lightning.py",
        'if size == 1 or batches == float("inf") or batches % size == 0:',
        "if batches % size:",
        _LIGHTNING,
    ),
    Mutation("interop/lightning.py", "OptState.UNSCALED:", "OptState.STEPPED:", _LIGHTNING),
    Mutation("interop/lightning.py", '            vars(self._clips).pop("clip_gradients", None)\n', "", _LIGHTNING),
    Mutation(
        "interop/lightning.py",
        '        return {"prior": self.prior, "num_data": self.num_data}',
        "        return self.__dict__",
        _LIGHTNING,
    ),
    Mutation("interop/lightning.py", "        self._attach(trainer, pl_module, given, scale)\n", "", _PROCESSES),
    # Hugging Face
    Mutation(
        "interop/transformers.py", "before_clip=self.args.max_grad_norm > 0)", "before_clip=False)", _HUGGING_FACE
    ),
    Mutation("interop/transformers.py", "            self.accelerator.unscale_gradients()\n", "", _HUGGING_FACE),
    Mutation("interop/transformers.py", "        self.prior_handle.clipped(norm, limit)\n", "", _HUGGING_FACE),
    Mutation(
        "interop/transformers.py",
        'labels[..., 1:] if getattr(self, "_loss_shifts_labels", False) else labels',
        "labels[..., 1:]",
        _HUGGING_FACE,
    ),
    Mutation(
        "interop/transformers.py", "return int((labels != _IGNORED).sum())", "return int(labels.numel())", _HUGGING_FACE
    ),
    Mutation("interop/transformers.py", "        if self.args.weight_decay:\n", "        if False:\n", _HUGGING_FACE),
    Mutation(
        "interop/transformers.py",
        "            if self.is_fsdp_enabled:\n                self._attach(self.optimizer)\n",
        "",
        _PROCESSES,
    ),
    Mutation(
        "interop/transformers.py",
        "        if self.is_fsdp_enabled:\n            self._save_prior(output_dir)\n",
        "",
        _PROCESSES,
    ),
    # skorch
    Mutation(
        "interop/skorch.py",
        "if self.kept_ is not None and len(net.history) > 1:",
        "if self.kept_ is not None:",
        _SKORCH,
    ),
    Mutation("interop/skorch.py", "if self.kept_ is not None and len(net.history) > 1:", "if False:", _SKORCH),
    Mutation(
        "interop/skorch.py", "if self.module_ is net.module_ and self.model_prior_ is not None:", "if False:", _SKORCH
    ),
    Mutation(
        "interop/skorch.py",
        "if of_the_weights(self.prior) and self.attached_ is self.prior:",
        "if of_the_weights(self.prior):",
        _SKORCH,
    ),
    Mutation("interop/skorch.py", "before_clip=clips is not None)", "before_clip=False)", _SKORCH),
    # all
    Mutation("interop/keeping.py", 'moved = name == "loc" and', "moved = False and", _LIGHTNING),
    Mutation(
        "routes/attach.py",
        "found = [part for part in self._parts if part.optimizer is unwrap(optimizer)]",
        "found = self._parts",
        "routes/test_closures_and_clips.py",
    ),
    Mutation(
        "_support/sharding.py",
        "    full: Tensor = tensor.full_tensor()",
        "    full: Tensor = tensor.to_local()",
        _PROCESSES,
    ),
    Mutation("interop/lightning.py", 'or _overrides(pl_module, "setup")', "", _LIGHTNING),
    Mutation(
        "interop/lightning.py",
        "            if resumes and moved and self._kept is None:",
        "            if False:",
        _LIGHTNING,
    ),
    Mutation("interop/lightning.py", "if not moved or not self._is_made_of", "if not self._is_made_of", _LIGHTNING),
    Mutation("interop/lightning.py", "            require_same_scale(self._kept_scale, scale)\n", "", _LIGHTNING),
    Mutation(
        "interop/lightning.py", "            if now != self.handle.loss_scale:", "            if False:", _LIGHTNING
    ),
    Mutation(
        "interop/lightning.py",
        "or self.handle is None or not _has_gradients(optimizer):",
        "or self.handle is None:",
        _LIGHTNING,
    ),
    Mutation("interop/lightning.py", "if any(attachment_of(unwrap(one)) is None", "if any(False", _LIGHTNING),
    Mutation(
        "interop/lightning.py",
        "due = trainer.is_last_batch or (each and",
        "due = trainer.is_last_batch or (",
        _LIGHTNING,
    ),
    Mutation("routes/attachment.py", "                if loss is None:\n", "                if False:\n", _LIGHTNING),
    Mutation("interop/transformers.py", "        if self._made:\n", "        if False:\n", _HUGGING_FACE),
    Mutation(
        "interop/transformers.py", "and attachment_of(unwrap(self.optimizer)) is None:", "and False:", _HUGGING_FACE
    ),
    Mutation(
        "interop/transformers.py",
        "        if self._counted is self.train_dataset:",
        "        if self._counted is not _NOTHING:",
        _HUGGING_FACE,
    ),
    Mutation(
        "interop/transformers.py",
        'if given is None and _overrides(self, "get_train_dataloader"):',
        "if False:",
        _HUGGING_FACE,
    ),
    Mutation(
        "interop/transformers.py",
        "if self.model_prior is None or not of_the_weights(self._rules):",
        "if self.model_prior is None:",
        _HUGGING_FACE,
    ),
    Mutation(
        "interop/transformers.py",
        "        with undisturbed():\n            count, first",
        "        if True:\n            count, first",
        _HUGGING_FACE,
    ),
    Mutation("interop/transformers.py", "            if scale.is_file():", "            if False:", _HUGGING_FACE),
    Mutation("interop/making.py", "if float(prior.penalty().detach()) > 0.0:", "if False:", _HUGGING_FACE),
    Mutation(
        "interop/keeping.py", "if moved else found.same_as(now)):", "if True else found.same_as(now)):", _LIGHTNING
    ),
    Mutation(
        "interop/keeping.py",
        "if found is not None and not math.isclose",
        "if False and not math.isclose",
        _HUGGING_FACE,
    ),
    Mutation("interop/skorch.py", "and self.seen_ == seen):", "and True):", _SKORCH),
    Mutation(
        "interop/skorch.py", "if goes_on and of_the_weights(self.prior) and about_itself(made):", "if False:", _SKORCH
    ),
    Mutation("interop/skorch.py", "and about_itself(made):", "and isinstance(self.prior, str):", _SKORCH),
    Mutation("interop/skorch.py", 'or bool(getattr(net.optimizer_, "state", None))', "", _SKORCH),
    Mutation("interop/skorch.py", "        if labels > 1:", "        if False:", _SKORCH),
    Mutation("interop/skorch.py", "if drawn else len(dataset)", "if False else len(dataset)", _SKORCH),
]
