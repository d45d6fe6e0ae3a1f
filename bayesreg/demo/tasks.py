"""The demo's data: scikit-learn's handwritten digits, a source task and a rotated target task."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesreg._support.optional import require

__all__ = ["ROTATION", "Split", "Tasks", "draw", "load_tasks"]

#: Degrees by which the target images are turned; the rehearsal turns the other way.
ROTATION = 30.0

Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Tasks:
    """Disjoint images for every purpose.

    Attributes:
        source: Upright, train the source model (600 images).
        rehearsal: Source images turned the other way, choose the prior's strength (300 images).
        target_pool: Turned images from which the few training examples are drawn (400 images).
        target_test: Turned images for the final numbers only (497 images).
    """

    source: Split
    rehearsal: Split
    target_pool: Split
    target_test: Split


def load_tasks() -> Tasks:
    """Load the digits and make the tasks; the same every time.

    Returns:
        The tasks.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    require("sklearn", "demo", "the demo's digits")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.as_tensor(images, dtype=torch.float64) / 16.0
    y = torch.as_tensor(labels)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    turned, back = _rotated(x, ROTATION), _rotated(x, -ROTATION)
    return Tasks(
        source=(x[:600], y[:600]),
        rehearsal=(back[600:900], y[600:900]),
        target_pool=(turned[900:1300], y[900:1300]),
        target_test=(turned[1300:], y[1300:]),
    )


def _rotated(x: Tensor, degrees: float) -> Tensor:
    from scipy.ndimage import rotate

    images = x.reshape(-1, 8, 8).numpy()
    turned = rotate(images, degrees, axes=(1, 2), reshape=False, order=1)
    return torch.as_tensor(turned).reshape(len(x), 64).clamp(0.0, 1.0)


def draw(pool: Split, n: int, seed: int) -> tuple[Split, Split]:
    """Draw n examples, the same number of each digit, and return them and the rest."""
    x, y = pool
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    taken = torch.cat([order[y[order] == digit][: n // 10] for digit in range(10)])
    rest = torch.ones(len(y), dtype=torch.bool)
    rest[taken] = False
    return (x[taken], y[taken]), (x[rest], y[rest])
