"""Solvers on all data at once: a problem, and what finds its minimum."""

__all__: list[str] = []
