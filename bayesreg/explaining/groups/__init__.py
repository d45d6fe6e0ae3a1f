"""What is known of param groups, from an optimizer or a checkpoint, and what it says of a prior."""

__all__: list[str] = []
