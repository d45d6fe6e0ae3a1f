"""Which parameter of which group takes which route, decided before the first step."""

__all__: list[str] = []
