"""The table behind `ModelPrior.describe`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from bayesreg._support.tables import Table, in_short
from bayesreg.conversion import LossScale
from bayesreg.model_prior.entry import Entry
from bayesreg.model_prior.remarks import remarks_on
from bayesreg.optimizers import OptimizerLike
from bayesreg.priors.equivalents import equivalent

__all__ = ["describe_entries"]


def describe_entries(
    entries: Sequence[Entry],
    said: Sequence[str],
    loss_scale: LossScale | None,
    optimizer: OptimizerLike | None,
    per_parameter: bool,
) -> Table:
    """Build the table; `said` are the first of the notes under it."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        words = "none" if entry.prior is None else entry.prior.describe()
        state = "" if entry.parameter.requires_grad else "frozen"
        key = (entry.name, "") if per_parameter else (entry.rule, words + state)
        groups.setdefault(key, []).append(entry)
    columns: tuple[str, ...] = ("parameters", "elements", "prior", "std", "rule")
    if loss_scale is not None:
        columns = (*columns, "equivalent weight_decay")
    rows = []
    for alike in groups.values():
        first, prior = alike[0], alike[0].prior
        frozen = not first.parameter.requires_grad
        elements = sum(e.parameter.numel() for e in alike)
        spread = _std(alike)
        # One number for several parameters only where their variances agree.
        shape = None if isinstance(spread, str) else first.parameter.shape
        words = ("frozen, not counted" + (f" ({prior.describe()})" if prior else "")) if frozen else ""
        row: tuple[object, ...] = (
            in_short([e.name for e in alike]),
            elements,
            words or (prior.describe() if prior else "none"),
            spread,
            first.rule,
        )
        if loss_scale is not None:
            row = (*row, "" if frozen or prior is None else equivalent(prior, loss_scale, optimizer, shape))
        rows.append(row)
    still = sum(e.parameter.numel() for e in entries if not e.parameter.requires_grad)
    title = f"Prior over {sum(e.parameter.numel() for e in entries):,} elements in {len(entries)} tensors"
    title += f", {still:,} of them frozen" if still else ""
    return Table(
        title, columns, rows, (*([] if loss_scale is None else [loss_scale.words]), *said, *remarks_on(entries))
    )


def _std(entries: Sequence[Entry]) -> float | str | None:
    """Return the standard deviation under the priors of all these parameters, or its range."""
    bounds: list[float] = []
    for entry in entries:
        found = entry.prior.variance(entry.parameter.shape) if entry.prior is not None else None
        if found is not None:
            wide = torch.as_tensor(found, dtype=torch.float64)
            bounds += [math.sqrt(float(wide.min())), math.sqrt(float(wide.max()))]
    if not bounds:
        return None
    low, high = min(bounds), max(bounds)
    return high if math.isclose(low, high, rel_tol=1e-6) else f"{low:.3g} to {high:.3g}"
