"""A log as a file of lines, each a JSON object."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg._support.files import atomic
from bayesreg.callbacks.base import Training
from bayesreg.callbacks.log import Log
from bayesreg.errors import InvalidArgumentError

__all__ = ["JSONLines"]


class JSONLines(Log):
    """Write a line of JSON for each log: {"step": 50, "train/nll": 0.31, ...}; see `Log` for the names.

    A resumed run goes on in the file: what was written after its checkpoint is taken out first.

    Args:
        path: The file.
        every: Steps between two logs; None: only records. Default 50.
        overwrite: Whether a file that is there may go when a run begins. Default False.

    Example:
        >>> import bayesreg as br
        >>> log = br.callbacks.JSONLines("runs/a/log.jsonl", every=100)
    """

    @answering
    def __init__(self, path: str | os.PathLike[str], *, every: int | None = 50, overwrite: bool = False) -> None:
        super().__init__(self._write, every=every)
        self.path, self.overwrite = Path(path), checks.flag("overwrite", overwrite)
        self._file: IO[str] | None = None

    def on_start(self, training: Training) -> None:
        """Open the file.

        Args:
            training: The training.

        Raises:
            InvalidArgumentError: If a file is there that may not go.
            OSError: If it cannot be written.
        """
        if not training.main:
            return
        if training.resumed:
            self._keep_until(training)
        elif self.path.exists() and not self.overwrite:
            raise InvalidArgumentError(
                f"JSONLines: {self.path} exists already; name another file, or pass overwrite=True."
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a" if training.resumed else "w", encoding="utf-8")

    def _keep_until(self, training: Training) -> None:
        if not self.path.exists():
            return
        lines = [line for line in self.path.read_text(encoding="utf-8").splitlines() if _is_before(line, training)]
        with atomic(self.path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self._file is not None:
            # JSON has no NaN.
            plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
            self._file.write(f"{json.dumps({'step': step, **plain})}\n")
            self._file.flush()

    def on_end(self, training: Training) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _is_before(line: str, training: Training) -> bool:
    """Return whether a line was written before the run goes on; not so one that a killed process did not end."""
    try:
        found: dict[str, Any] = json.loads(line)
        step = int(found["step"])
    except (ValueError, KeyError, TypeError):
        return False
    # The record of this step may be still to come.
    still = step == training.step and training.recorded < step and "epoch/epoch" in found
    return step <= training.step and not still
