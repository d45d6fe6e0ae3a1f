"""Parameters under the prior that were frozen when it was attached, and are trained now by no optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from bayesreg._support.tables import in_short
from bayesreg.errors import CoverageError
from bayesreg.model_prior.entry import Entry
from bayesreg.optimizers.others import holder_of, seen_holding
from bayesreg.priors.contract.asking import is_flat

__all__ = ["UnfrozenWatch"]

# A parameter that has no pull may be another optimizer's, of which nothing is known before it steps.
_PATIENCE = 3


class UnfrozenWatch:
    """Watches what no optimizer of a handle holds.

    Args:
        entries: The parameters of the prior that were held by none.
        held: Whether one is held by now.
    """

    def __init__(self, entries: Sequence[Entry], held: Callable[[Tensor], bool]) -> None:
        self._held = held
        self._parameters: list[tuple[Entry, Tensor]] = [(entry, entry.parameter) for entry in entries]
        self._times: dict[str, int] = {}

    def check(self) -> None:
        """Raise if one of them has a gradient, and no optimizer that has its prior steps it.

        Raises:
            CoverageError: If so.
        """
        for entry, parameter in self._parameters:
            if not self._strays(parameter):
                continue
            flat = entry.prior is None or is_flat(entry.prior)
            if flat:
                self._times[entry.name] = self._times.get(entry.name, 0) + 1
                if seen_holding(parameter) or self._times[entry.name] < _PATIENCE:
                    continue
            others = [other.name for other, its in self._parameters if its is not parameter and self._strays(its)]
            raise CoverageError(
                f"{entry.name} was frozen when the prior was attached and is trained now, but no optimizer with the "
                f"prior holds it, so it {'does not move' if flat else 'does not move, or moves without its prior'}; "
                f"add it: for group in prior.param_groups(only={entry.name!r}): optimizer.add_param_group(group)"
                f"{f'; the same holds of {in_short(others)}' if others else ''}."
            )

    def _strays(self, parameter: Tensor) -> bool:
        if not parameter.requires_grad or parameter.grad is None:
            return False
        return not self._held(parameter) and holder_of(parameter) is None
