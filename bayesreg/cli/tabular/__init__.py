"""From a table to a trained model, and what is said of both."""

__all__: list[str] = []
