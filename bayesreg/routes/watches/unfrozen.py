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
_SHOWN = 12


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
            names = [other.name for other, its in self._parameters if self._strays(its)]
            were, them = ("was", "it") if len(names) == 1 else ("were", "them")
            moves = f"moves {them}" if flat else f"moves {them}, or one without the prior"
            raise CoverageError(
                f"{in_short(names)} {were} frozen when the prior was attached, with a gradient now, and no optimizer "
                f"with the prior holds {them}, so no step {moves}; add {them}: for group in "
                f"prior.param_groups(only={_selecting(names)}): optimizer.add_param_group(group). A "
                f"scheduler knows the groups that were there when it was made: simplest is to make "
                f"prior.param_groups() before layers are frozen."
            )

    def _strays(self, parameter: Tensor) -> bool:
        if not parameter.requires_grad or parameter.grad is None:
            return False
        return not self._held(parameter) and holder_of(parameter) is None


def _selecting(names: Sequence[str]) -> str:
    """Return what selects parameters by name, as it is written."""
    if len(names) == 1:
        return repr(names[0])
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return f"[{shown}{', ...' if len(names) > _SHOWN else ''}]"
