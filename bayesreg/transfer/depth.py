"""Strengths that change with depth: early layers, whose features are general, held tighter than late ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError, kind_of, nearest
from bayesreg.selection import Selection, Selector, SelectorLike, any_of, as_selector, parameters_of, where

__all__ = ["Spacing", "depth_graded"]

Spacing = Literal["geometric", "precision"]


@answering
def depth_graded(
    model: nn.Module,
    *,
    first: float,
    last: float,
    spacing: Spacing = "geometric",
    layers: Sequence[SelectorLike] | None = None,
    new: Selection | None = None,
) -> dict[Selector, float]:
    """Return one prior scale per layer, from `first` at the input to `last` at the output.

    With L layers, layer i = 0 … L − 1 gets first·(last/first)^(i/(L−1)) ("geometric"), or the scale whose precision
    lies on the straight line from 1/first² to 1/last² ("precision").

    Args:
        model: The model. Its layers are the modules that own a parameter of two or more dimensions, in the order in
            which the model registers them, usually that of the forward pass (name them in `layers` where it is not: an
            embedding that is registered last is the last layer); modules with vectors only (normalisation) belong to
            the layer before them.
        first: Scale of the first layer, > 0, in units of the weights.
        last: Scale of the last layer, > 0.
        spacing: "geometric" (default) or "precision". "precision" with first = last/√L is the variant that the
            code of Li et al. calls L2-SP-k: the precision of layer i is L − i times that of the last.
        layers: Rule keys in order of depth, in place of the modules: `["stem.*", "layer1.*", "layer2.*"]`. What they
            leave out needs a scale of its own: `{**scales, "*": 0.1}`.
        new: Rule key, or a list of them, of layers that are not graded, the new ones.

    Returns:
        Scales by selector, in order, for `scale=` of the functions in `br.transfer` or to make rules of.

    Raises:
        InvalidArgumentError: If a scale is not > 0, `spacing` is unknown, there are no layers, or one for two scales.

    Example:
        >>> import bayesreg as br
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2), nn.Linear(2, 2))
        >>> br.transfer.depth_graded(model, first=0.01, last=0.16)
        {layer 0: 0.01, layer 2: 0.04, layer 3: 0.16}

    References:
        Li, Grandvalet and Davoine (2018), Explicit Inductive Bias for Transfer Learning with Convolutional Networks.
    """
    ends = [checks.positive_float(name, value) for name, value in (("first", first), ("last", last))]
    if spacing not in get_args(Spacing):
        known = get_args(Spacing)
        raise InvalidArgumentError(
            f"spacing: expected one of {', '.join(known)}, got {spacing!r}{nearest(str(spacing), known)}."
        )
    if isinstance(layers, str) or not (layers is None or isinstance(layers, Sequence)):
        raise InvalidArgumentError(f"layers: expected a list of rule keys, got {kind_of(layers)}.")
    keys = [as_selector(key, "layers") for key in layers] if layers is not None else _layers(model, new)
    if not keys:
        raise InvalidArgumentError(f"model: {type(model).__name__} has no layer with a weight that could be graded.")
    if len(keys) == 1:
        if ends[0] != ends[1]:
            raise InvalidArgumentError(f"first, last: expected the same scale for one layer ({keys[0]}), got two.")
        return {keys[0]: ends[0]}
    steps = [i / (len(keys) - 1) for i in range(len(keys))]
    if spacing == "geometric":
        return {key: ends[0] * (ends[1] / ends[0]) ** t for key, t in zip(keys, steps, strict=True)}
    low, high = ends[0] ** -2, ends[1] ** -2
    return {key: ((1 - t) * low + t * high) ** -0.5 for key, t in zip(keys, steps, strict=True)}


def _layers(model: nn.Module, new: Selection | None) -> list[Selector]:
    graded = [info for info in parameters_of(model) if new is None or not any_of(new, "new")(info)]
    heavy = {id(info.module) for info in graded if info.parameter.ndim >= 2}
    groups: list[tuple[str, list[str]]] = []
    place: dict[int, list[str]] = {}
    before: list[str] = []
    for info in graded:
        if id(info.module) not in place:
            if id(info.module) in heavy:
                groups.append((info.name.rpartition(".")[0] or "(root)", before))
                before = []
            place[id(info.module)] = groups[-1][1] if groups else before
        place[id(info.module)].append(info.name)
    return [_selector(name, members) for name, members in groups]


def _selector(name: str, members: list[str]) -> Selector:
    chosen = frozenset(members)
    return where(lambda info: info.name in chosen, f"layer {name}")
