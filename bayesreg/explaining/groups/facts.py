"""What is known of an optimizer and its parameters, whether it lives or was read from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bayesreg.errors import InvalidArgumentError
from bayesreg.explaining.groups.layout import laid_out
from bayesreg.explaining.groups.recognise import recognise, require_sound
from bayesreg.optimizers import DecayRule, OptimizerLike, decay_rule, decay_rules
from bayesreg.optimizers.arrival import arrivals
from bayesreg.optimizers.attached import attachment_of
from bayesreg.optimizers.decay import kind_by_flag
from bayesreg.priors import Belief
from bayesreg.selection import ParameterInfo, Role, parameters_of, role_of

T = TypeVar("T")

__all__ = ["GroupFacts", "ParameterFacts", "fact_of", "facts_of_live", "facts_of_state"]


@dataclass(frozen=True)
class ParameterFacts:
    """One parameter.

    Attributes:
        name: Its name, or `#index` where none is known.
        role: What it is in the model.
        shape: Its shape.
        dtype: Its dtype.
        value: Its values, None if only a checkpoint's state is at hand.
        state: The optimizer's state of it.
        trainable: Whether it is not frozen.
        centre: Of the prior that bayesreg has attached to it; None where there is none.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    dtype: torch.dtype
    value: Tensor | None = field(repr=False)
    state: Mapping[str, Any] = field(repr=False)
    trainable: bool = True
    centre: Tensor | None = field(default=None, repr=False)

    @property
    def elements(self) -> int:
        """The number of its elements."""
        return int(torch.Size(self.shape).numel())


@dataclass(frozen=True)
class GroupFacts:
    """One param group, or the part of one that shares an attached prior and route.

    Attributes:
        index: Its place among the optimizer's groups.
        cls: The optimizer's class; None for one that torch does not ship and that settings only name.
        rule: What the optimizer does with `weight_decay`.
        settings: The group without its parameters.
        parameters: Its parameters.
        prior: A prior attached by bayesreg.
        route: Its route.
        attached: Whether bayesreg has a prior on this optimizer at all.
    """

    index: int
    cls: type[Optimizer] | None
    rule: DecayRule
    settings: Mapping[str, Any]
    parameters: Sequence[ParameterFacts]
    prior: Belief | None = None
    route: str | None = None
    attached: bool = False


def facts_of_live(optimizer: Optimizer, model: nn.Module) -> list[GroupFacts]:
    """Gather the facts of an optimizer and its model."""
    infos = {id(info.parameter): info for info in parameters_of(model)}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if held and not any(id(p) in infos for p in held):
        raise InvalidArgumentError(
            "model: the optimizer holds none of its parameters; pass the model that this optimizer trains (built after "
            "the model was wrapped or sharded)."
        )
    attachment = attachment_of(optimizer)
    routes = {id(m.parameter): m for m in attachment.members()} if attachment is not None else {}
    groups = []
    for index, (group, rule) in enumerate(zip(optimizer.param_groups, _rules(optimizer), strict=True)):
        settings = {key: value for key, value in group.items() if key != "params"}
        parts: dict[tuple[str, str], list[Tensor]] = {}
        for p in group["params"]:
            member = routes.get(id(p))
            parts.setdefault((member.route, member.prior.describe()) if member else ("", ""), []).append(p)
        for parameters in parts.values():
            member = routes.get(id(parameters[0]))
            facts = [fact_of(p, infos.get(id(p)), optimizer.state.get(p, {}), index) for p in parameters]
            if member is not None:
                centres = [routes[id(p)].prior.centre() for p in parameters]
                facts = [replace(fact, centre=centre) for fact, centre in zip(facts, centres, strict=True)]
            prior, route = (member.prior, member.route) if member else (None, None)
            groups.append(
                GroupFacts(index, type(optimizer), rule, settings, facts, prior, route, attachment is not None)
            )
    return groups


def _rules(optimizer: Optimizer) -> list[DecayRule]:
    """Return what is done with the decay of each group; of an optimizer that holds norms, that."""
    found = zip(decay_rules(optimizer), arrivals(optimizer), strict=True)
    return [replace(rule, kind="held") if seen["matrix"] == "held" else rule for rule, seen in found]


def fact_of(parameter: Tensor, info: ParameterInfo | None, state: Mapping[str, Any], index: int) -> ParameterFacts:
    """Gather the facts of one parameter of group `index`."""
    name = info.name if info is not None else f"(not in the model, group {index})"
    role = role_of(info) if info is not None else _role_of_shape(parameter.shape)
    return ParameterFacts(
        name, role, tuple(parameter.shape), parameter.dtype, parameter.detach(), state, parameter.requires_grad
    )


def _role_of_shape(shape: Sequence[int]) -> Role:
    # Without names: what has one dimension is a bias or a normalisation scale in nearly every model.
    return "bias" if len(shape) <= 1 else "weight"


def facts_of_state(
    state_dict: Mapping[str, Any],
    model: nn.Module | None,
    optimizer: OptimizerLike | None,
    weights: Mapping[str, Tensor] | None = None,
) -> list[GroupFacts]:
    """Gather the facts of an optimizer's state dict.

    Args:
        state_dict: The state dict.
        model: The model, if it is at hand.
        optimizer: The optimizer's class, if the caller knows it.
        weights: The model's parameters in their order, in place of the model; used only if every shape agrees.

    Returns:
        The facts.

    Raises:
        InvalidArgumentError: If the state dict is not of the form that torch writes, or not known whose it is.
    """
    require_sound(state_dict)
    cls = recognise(state_dict, optimizer)
    infos = [info for info in parameters_of(model) if info.parameter.requires_grad] if model is not None else []
    keys = [key for group in state_dict["param_groups"] for key in group["params"]]
    shapes = {key: _known(state_dict["state"].get(key, {})) for key in keys}
    by_name = {name: info for info in infos for name in info.names}
    # Groups need not follow the model's order: no name is better than a wrong one.
    kept = [group["params"] for group in state_dict["param_groups"]]
    known_infos = _placed(kept, shapes, infos, [info.parameter for info in infos])
    apart = _apart(weights or {})
    known_weights = _placed(kept, shapes, list(apart.items()), list(apart.values()))
    groups = []
    for index, group in enumerate(state_dict["param_groups"]):
        settings = {key: value for key, value in group.items() if key != "params"}
        names = settings.get("param_names") or [f"#{key}" for key in group["params"]]
        facts = []
        for key, name in zip(group["params"], names, strict=True):
            state, info = state_dict["state"].get(key, {}), known_infos.get(key, by_name.get(name))
            if info is not None and _fits(shapes[key], info.parameter):
                facts.append(fact_of(info.parameter, info, state, index))
            elif key in known_weights:
                facts.append(_fact_by_name(known_weights[key][0], known_weights[key][1], known_weights[key][1], state))
            else:
                facts.append(_fact_by_name(name, shapes[key], None, state))
        rule = decay_rule(cls)
        lambd = float(settings.get("lambd", rule.extra_decay))
        kind = kind_by_flag(rule.kind, settings)
        groups.append(GroupFacts(index, cls, DecayRule(kind, rule.name, lambd), settings, facts))
    return groups


def _placed(
    groups: Sequence[Sequence[Any]], shapes: Mapping[Any, Tensor | None], things: Sequence[T], tensors: Sequence[Tensor]
) -> dict[Any, T]:
    """Return what each key of the groups stands for, where shapes leave one answer; nothing where they do not."""
    if not things or len(things) != sum(map(len, groups)):
        return {}
    if len(groups) == 1:
        if any(not _fits(shapes[key], tensor) for key, tensor in zip(groups[0], tensors, strict=True)):
            return {}
        return dict(zip(groups[0], things, strict=True))
    places = laid_out(
        [[_shape(shapes[key]) for key in group] for group in groups], [tuple(tensor.shape) for tensor in tensors]
    )
    pairs = [] if places is None else zip(groups, places, strict=True)
    return {key: things[place] for group, here in pairs for key, place in zip(group, here, strict=True)}


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)


def _apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights but for those that share their memory with one before: tied ones have one entry."""
    seen: set[tuple[object, ...]] = set()
    found = {}
    for name, value in weights.items():
        key = (name,) if value.is_meta or not value.numel() else (value.data_ptr(), value.shape, value.stride())
        if key not in seen:
            found[name] = value
        seen.add(key)
    return found


def _known(state: Mapping[str, Any]) -> Tensor | None:
    """Return a tensor of the state that has the parameter's shape, if there is one."""
    return next((v for v in state.values() if isinstance(v, Tensor) and v.ndim), None)


def _fits(known: Tensor | None, parameter: Tensor) -> bool:
    return known is None or known.shape == parameter.shape


def _fact_by_name(name: str, like: Tensor | None, value: Tensor | None, state: Mapping[str, Any]) -> ParameterFacts:
    # Neither state nor weights at hand: how many elements there are is not known.
    shape = tuple(like.shape) if like is not None else (0,)
    role: Role = _role_of_shape(shape) if like is not None else "weight"
    if name.rsplit(".", 1)[-1].endswith("bias"):
        role = "bias"
    return ParameterFacts(name, role, shape, like.dtype if like is not None else torch.float32, value, state)
