"""A prior on one optimizer: the hooks around its step, and the checks that nothing has changed behind them."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bayesreg._sharding import gather_sum, local
from bayesreg.errors import CoverageError, InvalidArgumentError, UnsupportedError
from bayesreg.routes.decoupled import pull_
from bayesreg.routes.gradient import Gradients
from bayesreg.routes.membership import MARK
from bayesreg.routes.plan import GroupPlan, Planned
from bayesreg.routes.proximal import prox_
from bayesreg.routes.rounding import RoundingWatch
from bayesreg.scale import LossScale

__all__ = ["Attachment", "attachment_of", "forget", "penalty_of"]

# Values are weak too: an attachment lives in the hooks of its optimizer, and both go together.
_attached: weakref.WeakKeyDictionary[Optimizer, weakref.ref[Attachment]] = weakref.WeakKeyDictionary()
_guards: list[Any] = []


def attachment_of(optimizer: Optimizer) -> Attachment | None:
    """Return what is attached to an optimizer."""
    found = _attached.get(optimizer)
    return found() if found is not None else None


def forget(optimizer: Optimizer) -> None:
    """Take the marks of a prior off an optimizer, and the decay that it had set."""
    for group in optimizer.param_groups:
        if MARK in group and group.get("weight_decay") == group[MARK]:
            group["weight_decay"] = 0.0
        group.pop(MARK, None)


def _guard(optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    """Stop an optimizer whose groups carry the mark of a prior that did not come along."""
    if any(MARK in group for group in optimizer.param_groups) and attachment_of(optimizer) is None:
        raise InvalidArgumentError(
            "this optimizer carries the settings of a prior, but the prior is not attached to it: copying, pickling "
            "and loading a state dict do not take it along. Call br.attach(optimizer, prior, ...) on it, or "
            "br.detach(optimizer) to go on without the prior."
        )


def penalty_of(members: list[Planned]) -> Tensor:
    """Return Σ −log p without constants, in nats: differentiable, over all shards."""
    pairs = [(m.parameter, m.prior) for m in members if m.parameter.requires_grad]
    total = gather_sum((prior.penalty(local(parameter)), parameter) for parameter, prior in pairs)
    return torch.zeros(()) if total is None else total


class Attachment:
    """A prior on one optimizer.

    Args:
        optimizer: The optimizer.
        make: Plans the routes; called again when param groups are added.
        loss_scale: s.
        before_clip: Gradients are added by `add_gradients` when the loop calls for it, not by the step.
    """

    def __init__(
        self, optimizer: Optimizer, make: Callable[[], list[GroupPlan]], loss_scale: LossScale, *, before_clip: bool
    ) -> None:
        self.optimizer, self.loss_scale, self.before_clip = optimizer, loss_scale, before_clip
        self._make = make
        self.applied = False
        self.in_loss = False
        self.clip_factor: float | None = None
        self._replan()
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            # A checkpoint carries the decay of the run that wrote it.
            optimizer.register_load_state_dict_post_hook(lambda _: self._set_decay()),
        ]
        if not _guards:
            _guards.append(register_optimizer_step_pre_hook(_guard))
        _attached[optimizer] = weakref.ref(self)

    @property
    def live(self) -> bool:
        """Whether it has not been removed."""
        return bool(self._hooks)

    def members(self) -> list[Planned]:
        """Return every parameter with its route."""
        return [member for plan in self.plans for member in plan.members]

    def groups(self) -> Iterator[tuple[GroupPlan, dict[str, Any]]]:
        """Yield plan and param group, read afresh: loading a state dict replaces the group dictionaries."""
        return zip(self.plans, self.optimizer.param_groups, strict=False)

    def remove(self) -> None:
        """Detach: hooks are gone, the optimizer's own weight decay is 0 again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        forget(self.optimizer)
        _attached.pop(self.optimizer, None)

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add the prior's gradient to `.grad`."""
        # GradScaler leaves its scale here for fused optimizers, whose gradients are still scaled.
        amp = getattr(self.optimizer, "grad_scale", None)
        scale = 1.0 if amp is None else float(amp)
        for gradients, group in zip(self._gradients, self.optimizer.param_groups, strict=False):
            if gradients:
                # For `maximize` optimizers negate the gradient before they add their own decay, which always shrinks.
                gradients.add_(-scale if group.get("maximize") else scale)

    # -- plan --------------------------------------------------------------------------------------------

    def _replan(self) -> None:
        self.plans = self._make()
        self._gradients = [Gradients(plan, self.loss_scale.value) for plan in self.plans]
        self._sizes = [len(group["params"]) for group in self.optimizer.param_groups]
        self._watch = RoundingWatch(self.optimizer, self.plans, self.loss_scale)
        # Where the model keeps each parameter: it must stay the object that the optimizer holds.
        infos = [member.entry.info for member in self.members()]
        self._stores: list[dict[str, nn.Parameter | None]] = [info.module._parameters for info in infos]
        self._attributes = [info.attribute for info in infos]
        self._parameters = [member.parameter for member in self.members()]
        # Asked at every step, so kept as flags: walking a thousand members costs as much as moving them.
        self._proximal = any(plan.on("proximal") for plan in self.plans)
        self._decoupled = any(plan.on("decoupled") and not plan.decay for plan in self.plans)
        self._needs_loss = any(plan.on("loss") for plan in self.plans)
        self._set_decay()

    def _set_decay(self) -> None:
        for plan, group in self.groups():
            if "weight_decay" in group or plan.decay:
                group["weight_decay"] = plan.decay
            group[MARK] = plan.decay
            if "lambd" in group:
                group["lambd"] = 0.0

    # -- hooks -------------------------------------------------------------------------------------------

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._check_unchanged(optimizer.param_groups)
        self._watch.check(optimizer.param_groups)
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is not None:
            # The gradients are made inside the step, after this hook: the prior must go in there too.
            if self.before_clip:
                raise UnsupportedError(
                    "optimizer.step(closure) makes its gradients inside the step, so a clip before it clips nothing; "
                    "call the closure yourself, then handle.apply_(), the clip and step()."
                )
            wrapped = self._with_prior(closure)
            if "closure" in kwargs:
                return args, {**kwargs, "closure": wrapped}
            return (args[0], wrapped, *args[2:]), kwargs
        if self.before_clip:
            self._check_clip()
        self._check_loss()
        if not self.before_clip:
            self.add_gradients()
        self._decouple()
        self.applied = False
        return None

    def _with_prior(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Return the closure with the prior's gradient added, and for line searches its value too."""
        searches = isinstance(self.optimizer, LBFGS)

        def wrapped() -> Any:
            loss = closure()
            self._check_loss()
            self.add_gradients()
            self._decouple()
            if not searches:
                return loss
            with torch.no_grad():
                added = penalty_of([m for m in self.members() if m.route != "loss"])
            return loss + self.loss_scale.value * float(added)

        return wrapped

    @torch.no_grad()
    def _decouple(self) -> None:
        if not self._decoupled or self._overflowed():
            return
        for plan, group in self.groups():
            pull_(plan, group, self.loss_scale)

    def _overflowed(self) -> bool:
        """Return whether a fused optimizer is about to skip, or has skipped, this step for a GradScaler."""
        found_inf = getattr(self.optimizer, "found_inf", None)
        return found_inf is not None and bool(found_inf)

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._proximal and not self._overflowed():
            factor = self.loss_scale.value * (1.0 if self.clip_factor is None else self.clip_factor)
            for plan, group in self.groups():
                prox_(optimizer, plan, group, factor)
        self.clip_factor = None

    # -- checks ------------------------------------------------------------------------------------------

    def _check_unchanged(self, groups: list[dict[str, Any]]) -> None:
        if [len(group["params"]) for group in groups] != self._sizes:
            self._replan()
        for index, (plan, group) in enumerate(zip(self.plans, groups, strict=True)):
            if group.get("weight_decay", 0.0) != plan.decay:
                raise InvalidArgumentError(
                    f"weight_decay of param group {index} was changed to {group['weight_decay']:g} after br.attach set "
                    f"{plan.decay:g}: the prior decides it. To change the strength, remove() the handle and attach "
                    f"another prior."
                )
        held = map(dict.get, self._stores, self._attributes)
        if not all(map(operator.is_, held, self._parameters)):
            moved = (m.entry.name for m in self.members() if m.entry.parameter is not m.parameter)
            raise CoverageError(
                f"{next(moved)} of the model is another tensor than the one the optimizer holds (loaded with assign=True, "
                f"sharded or replaced after br.attach); build the optimizer again and attach again."
            )

    def _check_clip(self) -> None:
        if not self.applied:
            raise InvalidArgumentError(
                "the prior was attached with before_clip=True, but handle.apply_() was not called before this step."
            )
        if self.clip_factor is None and self._proximal:
            raise InvalidArgumentError(
                "a prior with a kink was attached with before_clip=True: after clip_grad_norm_ call "
                "handle.clipped(total_norm, max_norm), so that the proximal step is clipped alike."
            )

    def _check_loss(self) -> None:
        if self._needs_loss and not self.in_loss:
            raise InvalidArgumentError(
                "route 'loss': handle.penalty() was not called before this step; add it to the training loss."
            )
        self.in_loss = False
