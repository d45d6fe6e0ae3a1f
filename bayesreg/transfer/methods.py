"""Priors about pretrained weights over a whole model: the published methods, each by its name."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError, kind_of, nearest
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Belief, Flat, Gaussian, GroupLaplace, Laplace, Prior
from bayesreg.priors.contract.asking import is_flat
from bayesreg.priors.located.located import LocatedPrior
from bayesreg.references import Reference, Rename, Storage, read_reference
from bayesreg.selection import (
    ParameterInfo,
    Selection,
    SelectorLike,
    any_of,
    as_selector,
    biases,
    buffers_of,
    norms,
    parameters_of,
    selected,
    where,
)

__all__ = ["Covered", "ReferenceLike", "Scales", "centered_prior", "group_lasso_sp", "l1_sp", "l2_sp"]

ReferenceLike: TypeAlias = "nn.Module | Mapping[str, Tensor] | str | os.PathLike[str]"
Covered: TypeAlias = Literal["weights", "all"]
Scales: TypeAlias = "float | Mapping[SelectorLike, float]"


@answering
def centered_prior(
    model: nn.Module,
    reference: ReferenceLike,
    body: Prior | Mapping[SelectorLike, Belief],
    *,
    new: Selection | None = None,
    head: Prior | None = None,
    covered: Covered = "all",
    resized: Mapping[SelectorLike, LocatedPrior] | None = None,
    rename: Rename | None = None,
    extra: Literal["raise", "ignore"] = "raise",
    storage: Storage = "copy",
) -> ModelPrior:
    """Return the prior that puts `body` about a reference's weights and `head`, about 0, on new layers.

    Args:
        model: The model to be fine-tuned; `load_into` starts it at the reference.
        reference: A module, state dict, file, Hugging Face directory or `Reference`; see `load_reference`.
        body: The prior of the pretrained layers, whose centre the reference replaces: one, or rules to several (a
            strength per layer: `depth_graded`). `Flat` stays flat.
        new: Rule key, or a list of them, of the layers that the reference does not have, or has for another task:
            "head.*". They are not pulled to their random initialisation.
        head: The prior of those; needed with `new`.
        covered: "all" (default): biases and normalisation parameters are under the priors too. "weights": they are
            flat, in body and head.
        resized: From rule keys to the prior of the elements that the reference does not have, for parameters of
            another shape (an embedding with more rows); see `LocatedPrior.centered_at`. Its rules come before `body`,
            whose prior they take where both have an element.
        rename: From names in the reference to names in the model.
        extra: "raise" (default) or "ignore": reference tensors that the model has no place for.
        storage: Where the reference is kept: "copy" (default), "memory_map" or "bfloat16".

    Returns:
        The prior; its `describe()` lists what is centred, new, renamed, resized, ignored and frozen.

    Raises:
        InvalidArgumentError: If an argument is out of range, `new` comes without `head` or the other way round, or
            `body` has no centre.
        PatternError: If a rule matches nothing.
        CoverageError: If `body` is rules that leave a parameter uncovered.
        PriorFileError: If a file cannot be read.
        ReferenceMismatchError: If the reference does not fit; every mismatch is listed.

    Example:
        >>> import bayesreg as br
        >>> def network(classes):
        ...     return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, classes))
        >>> prior = br.transfer.centered_prior(
        ...     network(3), network(10), br.Gaussian(0.05), new="2.*", head=br.Gaussian(1.0)
        ... )
        >>> [entry.prior.describe() for entry in prior][1:3]
        ['Gaussian, std 0.05, centred on Sequential', 'Gaussian, std 1, centred on 0']

    References:
        Li, Grandvalet and Davoine (2018), Explicit Inductive Bias for Transfer Learning with Convolutional Networks.
    """
    _one_of("covered", covered, get_args(Covered))
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model: expected a module, got {type(model).__name__}; the reference comes second.")
    if resized is not None and not isinstance(resized, Mapping):
        raise InvalidArgumentError(f"resized: expected a mapping from rules to priors, got {type(resized).__name__}.")
    if (new is None) != (head is None):
        raise InvalidArgumentError("new, head: expected both or none: which parameters are new, and their prior.")
    given: Mapping[SelectorLike, Belief] = body if isinstance(body, Mapping) else {"*": body}
    if not given:
        raise InvalidArgumentError("body: expected a prior, or rules with at least one, got an empty mapping.")
    for key, value in given.items():
        if not isinstance(value, Belief):
            raise InvalidArgumentError(
                f"body: expected a prior for {key!r}, such as br.Gaussian(0.1), got {kind_of(value)}."
            )
    loaded = read_reference(reference, rename=rename, extra=extra, storage=storage)
    infos = parameters_of(model)
    rules: dict[SelectorLike, Belief] = {biases | norms: Flat()} if covered == "weights" else {}
    if new is not None and head is not None:
        fresh = selected("new", new, [*infos, *buffers_of(model)])
        _refuse_rules_of_new_layers(given, infos, fresh)
        rules[any_of(new, "new")] = head
    about = {key: _about(prior, loaded) for key, prior in given.items()}
    rest = infos
    for key, beyond in (resized or {}).items():
        chosen = selected("resized", key, infos)
        rest = [info for info in rest if info.name not in chosen]
        for inner, prior in about.items():
            if isinstance(prior, LocatedPrior):
                rules[as_selector(key, "resized") & inner] = prior.with_resized(beyond)
    # A rule all of whose parameters are resized has nothing left to say.
    said = {key: prior for key, prior in about.items() if not resized or any(map(as_selector(key), rest))}
    return ModelPrior(model, {**rules, **said})


def _refuse_rules_of_new_layers(
    body: Mapping[SelectorLike, Belief], infos: Sequence[ParameterInfo], fresh: set[str]
) -> None:
    for key in body:
        chosen = {info.name for info in infos if as_selector(key)(info)}
        if chosen and chosen <= fresh:
            raise InvalidArgumentError(
                f"body: expected rules of pretrained layers, got {as_selector(key).label}, which new= takes whole; "
                f"leave it out (depth_graded takes new=, too)."
            )


def _about(prior: Belief, reference: Reference) -> Belief:
    if is_flat(prior):
        return prior
    if not isinstance(prior, LocatedPrior):
        raise InvalidArgumentError(f"body: expected priors with a centre, or br.Flat(), got {prior!r}.")
    if prior.reference is not None or bool(prior.centre().any()):
        raise InvalidArgumentError(f"body: expected priors about 0, which the reference replaces, got {prior!r}.")
    return prior.with_loc(reference)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidArgumentError(
            f"{name}: expected one of {', '.join(map(repr, known))}, got {value!r}{nearest(str(value), known)}."
        )


@answering
def l2_sp(
    model: nn.Module,
    reference: ReferenceLike,
    *,
    body_scale: Scales,
    head_scale: float | None = None,
    new: Selection | None = None,
    covered: Covered = "weights",
    resized: Selection | None = None,
    rename: Rename | None = None,
    extra: Literal["raise", "ignore"] = "raise",
    storage: Storage = "copy",
) -> ModelPrior:
    """Return L2-SP: Gaussians about the pretrained weights, a Gaussian about 0 on the new layers.

    The penalty is ½‖w − w⁰‖²/body_scale² + ½‖w_new‖²/head_scale² nats. As coefficients α, β of a training loss s·NLL
    with the ½, body_scale² = s/α and head_scale² = s/β (`br.weight_decay_to_variance`).

    Args:
        model: The model to be fine-tuned.
        reference: The pretrained weights; see `load_reference`.
        body_scale: Standard deviation about the pretrained weights, > 0: one, or one per rule key (`depth_graded`).
        head_scale: Standard deviation of new layers about 0, > 0; needed with `new`, and with `resized` for the
            elements that the reference does not have.
        new: Rule key of the new layers, or a list of them.
        covered: "weights" (default), as the paper's authors do: biases and normalisation parameters are free. "all",
            as their variant for all parameters and the DELTA and TLL codes do: those are pulled too, and a bias of
            the head to 0. "all" with head_scale = body_scale is the isotropic learned prior of Harvey et al.
        resized: Rule key, or a list, of parameters with another shape than in the reference; see `centered_prior`.
        rename: From names in the reference to names in the model.
        extra: "raise" (default) or "ignore": reference tensors that the model has no place for.
        storage: Where the reference is kept: "copy" (default), "memory_map" or "bfloat16".

    Returns:
        The prior.

    Raises:
        InvalidArgumentError: If an argument is out of range, or `new` comes without `head_scale`.
        PatternError: If a rule matches nothing.
        CoverageError: If `body_scale` is rules that leave a parameter uncovered.
        PriorFileError: If a file cannot be read.
        ReferenceMismatchError: If the reference does not fit; every mismatch is listed.

    Example:
        >>> import bayesreg as br
        >>> def network(classes):
        ...     return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, classes))
        >>> prior = br.transfer.l2_sp(network(3), network(10), body_scale=0.05, head_scale=1.0, new="2.*")
        >>> [(entry.name, entry.prior.family) for entry in prior]
        [('0.weight', 'Gaussian'), ('0.bias', 'Flat'), ('2.weight', 'Gaussian'), ('2.bias', 'Flat')]

    References:
        Li, Grandvalet and Davoine (2018), Explicit Inductive Bias for Transfer Learning with Convolutional Networks,
        equation 2 (penalty) and section 5 (biases); Harvey, Petrov and Hughes (2024), Transfer Learning with
        Informative Priors.
    """
    return centered_prior(
        model,
        reference,
        _by_rule(body_scale, Gaussian),
        new=new,
        head=_head(new, head_scale, resized),
        covered=covered,
        resized=_beyond(resized, head_scale),
        rename=rename,
        extra=extra,
        storage=storage,
    )


@answering
def l1_sp(
    model: nn.Module,
    reference: ReferenceLike,
    *,
    body_scale: Scales,
    head_scale: float | None = None,
    new: Selection | None = None,
    covered: Covered = "weights",
    resized: Selection | None = None,
    resized_scale: float | None = None,
    rename: Rename | None = None,
    extra: Literal["raise", "ignore"] = "raise",
    storage: Storage = "copy",
) -> ModelPrior:
    """Return L1-SP: Laplace priors about the pretrained weights, a Gaussian about 0 on the new layers.

    The penalty is ‖w − w⁰‖₁/body_scale + ½‖w_new‖²/head_scale² nats. Under proximal steps (`br.attach`) most weights
    stay exactly at their pretrained values: the update is sparse.

    Args:
        model: The model to be fine-tuned.
        reference: The pretrained weights; see `load_reference`.
        body_scale: Laplace scale b about the pretrained weights, > 0 (an L1 coefficient is s/b): one, or one per rule
            key (`depth_graded`).
        head_scale: Standard deviation of new layers about 0, > 0; needed with `new`.
        new: Rule key of the new layers, or a list of them.
        covered: "weights" (default) or "all", as in `l2_sp`.
        resized: Rule key, or a list, of parameters with another shape than in the reference; see `centered_prior`.
        resized_scale: Laplace scale about 0, > 0, of the elements that the reference does not have; needed with
            `resized`.
        rename: From names in the reference to names in the model.
        extra: "raise" (default) or "ignore": reference tensors that the model has no place for.
        storage: Where the reference is kept: "copy" (default), "memory_map" or "bfloat16".

    Returns:
        The prior.

    Raises:
        InvalidArgumentError: If an argument is out of range, or `new` comes without `head_scale`.
        PatternError: If a rule matches nothing.
        CoverageError: If `body_scale` is rules that leave a parameter uncovered.
        PriorFileError: If a file cannot be read.
        ReferenceMismatchError: If the reference does not fit; every mismatch is listed.

    Example:
        >>> import bayesreg as br
        >>> prior = br.transfer.l1_sp(nn.Linear(4, 2), nn.Linear(4, 2), body_scale=0.01)
        >>> prior["weight"].describe()
        'Laplace, scale 0.01 (std 0.01414), centred on Linear'

    References:
        Li, Grandvalet and Davoine (2018), Explicit Inductive Bias for Transfer Learning with Convolutional Networks,
        section 3.
    """
    return centered_prior(
        model,
        reference,
        _by_rule(body_scale, Laplace),
        new=new,
        head=_head(new, head_scale),
        covered=covered,
        resized=_beyond(resized, resized_scale, Laplace, "resized_scale"),
        rename=rename,
        extra=extra,
        storage=storage,
    )


@answering
def group_lasso_sp(
    model: nn.Module,
    reference: ReferenceLike,
    *,
    rate: float,
    head_scale: float | None = None,
    new: Selection | None = None,
    group: Literal["row", "tensor"] = "row",
    rename: Rename | None = None,
    extra: Literal["raise", "ignore"] = "raise",
    storage: Storage = "copy",
) -> ModelPrior:
    """Return group-lasso-SP: whole groups of pretrained weights stay where they are or move together.

    The penalty is rate·Σ_g √m_g·‖w_g − w⁰_g‖₂ + ½‖w_new‖²/head_scale² nats, with m_g the size of group g. Biases
    and normalisation parameters are free. A parameter of another shape than in the reference is a new one.

    Args:
        model: The model to be fine-tuned.
        reference: The pretrained weights; see `load_reference`.
        rate: > 0, in 1/units of the weights, before the √m_g; as a coefficient of a training loss s·NLL it is s·rate.
        head_scale: Standard deviation of new layers about 0, > 0; needed with `new`.
        new: Rule key of the new layers, or a list of them.
        group: What makes a group: "row" (default), an output unit or channel, or "tensor", a whole layer.
        rename: From names in the reference to names in the model.
        extra: "raise" (default) or "ignore": reference tensors that the model has no place for.
        storage: Where the reference is kept: "copy" (default), "memory_map" or "bfloat16".

    Returns:
        The prior.

    Raises:
        InvalidArgumentError: If an argument is out of range, or `new` comes without `head_scale`.
        PatternError: If a rule matches nothing.
        PriorFileError: If a file cannot be read.
        ReferenceMismatchError: If the reference does not fit; every mismatch is listed.

    Example:
        >>> import bayesreg as br
        >>> prior = br.transfer.group_lasso_sp(nn.Linear(4, 2), nn.Linear(4, 2), rate=3.0)
        >>> prior["weight"]  # groups of 4: a rate of 3·√4
        GroupLaplace(rate=6, loc=<tensor (2, 4)>, group='row')

    References:
        Li, Grandvalet and Davoine (2018), Explicit Inductive Bias for Transfer Learning with Convolutional Networks,
        section 3.
    """
    _one_of("group", group, ("row", "tensor"))
    plain = GroupLaplace(rate, group)
    free, fresh = biases | norms, None if new is None else any_of(new, "new")
    shapes = {
        info.name: tuple(info.parameter.shape)
        for info in parameters_of(model)
        if not free(info) and not (fresh is not None and fresh(info))
    }
    sizes = {name: plain.group_size(shape) for name, shape in shapes.items()}
    body: dict[SelectorLike, Belief] = {}
    for size in dict.fromkeys(sizes.values()):
        members = frozenset(name for name, other in sizes.items() if other == size)
        body[where(lambda info, members=members: info.name in members, f"groups of {size}")] = GroupLaplace(  # type: ignore[misc]
            rate * math.sqrt(size), group
        )
    if not body:
        raise InvalidArgumentError(f"model: {type(model).__name__} has no pretrained weights outside new={new!r}.")
    return centered_prior(
        model,
        reference,
        body,
        new=new,
        head=_head(new, head_scale),
        covered="weights",
        rename=rename,
        extra=extra,
        storage=storage,
    )


def _by_rule(scale: Scales, family: type[Gaussian] | type[Laplace]) -> Prior | Mapping[SelectorLike, Belief]:
    if not isinstance(scale, Mapping):
        return family(checks.positive_or_infinite("body_scale", scale))
    if not scale:
        raise InvalidArgumentError("body_scale: expected a scale for each rule key, got an empty mapping.")
    return {key: family(checks.positive_or_infinite(f"body_scale[{key!r}]", value)) for key, value in scale.items()}


def _beyond(
    resized: Selection | None,
    scale: float | None,
    family: type[Gaussian] | type[Laplace] = Gaussian,
    argument: str = "head_scale",
) -> dict[SelectorLike, LocatedPrior] | None:
    if resized is None:
        if scale is not None and argument != "head_scale":
            raise InvalidArgumentError(f"{argument}: plays no part without resized=; leave it out.")
        return None
    keys: Sequence[Any] = resized if isinstance(resized, list | tuple) else [resized]
    for key in keys:
        as_selector(key, "resized")
    return {key: family(_needed(scale, "resized", argument)) for key in keys}


def _head(new: Selection | None, scale: float | None, resized: Selection | None = None) -> Gaussian | None:
    if new is None and resized is None and scale is not None:
        raise InvalidArgumentError("head_scale: expected new= with it, which says what is not pretrained.")
    return None if new is None else Gaussian(_needed(scale, "new"))


def _needed(scale: float | None, why: str, argument: str = "head_scale") -> float | Tensor:
    if scale is None:
        raise InvalidArgumentError(
            f"{why}: expected {argument}= with it, the width of what the reference does not have."
        )
    return checks.positive_or_infinite(argument, scale)
