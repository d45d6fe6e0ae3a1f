"""What is watched while a prior acts: the optimizer's state, rounding, overshoot."""

__all__: list[str] = []
