"""From a model that is linear in its weights to a least-squares problem."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayesreg.curvature.jacobian import Block, Jacobian, model_jacobian
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.entry import Entry

__all__ = ["Design", "design_of"]


@dataclass(frozen=True)
class Design:
    """z = X·δ + F·β + noise, with δ of unit prior variance and β flat, for each column of z.

    Attributes:
        features: X, (rows, weights).
        flat: F, (rows, flat parameters); of no columns without them.
        targets: z, (rows, columns).
        block: Rows per example.
        write: Writes δ and β, a column per column of z, into the model.
        owners: How many columns of X belong to each parameter, by name, in order.
    """

    features: Tensor
    flat: Tensor
    targets: Tensor
    block: int
    write: Callable[[Tensor, Tensor], None]
    owners: dict[str, int]


def design_of(
    model: nn.Module, prior: ModelPrior, inputs: Tensor, targets: Tensor, *, by_weight: bool = False
) -> Design:
    """Return the least-squares problem that a model and its Gaussian priors are.

    Args:
        model: Linear in its trained weights.
        prior: Gaussian or flat on each.
        inputs: All inputs.
        targets: All targets.
        by_weight: Whether every weight needs a column of its own; the outputs of one layer share theirs otherwise.

    Returns:
        The problem, in float64.
    """
    entries = [entry for entry, _ in prior.active()]
    jacobian = model_jacobian(model, [entry.info for entry in entries], inputs)
    pairs = list(zip(entries, jacobian.blocks, strict=True))
    wanted = targets.to(torch.float64).reshape(jacobian.rows) - jacobian.output.to(torch.float64).reshape(jacobian.rows)
    shared = None if by_weight else _one_layer(pairs, wanted)
    return shared or _any(pairs, wanted, jacobian)


def _spread(entry: Entry) -> tuple[float | Tensor, Tensor]:
    """Return the standard deviation of a parameter's prior (∞ where it is flat), and its centre."""
    assert entry.prior is not None
    parabola = entry.prior.quadratic()
    assert parabola is not None
    centre = entry.prior.centre().to(entry.parameter.device, torch.float64).expand(entry.parameter.shape)
    if isinstance(parabola.variance, Tensor):
        return parabola.variance.to(torch.float64).sqrt(), centre
    return math.sqrt(parabola.variance), centre


def _any(pairs: list[tuple[Entry, Block]], wanted: Tensor, jacobian: Jacobian) -> Design:
    n, k = jacobian.rows
    rows = wanted.reshape(-1, 1).clone()
    columns: list[Tensor] = []
    free: list[Tensor] = []
    places: list[tuple[Entry, Tensor | None, Tensor]] = []
    for entry, block in pairs:
        std, centre = _spread(entry)
        matrix = block.matrix()
        if not isinstance(std, Tensor) and std == math.inf:
            free.append(matrix)
            places.append((entry, None, entry.parameter.detach().to(torch.float64)))
            continue
        rows -= matrix @ (centre - entry.parameter.detach()).reshape(-1, 1).to(torch.float64)
        width = std.reshape(-1) if isinstance(std, Tensor) else torch.full((matrix.shape[1],), std).to(matrix)
        columns.append(matrix * width)
        places.append((entry, width, centre))

    @torch.no_grad()
    def write(moved: Tensor, added: Tensor) -> None:
        at, at_free = 0, 0
        for entry, width, centre in places:
            size = entry.parameter.numel()
            if width is None:
                change = added[at_free : at_free + size, 0]
                at_free += size
            else:
                change = width * moved[at : at + size, 0]
                at += size
            entry.parameter.copy_((centre.reshape(-1) + change).reshape(entry.parameter.shape))

    empty = torch.zeros(n * k, 0, dtype=torch.float64, device=rows.device)
    owners = {entry.name: entry.parameter.numel() for entry, width, _ in places if width is not None}
    return Design(torch.cat([empty, *columns], 1), torch.cat([empty, *free], 1), rows, k, write, owners)


def _one_layer(pairs: list[tuple[Entry, Block]], wanted: Tensor) -> Design | None:
    """Return the problem of a single linear layer of several outputs: one matrix for all of them."""
    by_name = {entry.info.attribute: (entry, block) for entry, block in pairs}
    if wanted.shape[1] == 1 or "weight" not in by_name or len(by_name) != len(pairs) or len(pairs) > 2:
        return None
    entry, block = by_name["weight"]
    bias = by_name.get("bias")
    if block.inputs is None or block.slopes is None or block.slopes.shape[2] != wanted.shape[1]:
        return None
    if len(pairs) == 2 and (bias is None or bias[0].info.module is not entry.info.module):
        return None
    eye = torch.eye(wanted.shape[1], dtype=block.slopes.dtype, device=block.slopes.device)
    std, centre = _spread(entry)
    flat_bias = bias is None or _spread(bias[0])[0] == math.inf
    if isinstance(std, Tensor) or std == math.inf or not flat_bias or not bool((block.slopes == eye).all()):
        return None
    inputs = block.inputs.to(torch.float64)
    targets = wanted - inputs @ (centre - entry.parameter.detach()).to(torch.float64).T
    ones = torch.ones(len(inputs), 0 if bias is None else 1, dtype=torch.float64, device=inputs.device)
    weight = entry.parameter
    before = None if bias is None else bias[0].parameter.detach().clone()

    @torch.no_grad()
    def write(moved: Tensor, added: Tensor) -> None:
        weight.copy_(centre + std * moved.T)
        if bias is not None and before is not None:
            bias[0].parameter.copy_(before + added[0])

    return Design(std * inputs, ones, targets, 1, write, {entry.name: inputs.shape[1]})
