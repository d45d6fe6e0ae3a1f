"""What each optimizer does with `weight_decay`: the facts that conversions and routes build on."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch.optim import Optimizer

from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError, NotEquivalentError, nearest
from bayesreg.optimizers.probe import Build, examine, rebuild

__all__ = [
    "CORRECTED",
    "DECOUPLED",
    "DecayRule",
    "OptimizerLike",
    "class_of",
    "decay_rule",
    "decay_rule_of_group",
    "decay_rules",
    "each_kind_of_group",
    "hand_set_decay",
    "kind_by_flag",
    "own_type",
    "require_coupled",
    "steady_gain",
    "unwrap",
]

Found = TypeVar("Found")
OptimizerLike: TypeAlias = Optimizer | type[Optimizer] | Callable[..., Any] | str

_WAYS_ON = (
    "Either keep the prior exact by setting weight_decay=0 and injecting the prior's gradient "
    "(br.attach(optimizer, prior, num_data=n)), or use a coupled optimizer such as SGD or Adam."
)


#: The flag in the param groups of Adam and its kin (of AdamW since torch 2.7) that says what they do with decay.
DECOUPLED = "decoupled_weight_decay"

#: The setting of timm's optimizers that multiplies a decoupled decay by lr / (the largest lr).
CORRECTED = "corrected_weight_decay"

Kind: TypeAlias = Literal["coupled", "decoupled", "cautious", "held", "none", "other", "unknown"]


@dataclass(frozen=True)
class DecayRule:
    """How an optimizer treats its `weight_decay`.

    Attributes:
        kind: "coupled" (added to the gradient: a Gaussian prior), "decoupled" (the weights are shrunk apart from the
            gradient: no Gaussian prior), "cautious" (only those that the update shrinks too), "held" (the norm of
            matrices is fixed, so that no decay acts), "none" (no such argument, or one that it ignores), "other"
            (probed: none of these) or "unknown" (it could not be probed).
        name: The optimizer's class name.
        extra_decay: Decay hidden in another argument and added to `weight_decay` (ASGD's `lambd`).
        probed: Whether the kind was measured on a toy tensor rather than known.
        hidden: Whether it moved weights with a zero gradient and weight_decay = 0: a decay under another name.
    """

    kind: Kind
    name: str
    extra_decay: float = 0.0
    probed: bool = False
    hidden: bool = False


# Checked algebraically against every implementation by tests/optimizers/test_decay.py.
_COUPLED = ("SGD", "Adam", "NAdam", "RAdam", "Adagrad", "Adadelta", "Adamax", "RMSprop", "ASGD")
_DECOUPLED = ("AdamW", "Adafactor", "Muon")
_NONE = ("Rprop", "LBFGS", "SparseAdam")
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(_COUPLED, "coupled"),
    **dict.fromkeys(_DECOUPLED, "decoupled"),
    **dict.fromkeys(_NONE, "none"),
}


def class_of(optimizer: OptimizerLike) -> tuple[type, dict[str, Any]]:
    """Return the optimizer class and the settings that are known of it."""
    if isinstance(optimizer, str):
        # Older versions of torch lack some of them.
        by_lower = {name.lower(): name for name in _KINDS if hasattr(torch.optim, name)}
        if optimizer.lower() not in by_lower:
            raise InvalidArgumentError(
                f"optimizer: expected a torch optimizer, got {optimizer!r}{nearest(optimizer.lower(), by_lower)}"
            )
        return getattr(torch.optim, by_lower[optimizer.lower()]), {}
    if isinstance(optimizer, Optimizer):
        # Flags can differ by group; one decoupled group makes the whole answer decoupled.
        settings = dict(optimizer.defaults)
        if all(DECOUPLED in group for group in optimizer.param_groups):
            settings.pop(DECOUPLED, None)
        for group in optimizer.param_groups:
            if DECOUPLED in group:
                settings[DECOUPLED] = group[DECOUPLED] or settings.get(DECOUPLED, False)
            if "lambd" in group:
                settings["lambd"] = group["lambd"]
        return type(optimizer), settings
    if isinstance(optimizer, functools.partial):
        cls, settings = class_of(optimizer.func)
        return cls, {**settings, **optimizer.keywords}
    if inspect.isclass(optimizer):
        return optimizer, {}
    raise InvalidArgumentError(
        f"optimizer: expected a torch optimizer, its class, a factory of it or its name, "
        f"got {type(optimizer).__name__}."
    )


def own_type(cls: type) -> str | None:
    """Return the name of the torch optimizer that a class is, None for one that torch does not ship.

    Args:
        cls: The class.

    Returns:
        Its name.
    """
    known = getattr(torch.optim, cls.__name__, None)
    return cls.__name__ if known is cls and cls.__name__ in _KINDS else None


@answering
def decay_rule(optimizer: OptimizerLike) -> DecayRule:
    """Say what an optimizer does with its `weight_decay`.

    A subclass or a third-party optimizer is probed by a few steps on a toy tensor, which takes milliseconds: names do
    not tell (NAdam is coupled, NAdamW is not).

    Args:
        optimizer: An optimizer, its class, a `functools.partial` of the class, a function from a list of parameters to
            an optimizer, or the name of one of torch's.

    Returns:
        The rule.

    Raises:
        InvalidArgumentError: If `optimizer` is none of these.

    Example:
        >>> decay_rule(torch.optim.SGD).kind, decay_rule("adamw").kind, decay_rule("ASGD").extra_decay
        ('coupled', 'decoupled', 0.0001)
    """
    if isinstance(optimizer, Optimizer):
        optimizer = unwrap(optimizer)
    if not (isinstance(optimizer, Optimizer | str | functools.partial) or inspect.isclass(optimizer)):
        return _rule_of_factory(optimizer)
    cls, settings = class_of(optimizer)
    name = own_type(cls)
    if name is None:
        build = rebuild(optimizer) if isinstance(optimizer, Optimizer) else optimizer
        # A partial or a class: called with parameters, as a factory is.
        return _examined(build, cls.__name__)  # type: ignore[arg-type]
    kind = kind_by_flag(_KINDS[name], settings)
    lambd = settings.get("lambd", 1e-4) if name == "ASGD" else 0.0
    return DecayRule(kind, name, extra_decay=float(lambd))


def _examined(build: Build, name: str) -> DecayRule:
    found = examine(build)
    return DecayRule(found.kind, name, probed=True, hidden=found.drifts)


def decay_rules(optimizer: Optimizer) -> list[DecayRule]:
    """Say what an optimizer does with the `weight_decay` of each of its param groups.

    One of torch's is known; another is tried once for each kind of group: groups that differ only in their parameters,
    learning rates and decays are of one kind.

    Args:
        optimizer: The optimizer.

    Returns:
        A rule per group.
    """
    whole = DecayRule("unknown", type(optimizer).__name__)
    if own_type(type(optimizer)) is not None:
        whole = decay_rule(optimizer)
    return each_kind_of_group(optimizer, lambda group: decay_rule_of_group(optimizer, group, whole))


def each_kind_of_group(
    optimizer: Optimizer,
    look: Callable[[dict[str, Any]], Found],
    known: list[tuple[dict[str, Any], Found]] | None = None,
) -> list[Found]:
    """Look once at each kind of param group: those that differ only in parameters and rates are of one kind.

    Args:
        optimizer: The optimizer.
        look: What to find out about a group.
        known: What was found before, by settings; added to.

    Returns:
        What was found, for each group.
    """
    known, all_found = [] if known is None else known, []
    for group in optimizer.param_groups:
        settings = {key: value for key, value in group.items() if key not in _NOT_OF_A_KIND}
        before = next((one for one in known if _same_settings(settings, one[0])), None)
        if before is None:
            before = (settings, look(group))
            known.append(before)
        all_found.append(before[1])
    return all_found


# What groups of one kind may differ in; the last three are written there by schedulers and by bayesreg.
_NOT_OF_A_KIND = (
    "params",
    "param_names",
    "lr",
    "weight_decay",
    "initial_lr",
    "max_lr",
    "bayesreg_decay",
    "bayesreg_coupled",
    "bayesreg_names",
)


def _same_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    def same(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
            return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b)
        try:
            return bool(a is b or a == b)
        except (TypeError, ValueError, RuntimeError):
            return False

    return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())


def _rule_of_factory(factory: Any) -> DecayRule:
    try:
        made = factory([torch.nn.Parameter(torch.zeros(3, 3))])
    except Exception as error:  # Whatever a caller's function raises, it is no factory.
        raise InvalidArgumentError(
            f"optimizer: expected a function from a list of parameters to an optimizer; calling it raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, Optimizer):
        raise InvalidArgumentError(f"optimizer: expected a function that returns one, got {type(made).__name__}.")
    return decay_rule(made)


def decay_rule_of_group(optimizer: Optimizer, group: Mapping[str, Any], rule: DecayRule) -> DecayRule:
    """Return what an optimizer does with the decay of one group, where the flags of groups differ.

    Args:
        optimizer: The optimizer.
        group: One of its param groups.
        rule: Its `decay_rule`.

    Returns:
        The rule of this group.
    """
    name = own_type(type(optimizer))
    if name is None:
        # By its square, as long as the rate is that of the start: the rule without that is the one to know.
        plain = {**group, CORRECTED: False} if group.get(CORRECTED) else group
        return _examined(rebuild(optimizer, plain), rule.name)
    if _KINDS[name] != "coupled" and DECOUPLED not in group:
        return rule
    return DecayRule(kind_by_flag(_KINDS[name], group), name, extra_decay=float(group.get("lambd", 0.0)))


def kind_by_flag(kind: Kind, settings: Mapping[str, Any]) -> Kind:
    """Return what an optimizer of torch's does with decay, where its settings may have a flag that says it.

    Args:
        kind: What its class does.
        settings: Of the optimizer, or of one of its groups.
    """
    if DECOUPLED not in settings or kind not in ("coupled", "decoupled"):
        return kind
    return "decoupled" if settings[DECOUPLED] else "coupled"


def steady_gain(group: Mapping[str, Any]) -> float:
    """Return by how much the momentum of a param group multiplies a steady gradient in the long run.

    Args:
        group: A param group of SGD or of one like it.

    Returns:
        (1 − dampening)/(1 − momentum); 1 without momentum, infinity where momentum is 1 or more.
    """
    momentum = float(group.get("momentum") or 0.0)
    if momentum >= 1.0:
        return math.inf
    return (1.0 - float(group.get("dampening") or 0.0)) / (1.0 - momentum) if momentum else 1.0


def unwrap(optimizer: Any) -> Any:
    """Return the optimizer inside a wrapper, such as Accelerate's, Lightning's, Lookahead or SAM.

    Args:
        optimizer: The optimizer, wrapped or not; the wrapper need not be an optimizer itself.

    Returns:
        The innermost one, whose step really moves the weights; what was given, if there is none inside.
    """
    inner = [value for value in getattr(optimizer, "__dict__", {}).values() if isinstance(value, Optimizer)]
    return unwrap(inner[0]) if len(inner) == 1 and inner[0] is not optimizer else optimizer


def require_coupled(optimizer: OptimizerLike) -> DecayRule:
    """Return the rule of a coupled optimizer, and refuse every other with the reason.

    Args:
        optimizer: As in `decay_rule`.

    Returns:
        The rule, of kind "coupled".

    Raises:
        InvalidArgumentError: If `optimizer` is not an optimizer.
        NotEquivalentError: If its `weight_decay` is not the decay of a Gaussian prior.
    """
    rule = decay_rule(optimizer)
    if rule.kind == "coupled":
        return rule
    if rule.kind == "decoupled":
        raise NotEquivalentError(
            f"{rule.name} decouples weight decay from the gradient, so its weight_decay is not a Gaussian prior: "
            f"the implied precision differs by coordinate, batch size and schedule, and with full batches it mostly "
            f"returns the unregularised fit. {_WAYS_ON}"
        )
    if rule.kind == "none":
        ignored = ", or one that it ignores" if rule.probed else ""
        raise NotEquivalentError(
            f"{rule.name} has no weight_decay argument{ignored}. Give it the prior through the gradient or the loss: "
            f"br.attach(optimizer, prior, num_data=n), or optimizer='lbfgs' in br.MAPTrainer."
        )
    if rule.kind in ("cautious", "other"):
        raise NotEquivalentError(
            f"{rule.name} was probed: its weight_decay is neither added to the gradient nor a plain shrinkage of the "
            f"weights, so it is not a Gaussian prior. {_WAYS_ON}"
        )
    raise NotEquivalentError(
        f"{rule.name} is not one of torch's own optimizers and could not be probed (a trial on a toy tensor failed): "
        f"what its weight_decay means is not known; pass an instance of it. {_WAYS_ON}"
    )


def hand_set_decay(optimizer: Optimizer) -> float:
    """Return a weight_decay that the caller gave to the constructor, 0.0 if none was given.

    Groups made by `ModelPrior.param_groups()` carry their own weight_decay=0, so a decay set by hand is then
    visible only in `optimizer.defaults`; it counts when it differs from the class default.
    """
    given = float(optimizer.defaults.get("weight_decay", 0.0) or 0.0)
    parameter = inspect.signature(type(optimizer).__init__).parameters.get("weight_decay")
    default = parameter.default if parameter is not None else 0.0
    return given if given != default else 0.0
