"""Families that leave large weights alone."""

__all__: list[str] = []
