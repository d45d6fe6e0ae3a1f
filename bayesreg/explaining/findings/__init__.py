"""What is worth knowing about an optimizer's decay, most important first."""

__all__: list[str] = []
