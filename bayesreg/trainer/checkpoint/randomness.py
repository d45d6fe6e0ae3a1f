"""Every source of randomness that training draws from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

__all__ = ["Randomness"]


class Randomness:
    """The states of the global generators (torch on every device, NumPy, Python) and of some own ones.

    Args:
        generators: torch generators beside the global ones; the same one twice counts once.
    """

    def __init__(self, generators: Sequence[torch.Generator | None] = ()) -> None:
        found = {id(generator): generator for generator in generators if generator is not None}
        self._own = list(found.values())

    def state(self) -> dict[str, Any]:
        """Return all states, in numbers, strings and tensors."""
        kind, keys, *rest = np.random.get_state(legacy=True)
        version, numbers, spare = random.getstate()
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
            "python": [version, torch.tensor(numbers), spare],
            "own": [generator.get_state() for generator in self._own],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put every source back into a state.

        Args:
            state: What `state` returned.
        """
        torch.set_rng_state(state["torch"])
        if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
        version, numbers, spare = state["python"]
        random.setstate((version, tuple(numbers.tolist()), spare))
        for generator, own in zip(self._own, state["own"], strict=True):
            generator.set_state(own)
