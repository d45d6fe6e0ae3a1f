"""Families that treat a group of weights as one."""

__all__: list[str] = []
