"""What an optimizer's settings say about the weights, as numbers and in words; `br.explain` is the way in."""

__all__: list[str] = []
