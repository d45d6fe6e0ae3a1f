"""A prior on one optimizer: the hooks around its step, and the checks that nothing has changed behind them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.optimizers.attached import COUPLED, MARK, enter, leave
from bayesreg.optimizers.decay import DECOUPLED
from bayesreg.optimizers.others import own
from bayesreg.priors.contract.joint import Term
from bayesreg.routes.applications import Applications
from bayesreg.routes.planning.plan import GroupPlan, Planned
from bayesreg.routes.pulls.decoupled import Pulls
from bayesreg.routes.pulls.gradient import Gradients
from bayesreg.routes.pulls.master import MASTER, Masters
from bayesreg.routes.pulls.proximal import prox_
from bayesreg.routes.resuming import put_in_place, renamed_state, with_names
from bayesreg.routes.step import StepState, held_gradients, moves, same_gradients
from bayesreg.routes.sums import penalty_of
from bayesreg.routes.watches.clip import ClipWatch
from bayesreg.routes.watches.freshness import Freshness
from bayesreg.routes.watches.state import State
from bayesreg.routes.watches.unfrozen import UnfrozenWatch
from bayesreg.routes.watches.watches import Watches
from bayesreg.selection import ParameterInfo

__all__ = ["Attachment"]

_TORCH_FILE = register_optimizer_step_pre_hook.__code__.co_filename


class Attachment:
    """A prior on one optimizer.

    Args:
        optimizer: The optimizer.
        plans: The routes of its groups.
        plan_again: Plans them afresh, when param groups are added or their flags change.
        terms: The densities over several parameters, by the names of those.
        loss_scale: s.
        uncovered: Frozen parameters without a prior, which must stay frozen.
        before_clip: Gradients are added by `add_gradients` when the loop calls for it, not by the step.
        watched: Groups of which it is not known whether the optimizer uses `.grad` at the step.
        clip: Looks for a clip between backward and step; one for all optimizers of a handle.
        unheld: Makes a watch of what no optimizer of the handle holds.
        float32_master: Steps are taken in float32 where weights are in half precision.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        plans: list[GroupPlan],
        plan_again: Callable[[], list[GroupPlan]],
        terms: Mapping[str, Term],
        loss_scale: LossScale,
        uncovered: Sequence[ParameterInfo],
        *,
        before_clip: bool,
        watched: Sequence[int] = (),
        clip: ClipWatch | None = None,
        unheld: Callable[[], UnfrozenWatch] | None = None,
        float32_master: bool = False,
    ) -> None:
        self.optimizer, self.loss_scale, self.before_clip = optimizer, loss_scale, before_clip
        self.terms = terms
        self._plan_again = plan_again
        self._uncovered = uncovered
        self._step = StepState()
        self._applications = Applications()
        # A class that overrides step() and calls the one above runs the hooks of both.
        classes = [cls for cls in type(optimizer).__mro__ if cls is not Optimizer and "step" in vars(cls)]
        self._nests = len({inspect.unwrap(vars(cls)["step"]) for cls in classes}) > 1
        self._own_kind = type(optimizer).__module__.startswith("torch.optim")
        self._unheld = unheld
        self._masters = Masters(optimizer) if float32_master else None
        self._watches = Watches(optimizer, plans, loss_scale, unknown=watched, clip=clip, wide=float32_master)
        #: Whether a step has begun and not come to its end.
        self._begun = False
        self._hooks: list[Any] = []
        try:
            self._hook_up()
            enter(optimizer, self)
            self._take(plans)
            put_in_place(optimizer, self._names())
        except BaseException:
            self.remove()
            raise
        for state in optimizer.state.values():
            if isinstance(state, dict):
                state.pop(MASTER, None)  # of a checkpoint that was loaded before, and narrowed

    def _hook_up(self) -> None:
        optimizer, add = self.optimizer, self._hooks.append
        add(optimizer.register_step_pre_hook(self._before_step))
        add(optimizer.register_step_post_hook(self._after_step))
        add(optimizer.register_load_state_dict_pre_hook(lambda _, state: self._before_load(state)))
        add(optimizer.register_load_state_dict_post_hook(lambda _: self._after_load()))
        add(optimizer.register_state_dict_post_hook(lambda _, state: self._saved(state)))

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
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._watches.close()
        if self._masters is not None:
            self._masters.leave(rounded=False)
        self._hooks = []
        leave(self.optimizer)

    def apply_before_clip(self) -> None:
        """Add the prior's gradient to `.grad` when the loop says so, refusing what would add it twice or to nothing."""
        self.refresh()
        self._applications.check(self.optimizer, self._step.applied)
        # Those of a step that failed have it.
        if not (self._begun and self._fresh.is_stale()):
            self._watches.before_adding(by_hand=True)
            self.add_gradients()
        self._watches.added(between=False)
        self._applications.note(self.optimizer)
        self._step = replace(self._step, applied=True)

    def clipped(self, factor: float) -> None:
        """Take note that the gradients of this step were multiplied by a factor."""
        self._step = replace(self._step, clip_factor=factor)

    def counted_in_loss(self) -> None:
        """Take note that the prior's value is in the loss of this step."""
        self._step = replace(self._step, in_loss=True)

    def refresh(self) -> None:
        """Notice what has changed since the last step, before its routes are used outside of one."""
        self._check_unchanged(self.optimizer.param_groups)

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add the prior's gradient to `.grad`."""
        if not any(self._gradients):
            return
        # GradScaler leaves its scale here for fused optimizers, whose gradients are still scaled.
        amp = getattr(self.optimizer, "grad_scale", None)
        scale = 1.0 if amp is None else float(amp)
        for gradients, group in zip(self._gradients, self.optimizer.param_groups, strict=False):
            if gradients:
                # For `maximize` optimizers negate the gradient before they add their own decay, which always shrinks.
                gradients.add_(-scale if group.get("maximize") else scale)

    def _names(self) -> list[list[str]]:
        """Return the names of each group's parameters; empty for those that the prior does not cover."""
        known = {id(member.parameter): member.entry.name for member in self.members()}
        return [[known.get(id(p), "") for p in group["params"]] for group in self.optimizer.param_groups]

    # -- plan --------------------------------------------------------------------------------------------

    def _take(self, plans: list[GroupPlan]) -> None:
        self.plans = plans
        self._gradients = [Gradients(plan, self.terms, self.loss_scale) for plan in self.plans]
        self._pulls = [Pulls(plan, self.loss_scale) for plan in self.plans]
        self._watches.take(plans)
        self._fresh = Freshness(self.plans)
        self._state = State(self.optimizer, self.members(), self._uncovered)
        self._unfrozen = None if self._unheld is None else self._unheld()
        own(self.optimizer, [(m.entry.name, m.parameter) for m in self.members() if m.route != "none"])
        # Asked at every step, so kept as flags: walking a thousand members costs as much as moving them.
        self._proximal = any(plan.on("proximal") for plan in self.plans)
        self._needs_loss = any(plan.on("loss") for plan in self.plans)
        self._set_decay()

    def _saved(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        named = with_names(state_dict, self._names())
        return named if self._masters is None else self._masters.saved(named)

    def _before_load(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        found = renamed_state(state_dict, self._names())
        return found if self._masters is None else self._masters.loading(found)

    def _after_load(self) -> None:
        if self._masters is not None:
            self._masters.loaded()
        # A checkpoint carries the decay of the run that wrote it, and flags that may change what decay means.
        self._set_decay()
        self._take(self._plan_again())

    def _set_decay(self) -> None:
        for plan, group in self.groups():
            if "weight_decay" in group or plan.decay:
                group["weight_decay"] = plan.decay
            group[MARK] = plan.decay
            # A checkpoint of an optimizer that was not attached, or loading as such (AdamW's), turns it on again.
            if plan.flag is False and (group[DECOUPLED] or COUPLED in group):
                group[DECOUPLED], group[COUPLED] = False, True
            elif group.pop(COUPLED, False):
                group[DECOUPLED] = True
            if "lambd" in group:
                group["lambd"] = 0.0

    # -- hooks -------------------------------------------------------------------------------------------

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._is_nested():
            return None
        self._check_unchanged(optimizer.param_groups)
        self._watches.before_step()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        # Of a step before, which may have raised.
        self._step = replace(self._step, closure_calls=None)
        if callable(closure):
            # The gradients are made inside the step, after this hook: the prior must go in there too.
            wrapped = self._with_prior(closure, self._step.applied)
            self._step = replace(self._step, applied=False, closure_calls=0)
            if "closure" in kwargs:
                return args, {**kwargs, "closure": wrapped}
            return (args[0], wrapped, *args[2:]), kwargs
        if self._masters is not None:
            self._masters.enter()
        # A step that failed is tried again on the same gradients: the prior is in them.
        stale = self._fresh.is_stale()
        retried = stale and self._begun
        if self.before_clip:
            self._applications.find_scaler()
        # A step that moves nothing (torch takes one to make an optimizer's state) needs no preparation.
        if not retried and any(moves(group) for group in optimizer.param_groups):
            if self.before_clip:
                self._check_clip()
            self._check_loss()
        if not self.before_clip and not stale:
            self._add_in_step()
        if not retried:
            self._decouple()
        self._used()
        return None

    def _add_in_step(self, *, between: bool = True) -> None:
        self._watches.before_adding()
        self.add_gradients()
        self._watches.added(between=between)

    def _used(self) -> None:
        """Forget what was said of gradients and loss: they are about to be used, and made afresh."""
        self._fresh.note()
        self._begun = True
        self._step = replace(self._step, applied=False, in_loss=False)
        self._applications.forget()

    def _with_prior(self, closure: Callable[..., Any], applied: bool) -> Callable[..., Any]:
        """Return the closure with the prior's gradient added, and for line searches its value too.

        Args:
            closure: The closure.
            applied: Whether `apply_` came before the step: right if the closure makes no new gradients, as where
                Lightning leaves the steps to the user.
        """
        # Which third-party optimizers compare the values they get is not known, so all get the whole objective.
        with_value = isinstance(self.optimizer, LBFGS) or not self._own_kind

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal applied
            if self._masters is not None:
                self._masters.leave()
            before = held_gradients(self.optimizer) if applied else None
            loss = closure(*args, **kwargs)
            if before is not None and same_gradients(before, held_gradients(self.optimizer)):
                self._step = replace(self._step, applied=True)
            elif before is not None and self._step.applied:
                self._step = replace(self._step, applied=False)
                raise InvalidArgumentError("apply_() was called before step(closure), and in the closure again.")
            applied = False
            self._step = replace(self._step, closure_calls=(self._step.closure_calls or 0) + 1)
            if all(p.grad is None for group in self.optimizer.param_groups for p in group["params"]):
                # A loop that leaves a batch out, as Lightning does where a training step returns None.
                if loss is None:
                    return loss
                raise UnsupportedError(
                    "optimizer.step(closure): the closure left no gradients, so the prior has nothing to be added to; "
                    "call backward() in it, or use br.attach(..., route='loss') and add handle.penalty() there."
                )
            self._check_loss()
            if self._masters is not None:
                self._masters.enter()
            stale = self._fresh.is_stale()
            if self.before_clip:
                self._check_clip()
            elif not stale:
                self._add_in_step(between=False)
            retried = stale and self._begun
            self._used()
            # Beside the step once, however often it evaluates its closure.
            if not retried and self._step.closure_calls == 1:
                self._decouple()
            if not with_value or loss is None:
                return loss
            with torch.no_grad():
                others = [m for m in self.members() if m.route != "loss"]
                added = penalty_of(others, self.terms, shared=False)
            sign = -1.0 if any(group.get("maximize") for group in self.optimizer.param_groups) else 1.0
            return loss + sign * self.loss_scale.value * float(added)

        return wrapped

    def _is_nested(self) -> bool:
        """Return whether this hook runs inside another step of this optimizer: a subclass calling super().step()."""
        if not self._nests:
            return False
        frame, steps = sys._getframe(2), 0
        while frame is not None and steps < 2:
            inside = frame.f_code.co_name == "wrapper" and frame.f_code.co_filename == _TORCH_FILE
            steps += inside and frame.f_locals.get("self") is self.optimizer
            frame = frame.f_back  # type: ignore[assignment]
        return steps >= 2

    @torch.no_grad()
    def _decouple(self) -> None:
        if not any(self._pulls) or self._overflowed():
            return
        for pulls, group in zip(self._pulls, self.optimizer.param_groups, strict=False):
            if pulls:
                pulls.pull_(float(group["lr"]))

    def _overflowed(self) -> bool:
        """Return whether a fused optimizer is about to skip, or has skipped, this step for a GradScaler."""
        found_inf = getattr(self.optimizer, "found_inf", None)
        return found_inf is not None and bool(found_inf)

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._is_nested():
            return
        try:
            self._end_step(optimizer)
        finally:
            if self._masters is not None:
                self._masters.leave()
        self._watches.after_prox()
        self._step = StepState()
        self._begun = False
        self._fresh.note_changes()

    def _end_step(self, optimizer: Optimizer) -> None:
        if self._step.closure_calls == 0:
            raise UnsupportedError(
                f"{type(optimizer).__name__}.step(closure) never called its closure, so the prior was left out of this "
                f"step; call backward() before step() instead."
            )
        self._watches.after_step()
        if self._proximal and not self._overflowed():
            clip = self._step.clip_factor
            factor = self.loss_scale.value * (1.0 if clip is None else clip)
            for plan, group in self.groups():
                prox_(optimizer, plan, group, factor)

    # -- checks ------------------------------------------------------------------------------------------

    def _check_unchanged(self, groups: list[dict[str, Any]]) -> None:
        if self._state.has_changed(groups):
            self._take(self._plan_again())
        self._state.check()
        if self._unfrozen is not None:
            self._unfrozen.check()
        for index, (plan, group) in enumerate(zip(self.plans, groups, strict=True)):
            if group.get("weight_decay", 0.0) != plan.decay:
                raise InvalidArgumentError(
                    f"weight_decay of param group {index} was changed to {group['weight_decay']:g} after br.attach set "
                    f"{plan.decay:g}: the prior decides it. To change the strength, remove() the handle and attach "
                    f"another prior."
                )
            if plan.flag is not None and group.get(DECOUPLED) != plan.flag:
                raise InvalidArgumentError(
                    f"decoupled_weight_decay of param group {index} was changed to {group.get(DECOUPLED)} after "
                    f"br.attach: with {plan.flag} its decay is the prior; remove() the handle first."
                )

    def _check_clip(self) -> None:
        if not self._step.applied:
            raise InvalidArgumentError(
                "the prior was attached with before_clip=True, but handle.apply_() was not called before this "
                "step; call it after backward() and scaler.unscale_(optimizer), before the clip, in the closure if any."
            )
        if self._step.clip_factor is None and self._proximal:
            raise InvalidArgumentError(
                "a prior with a kink was attached with before_clip=True: after clip_grad_norm_ call "
                "handle.clipped(total_norm, max_norm), so that the proximal step is clipped alike."
            )

    def _check_loss(self) -> None:
        if self._needs_loss and not self._step.in_loss:
            raise InvalidArgumentError(
                "route 'loss': handle.penalty() was not called before this step; add it to the training loss."
            )
