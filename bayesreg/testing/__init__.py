"""For tests of your own: the contract of a family (needs pytest and SciPy), and what an optimizer's decay is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bayesreg.optimizers.conformance import DecayReport, decay_of

if TYPE_CHECKING:
    from bayesreg.testing.contract import PriorContract

__all__ = ["DecayReport", "PriorContract", "decay_of"]


def __getattr__(name: str) -> Any:
    # What asks for pytest comes when it is asked for.
    if name != "PriorContract":
        raise AttributeError(f"module 'bayesreg.testing' has no attribute {name!r}")
    from bayesreg.testing.contract import PriorContract

    return PriorContract
