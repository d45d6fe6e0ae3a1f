"""Settings of other programs, read as these act on them."""

__all__: list[str] = []
