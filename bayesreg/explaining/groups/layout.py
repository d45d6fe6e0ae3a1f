"""Which parameter of a model stands where in an optimizer's groups, where their shapes leave one answer."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["laid_out"]

Shape = tuple[int, ...]

# Ways through the groups that are followed at most.
_MOST = 200_000


def laid_out(groups: Sequence[Sequence[Shape | None]], order: Sequence[Shape]) -> list[list[int]] | None:
    """Return which of a model's parameters the entries of an optimizer's groups are.

    Each group is taken to hold its parameters in the model's order, as it does where it was made by going through
    them; the groups share them out.

    Args:
        groups: The shapes in each group; None where a shape is not known.
        order: The shapes of all parameters, in the model's order.

    Returns:
        For each group the places in `order`; None where there is no such way, or more than one.

    Example:
        >>> laid_out([[(4, 3), (2, 4)], [(4,), (2,)]], [(4, 3), (4,), (2, 4), (2,)])
        [[0, 2], [1, 3]]
        >>> laid_out([[(4, 4)], [(4, 4)]], [(4, 4), (4, 4)]) is None
        True
    """
    # How many ways there are from here to the end, 2 for more than one; backwards, by how far each group has come.
    start, end = (0,) * len(groups), tuple(map(len, groups))
    layers: list[set[tuple[int, ...]]] = [{start}]
    seen = 1
    for shape in order:
        following = {
            _moved(at, group)
            for at in layers[-1]
            for group in range(len(groups))
            if at[group] < end[group] and groups[group][at[group]] in (None, shape)
        }
        seen += len(following)
        if not following or seen > _MOST:
            return None
        layers.append(following)
    ways = {end: 1}
    for shape, layer in zip(reversed(order), reversed(layers[:-1]), strict=True):
        counted: dict[tuple[int, ...], int] = {}
        for at in layer:
            found = sum(
                ways.get(_moved(at, group), 0)
                for group in range(len(groups))
                if at[group] < end[group] and groups[group][at[group]] in (None, shape)
            )
            counted[at] = min(2, found)
        ways |= counted
    if ways.get(start) != 1:
        return None
    places: list[list[int]] = [[] for _ in groups]
    at = start
    for index, shape in enumerate(order):
        for group in range(len(groups)):
            there = _moved(at, group)
            open_ = at[group] < end[group] and groups[group][at[group]] in (None, shape)
            if open_ and ways.get(there) == 1:
                places[group].append(index)
                at = there
                break
    return places


def _moved(at: tuple[int, ...], group: int) -> tuple[int, ...]:
    return (*at[:group], at[group] + 1, *at[group + 1 :])
