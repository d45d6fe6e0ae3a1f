"""Gaussians of full, matrix and low-rank covariance."""

__all__: list[str] = []
