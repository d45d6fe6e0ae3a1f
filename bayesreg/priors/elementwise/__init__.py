"""Families whose elements are independent, of light tails."""

__all__: list[str] = []
