"""When a run is kept, and what must be the same for it to go on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from bayesreg.errors import CheckpointError, CheckpointWarning, InvalidArgumentError
from bayesreg.model_prior import ModelPrior
from bayesreg.trainer.checkpoint.folder import RunFolder
from bayesreg.trainer.checkpoint.setup import Changed, digest, require_same
from bayesreg.trainer.checkpoint.tree import pack

__all__ = ["Keeper"]


class Keeper:
    """The checkpoints of one fit.

    Args:
        folder: Where they are.
        every: Optimizer steps between two; None: at the end of each epoch.
        resume: Whether to go on from one that is there.
        setup: What must be the same then, by name.
        prior: The prior; of it, what changes is kept.

    Raises:
        CheckpointError: If there is one and `resume` is False, or it is of another run, or none can be read.
    """

    def __init__(
        self, folder: RunFolder, every: int | None, *, resume: bool, setup: Mapping[str, Any], prior: ModelPrior
    ) -> None:
        self.every, self.resume, self._folder = every, resume, folder
        if not resume and (there := folder.found()):
            raise CheckpointError(
                f"checkpoint: {folder.path} holds a run already ({there[0].name}): go on with it, fit(..., "
                f"resume=True), name another folder, or remove it."
            )
        #: The state to go on from, or None.
        self.found = folder.newest()
        self._setup = {**setup, "prior (its numbers)": digest(_tensors(prior))}
        if self.found is not None:
            require_same(folder.path, self.found["setup"], self._setup)
        self._prior = Changed(prior)
        #: The step of the last checkpoint.
        self.last = -1
        self._checked = self.found is not None

    def restore_prior(self) -> None:
        """Put back what had changed in the prior."""
        if self.found is not None:
            self._prior.restore(self.found["changed"])

    def require_same(self, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Raise if what a run was begun with differs from what there is now.

        Args:
            saved: By name.
            now: By name.
        """
        require_same(self._folder.path, saved, now)

    def require_places(self, cannot: str, *, exact: bool) -> None:
        """Say now how far the order of the examples can be replayed.

        Args:
            cannot: Why an epoch cannot be begun in its middle, or nothing.
            exact: Whether it can be begun at its beginning all the same.

        Raises:
            InvalidArgumentError: If it must be, as checkpoints are made within epochs.
        """
        if cannot and self.every is not None:
            raise InvalidArgumentError(
                f"checkpoint_every: an epoch of this loader cannot be begun in its middle, as {cannot}: leave it out "
                f"for checkpoints at the ends of epochs, or give a loader that has state_dict() and load_state_dict()."
            )
        if cannot and not exact:
            warnings.warn(
                f"checkpoint: made at the ends of epochs alone, as {cannot}; a run that is resumed has the weights of "
                f"an unbroken one if an epoch's order does not depend on the epochs before it.",
                CheckpointWarning,
                stacklevel=2,
            )

    def is_due(self, step: int, state: Any) -> bool:
        """Return whether a checkpoint is made after this step.

        Args:
            step: Steps done.
            state: Called for the state after the first one, in which nothing may be that cannot be kept.
        """
        if not self._checked:
            pack(state())
            self._checked = True
        return self.every is not None and step % self.every == 0

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint.

        Args:
            step: Steps done.
            state: All that the run is.
        """
        self._folder.save(step, {"setup": self._setup, "changed": self._prior.state(), **state})
        self.last = step

    def close(self) -> None:
        """Let other runs into the folder."""
        self._folder.close()


def _tensors(prior: ModelPrior) -> list[tuple[str, Any]]:
    return [(name, tensor) for name, tensor in prior.state_dict().items() if hasattr(tensor, "dtype")]
