"""A log for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from bayesreg._support.calls import answering
from bayesreg._support.optional import require
from bayesreg.callbacks.base import Training
from bayesreg.callbacks.log import Log

__all__ = ["TensorBoard"]


class TensorBoard(Log):
    """Write each log as scalars of TensorBoard; see `Log` for the names.

    A resumed run goes on in the folder: what was written after its checkpoint is not shown any more.

    Args:
        folder: The folder of the run.
        every: Steps between two logs; None: only records. Default 50.

    Raises:
        ImportError: If TensorBoard is not installed (`pip install 'bayesreg[tensorboard]'`).

    Example:
        >>> import bayesreg as br
        >>> log = br.callbacks.TensorBoard("runs/a", every=100)  # doctest: +SKIP
    """

    @answering
    def __init__(self, folder: str | os.PathLike[str], *, every: int | None = 50) -> None:
        require("tensorboard", "tensorboard", "TensorBoard")
        super().__init__(self._write, every=every)
        self.folder = folder
        self._writer: Any = None

    def on_start(self, training: Training) -> None:
        """Open the folder."""
        if training.main:
            from torch.utils.tensorboard import SummaryWriter

            purge = training.step + 1 if training.resumed else None
            self._writer = SummaryWriter(os.fspath(self.folder), purge_step=purge)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def on_end(self, training: Training) -> None:
        """Close the folder."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
