"""How many weights sit exactly where their prior has its kink."""

from __future__ import annotations

import math

import torch

from bayesreg._support.calls import answering
from bayesreg._support.tables import Table
from bayesreg.errors import InvalidArgumentError
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Prior

__all__ = ["zeros"]


@torch.no_grad()
@answering
def zeros(prior: ModelPrior) -> Table:
    """Return the share of weights that are exactly at the kink of their prior: 0, or their centre.

    Args:
        prior: The prior of a trained model.

    Returns:
        One row per parameter under a prior with a kink: elements, how many are at it, their share; of group priors also
        the groups that are there as a whole. Notes have the total.

    Raises:
        InvalidArgumentError: If `prior` is no `ModelPrior`.

    Example:
        >>> import bayesreg as br
        >>> model = torch.nn.Linear(3, 2)
        >>> _ = torch.nn.init.zeros_(model.weight[0])
        >>> print(br.sparsity.zeros(br.ModelPrior(model, br.GroupLaplace(1.0, "row"))))
        Weights at the kink of their prior
        parameter  elements  at it  share  groups gone
        ---------  --------  -----  -----  -----------
        weight     6         3      0.5    1 of 2
        3 of 6 elements, 50 %.
    """
    if not isinstance(prior, ModelPrior):
        raise InvalidArgumentError(f"prior: expected a br.ModelPrior, got {type(prior).__name__}.")
    rows: list[tuple[object, ...]] = []
    total = gone = 0
    for entry, part in prior.kinked():
        there = part.at_kink(entry.parameter.detach())
        count, size = int(there.sum()), there.numel()
        groups = None
        joined = next((p for p in part.parts if isinstance(p, Prior) and p.groups(there.shape) is not None), None)
        if joined is not None and there.numel():
            whole = int(joined.at_kink(entry.parameter.detach()).sum())
            size_of_group = math.prod(there.shape[dim] for dim in joined.groups(there.shape) or ())
            groups = f"{whole // size_of_group} of {size // size_of_group}"
        rows.append((entry.name, size, count, count / max(size, 1), groups))
        total, gone = total + size, gone + count
    columns: tuple[str, ...] = ("parameter", "elements", "at it", "share", "groups gone")
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    note = f"{gone} of {total} elements, {100 * gone / total:.3g} %." if total else "No prior here has a kink."
    return Table("Weights at the kink of their prior", columns, rows, (note,))
