"""Penalties that are flat far out: MCP, SCAD, L0."""

__all__: list[str] = []
