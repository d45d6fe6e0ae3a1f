"""Roots, minima and special functions, element by element."""

__all__: list[str] = []
