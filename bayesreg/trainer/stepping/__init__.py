"""Training step by step: the batches, the order within a step, the way back from a NaN."""

__all__: list[str] = []
