"""Which examples are fitted and which are held out."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Part", "parts_of"]

#: Indices of the examples to fit and of those to predict.
Part = tuple[Tensor, Tensor]

_FOLDS = 5


def parts_of(targets: Tensor, method: str, seed: int) -> list[Part]:
    """Return the division of examples that a method needs; classes are in all parts alike.

    Args:
        targets: Integers are class labels; other targets are divided at random.
        method: "loo": all are fitted and all predicted; "split": a fifth is held out; "folds": each fifth in turn.
        seed: Of the division.

    Returns:
        One part, or five (fewer of fewer examples).
    """
    n = len(targets)
    if method in ("loo", "centre"):
        return [(torch.arange(n), torch.arange(n))]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=generator)
    if not targets.is_floating_point() and targets.ndim == 1:
        # Of equal labels in random order, each next one goes to the next fold.
        order = order[torch.argsort(targets.cpu()[order], stable=True)]
    fold = torch.empty(n, dtype=torch.long)
    # Of fewer examples than folds each is one.
    count = min(_FOLDS, n)
    fold[order] = torch.arange(n) % count
    folds = range(count if method == "folds" else 1)
    return [(torch.nonzero(fold != k).flatten(), torch.nonzero(fold == k).flatten()) for k in folds]
