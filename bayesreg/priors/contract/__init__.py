"""What every prior says of itself, and the base classes that say it."""

__all__: list[str] = []
