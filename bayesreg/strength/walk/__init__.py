"""One walk over the strengths of a prior, each fit begun where the one before ended."""

from __future__ import annotations

__all__: list[str] = []
