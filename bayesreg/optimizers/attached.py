"""Which optimizers have a prior attached, and which only carry the marks of one."""

from __future__ import annotations

import weakref
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bayesreg.errors import InvalidArgumentError
from bayesreg.optimizers.decay import DECOUPLED, unwrap
from bayesreg.optimizers.others import disown, watch_steps

__all__ = ["COUPLED", "MARK", "attachment_of", "enter", "forget", "install_guard", "leave"]

#: Key in a param group that holds the weight_decay which a prior set there. It travels with copies and checkpoints,
#: so that a decay of bayesreg's own is told from one set by hand, and a copy without its prior is noticed.
MARK = "bayesreg_decay"

#: Key in a param group of AdamW whose decay a prior has coupled to the gradient, which makes it Adam: its own flag is
#: to be put back.
COUPLED = "bayesreg_coupled"

# Values are weak too: an attachment lives in the hooks of its optimizer, and both go together.
_attached: weakref.WeakKeyDictionary[Optimizer, weakref.ref[Any]] = weakref.WeakKeyDictionary()
_guards: list[Any] = []


def attachment_of(optimizer: Optimizer) -> Any:
    """Return what is attached to an optimizer."""
    found = _attached.get(optimizer)
    return found() if found is not None else None


def install_guard() -> None:
    """Watch, from now on, for steps of optimizers that have lost their prior.

    A hook on every optimizer's step, as the copy or the resumed run that lost its prior is an object that nobody has
    told of bayesreg; it costs a look into the param groups.
    """
    if not _guards:
        _guards.append(register_optimizer_step_pre_hook(_guard))
        watch_steps()


def enter(optimizer: Optimizer, attachment: object) -> None:
    """Note that a prior is attached, and watch from now on for optimizers that have lost theirs."""
    install_guard()
    _attached[optimizer] = weakref.ref(attachment)


def leave(optimizer: Optimizer) -> None:
    """Note that no prior is attached any more."""
    forget(optimizer)
    disown(optimizer)
    _attached.pop(optimizer, None)


def forget(optimizer: Optimizer) -> None:
    """Take the marks of a prior off an optimizer, and what it had set: decay, and the flag that says what it does."""
    for group in optimizer.param_groups:
        if MARK in group and group.get("weight_decay") == group[MARK]:
            group["weight_decay"] = 0.0
        group.pop(MARK, None)
        if group.pop(COUPLED, False):
            group[DECOUPLED] = True


def _guard(optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    """Stop an optimizer whose groups carry the mark of a prior that did not come along."""
    if any(MARK in group for group in optimizer.param_groups) and attachment_of(unwrap(optimizer)) is None:
        raise InvalidArgumentError(
            "this optimizer carries the settings of a prior, but the prior is not attached to it: copying, pickling "
            "and loading a state dict do not take it along. Call br.attach(optimizer, prior, ...) on it, or "
            "br.detach(optimizer) to go on without the prior."
        )
