"""Priors made of priors: mixtures, products, and a belief about functions."""

__all__: list[str] = []
