"""Models that are linear in their weights, with Gaussian noise: every strength from one decomposition."""

from __future__ import annotations

__all__: list[str] = []
