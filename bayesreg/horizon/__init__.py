"""Learning rates over a whole run, and what its steps make of a decay."""

__all__: list[str] = []
