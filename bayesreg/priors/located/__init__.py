"""Priors about a centre: a number, a tensor, the weights of a reference."""

__all__: list[str] = []
