"""The curvature of a fitted model: Jacobians, Gauss-Newton matrices, and what each example has to do with its fit."""

from __future__ import annotations

__all__: list[str] = []
