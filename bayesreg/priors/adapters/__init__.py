"""The Gaussian on the update that adapters add, of all its factors together."""

__all__: list[str] = []
