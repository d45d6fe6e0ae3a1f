"""Priors in skorch: one callback, `NeuralNetClassifier(..., callbacks=[PriorCallback("gaussian(0.5)")])`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from bayesreg._support.optional import require
from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.data.size import examples_in, undisturbed
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.interop.keeping import packed, unpacked
from bayesreg.interop.making import about_itself, of_the_weights, prior_about
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Belief
from bayesreg.routes import Handle, attach

require("skorch", "skorch", "priors in skorch")

from skorch.callbacks import Callback, GradientNormClipping  # noqa: E402 (a clear sentence where it is missing)

__all__ = ["PriorCallback"]


class PriorCallback(Callback):  # type: ignore[misc]
    """A prior on the module that a skorch net trains: its weights are then the MAP under it.

    The prior is attached when an epoch begins on an optimizer that has none yet, so it survives `fit`, which makes the
    optimizer anew, and `partial_fit`, which goes on with it. n is counted after `train_split` has held its part out. If
    the net has a `GradientNormClipping`, the prior is added before that clip; put it before it in the list. The net's
    history has `log_prior` and `penalty_in_loss` of each epoch.

    Args:
        prior: A prior; words, as `br.prior_from_words` takes them, or "pretrained(std)" for a Gaussian about the
            weights that the module came with to `fit`, or "lora(std)" for one on the update that LoRA adapters add;
            rules, as `br.ModelPrior` does; or a function from the module to a `br.ModelPrior`.
        num_data: What the criterion is a mean over, where it is not the examples that `fit` gets: the size of all data
            where `partial_fit` gets parts, the number of labels where an example has several; or the `LossScale` of a
            criterion that is no mean. Default: counted.

    Example:
        >>> import skorch, torch, bayesreg as br
        >>> X, y = torch.randn(40, 3), torch.randn(40, 1)
        >>> prior = br.interop.skorch.PriorCallback({"*": br.Gaussian(0.5)})
        >>> net = skorch.NeuralNetRegressor(torch.nn.Linear, module__in_features=3, module__out_features=1,
        ...     callbacks=[prior], max_epochs=2, train_split=None, verbose=0)
        >>> round(net.fit(X, y).optimizer_.param_groups[0]["weight_decay"], 9)  # 1/(40 · 0.5²)
        0.1
    """

    handle_: Handle | None = None
    model_prior_: ModelPrior | None = None
    optimizer_: Any = None
    attached_: Any = None
    clip_: Any = None
    module_: Any = None
    kept_: Tensor | None = None
    seen_: Any = None

    def __init__(
        self, prior: Belief | str | Mapping[Any, Belief] | Any = None, num_data: int | LossScale | None = None
    ) -> None:
        self.prior, self.num_data = prior, num_data

    def initialize(self) -> PriorCallback:
        """Begin without an optimizer; skorch calls it, when parameters are set too."""
        self._let_go()
        return self

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, **_: Any) -> None:
        """Attach the prior, if this optimizer has none yet."""
        if not hasattr(net, "module_"):
            raise UnsupportedError(
                f"PriorCallback: expected a net with one module, called `module`, got {type(net).__name__} without; on "
                f"other nets br.attach goes on each optimizer."
            )
        scale, seen = self._scale_of(net, dataset_train), _glance(dataset_train)
        if self.handle_ is not None and self.optimizer_ is net.optimizer_ and self.attached_ is self.prior:
            if self.num_data is None and not (self.handle_.loss_scale == scale and self.seen_ == seen):
                raise InvalidArgumentError(
                    f"num_data: this net goes on with other data than before (n = {1.0 / scale.value:,.0f} now); where "
                    f"partial_fit gets parts of the data, pass the size of all: PriorCallback(prior, num_data=n)."
                )
            if self.handle_.loss_scale == scale:
                return
        model_prior = self._prior_over(net, scale)
        self._let_go()
        clips = _clip_of(net, self)
        self.handle_ = attach(net.optimizer_, model_prior, scale, before_clip=clips is not None)
        self.model_prior_, self.clip_, self.kept_ = model_prior, clips, None
        self.optimizer_, self.attached_, self.module_, self.seen_ = net.optimizer_, self.prior, net.module_, seen

    def on_grad_computed(self, net: Any, named_parameters: Any = None, training: bool = False, **_: Any) -> None:
        """Add the prior before the net's clip, if it has one."""
        if not training or self.clip_ is None or self.handle_ is None:
            return
        self.handle_.apply_()
        limit, kind = self.clip_.gradient_clip_value, self.clip_.gradient_clip_norm_type
        grads = [p.grad for _, p in _members(net, named_parameters) if p.grad is not None]
        self.handle_.clipped(torch.nn.utils.get_total_norm(grads, kind), limit)

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        """Write the prior's terms into the net's history."""
        if self.handle_ is None:
            return
        terms = self.handle_.log()
        net.history.record("log_prior", terms["log_prior"])
        net.history.record("penalty_in_loss", terms["penalty_in_loss"])

    def _prior_over(self, net: Any, scale: LossScale) -> ModelPrior:
        """Return the prior; its centre stays what it was for a module that goes on, in a copy too."""
        if of_the_weights(self.prior) and self.attached_ is self.prior:
            # The history of a net that begins anew has this epoch alone.
            if self.kept_ is not None and len(net.history) > 1:
                return unpacked(self.kept_, net.module_)
            if self.module_ is net.module_ and self.model_prior_ is not None:
                return self.model_prior_
        made = prior_about(net.module_, self.prior, scale)
        goes_on = len(net.history) > 1 or bool(getattr(net.optimizer_, "state", None))
        if goes_on and of_the_weights(self.prior) and about_itself(made):
            raise InvalidArgumentError(
                f"prior: {self.prior!r} is about the weights that a module comes with to fit, and this net goes on "
                "with trained ones; give the centre as weights: br.Gaussian.centered_at(weights, std)."
            )
        return made

    def _scale_of(self, net: Any, dataset: Any) -> LossScale:
        if isinstance(self.num_data, LossScale):
            return self.num_data
        reduction = getattr(net.criterion_, "reduction", "mean")
        if reduction != "mean":
            raise InvalidArgumentError(
                f"num_data: the criterion has reduction={reduction!r}; pass its scale, such as "
                f"num_data=br.LossScale.sum(...), or use reduction='mean'."
            )
        if self.num_data is not None:
            return as_loss_scale(self.num_data)
        given = net.get_params_for("iterator_train")
        drawn = {name: given[name] for name in ("sampler", "batch_sampler") if given.get(name) is not None}
        try:
            n = examples_in(DataLoader(dataset, **drawn)) if drawn else len(dataset)
        except TypeError:
            n = None
        if n is None:
            raise InvalidArgumentError(
                "num_data: the size of the training set cannot be read off it, or off its sampler; pass it: "
                "PriorCallback(prior, num_data=n)."
            )
        labels = _labels_of_one(dataset)
        if labels > 1:
            raise InvalidArgumentError(
                f"num_data: an example has {labels} targets, and the criterion may be a mean over all of them or over "
                f"examples; pass what it is a mean over: PriorCallback(prior, num_data=n)."
            )
        return as_loss_scale(n)

    def _let_go(self) -> None:
        if self.handle_ is not None:
            self.handle_.remove()
        self.handle_ = self.optimizer_ = self.clip_ = None

    def __getstate__(self) -> dict[str, Any]:
        # Hooks go into no copy: the copy attaches its own when an epoch begins.
        own = ("handle_", "model_prior_", "optimizer_", "clip_", "module_", "seen_")
        state = {name: value for name, value in self.__dict__.items() if name not in own}
        if self.model_prior_ is not None and of_the_weights(self.prior):
            state["kept_"] = packed(self.model_prior_)
        return state


def _base(dataset: Any) -> Any:
    """Return the data that a hold-out has taken a part of."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def _glance(dataset: Any) -> bytes | None:
    """Return a few rows of arrays, by which other data of the same size are told; None of what is no array."""
    given = getattr(_base(dataset), "X", None)
    if not isinstance(given, Tensor | np.ndarray) or len(given) == 0:
        return None
    rows = given[:: max(1, len(given) // 16)]
    return (rows.detach().cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)).tobytes()


def _labels_of_one(dataset: Any) -> int:
    """Return how many numbers the target of an example is; 1 where that cannot be told."""
    try:
        with undisturbed():
            target = dataset[0][1]
        return int(np.asarray(target.detach().cpu() if isinstance(target, Tensor) else target).size)
    except (TypeError, IndexError, KeyError, ValueError, NotImplementedError):
        return 1


def _members(net: Any, given: Any) -> list[tuple[str, Tensor]]:
    return list(given) if given is not None else list(net.get_all_learnable_params())


def _clip_of(net: Any, own: PriorCallback) -> Any:
    """Return the callback of a net that clips gradients, which must come after the prior."""
    callbacks = [callback for _, callback in net.callbacks_]
    clips = [callback for callback in callbacks if isinstance(callback, GradientNormClipping)]
    clips = [clip for clip in clips if clip.gradient_clip_value is not None]
    if not clips:
        return None
    if len(clips) > 1:
        raise UnsupportedError("the net clips gradients twice; what that leaves of a prior is not known.")
    if callbacks.index(clips[0]) < next(i for i, callback in enumerate(callbacks) if callback is own):
        raise InvalidArgumentError(
            "callbacks: GradientNormClipping comes before the PriorCallback, so the clip would not see the prior; put "
            "the PriorCallback first."
        )
    return clips[0]
