"""The one hand-over to pictures: `.plot()` of any object, without an import of what stands above it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]


def draw(name: str, /, *arguments: Any, **keywords: Any) -> Axes:
    """Return what the function of this name in `bayesreg.plots` draws; matplotlib is imported here, not before."""
    drawn: Axes = getattr(importlib.import_module("bayesreg.plots"), name)(*arguments, **keywords)
    return drawn
