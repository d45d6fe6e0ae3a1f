"""What any part may use: checks of arguments, files, tables, optional packages, sharded tensors."""

__all__: list[str] = []
