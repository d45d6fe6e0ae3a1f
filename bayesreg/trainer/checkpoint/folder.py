"""The folder of a run: its checkpoints, the newest good one, and the lock that keeps a second run out."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bayesreg._support.sealed import read_sealed, write_sealed
from bayesreg._version import __version__
from bayesreg.errors import CheckpointError, CheckpointWarning, PriorFileError
from bayesreg.trainer.checkpoint.tree import pack, unpack

__all__ = ["RunFolder"]

_NAME = re.compile(r"step-(\d{12})\.safetensors")
_FORMAT = 1
_LOCK = "lock"
# The lock files that this process holds.
_AT_WORK: set[tuple[int, int]] = set()


class RunFolder:
    """Checkpoints of one run, each a file that is whole or not there.

    Args:
        path: The folder; made where it is not there.
        main: Whether this process writes; others read.
        keep: How many checkpoints stay.

    Raises:
        CheckpointError: If another run is at work in it.
        OSError: If it cannot be made or written to.
    """

    def __init__(self, path: str | os.PathLike[str], *, main: bool = True, keep: int = 2) -> None:
        self.path, self._main, self._keep = Path(path), main, keep
        if self.path.exists() and not self.path.is_dir():
            raise CheckpointError(f"checkpoint: expected a folder, got the file {self.path}.")
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock: tuple[int, tuple[int, int]] | None = None
        if main:
            self._hold()

    def _hold(self) -> None:
        busy = CheckpointError(
            f"checkpoint: another run is at work in {self.path}; wait for it, or name another folder."
        )
        lock = self.path / _LOCK
        # Closing a file gives up a lock on it that the same process holds: so it is looked at before it is opened.
        if lock.exists() and _place(lock.stat()) in _AT_WORK:
            raise busy
        held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        if not _locked(held):
            os.close(held)
            raise busy
        self._lock = (held, _place(os.fstat(held)))
        _AT_WORK.add(self._lock[1])

    def close(self) -> None:
        """Let other runs in."""
        if self._lock is not None:
            held, place = self._lock
            os.close(held)
            _AT_WORK.discard(place)
            self._lock = None

    def found(self) -> list[Path]:
        """Return the checkpoints that are there, the newest first."""
        return sorted((file for file in self.path.iterdir() if _NAME.fullmatch(file.name)), reverse=True)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, and remove what is older than the newest few.

        Args:
            step: How far the run is.
            state: All of it, as `pack` takes it.

        Raises:
            CheckpointError: If something is in it that cannot be kept.
            OSError: If it cannot be written; those before it are as they were.
        """
        if not self._main:
            return
        packed, tensors = pack(dict(state))
        record = {"what": "checkpoint", "format": _FORMAT, "bayesreg": __version__, "step": step, "state": packed}
        write_sealed(self.path / f"step-{step:012d}.safetensors", record, tensors)
        for old in self.found()[self._keep :]:
            old.unlink(missing_ok=True)

    def newest(self) -> dict[str, Any] | None:
        """Return the state of the newest good checkpoint; None where there is none at all.

        A damaged one is set aside under another name, with a warning that names it.

        Returns:
            The state.

        Raises:
            CheckpointError: If there are some, and all are damaged or of a later version.
        """
        found, damaged = self.found(), []
        for file in found:
            try:
                state = _read(file)
            except PriorFileError as error:
                damaged.append((file, error))
                continue
            for bad, why in damaged if self._main else []:
                aside = bad.with_name(f"{bad.name}.damaged")
                bad.replace(aside)
                warnings.warn(
                    f"checkpoint: {why} The run goes on from the one before it, {file.name}; the damaged one is now "
                    f"{aside.name}.",
                    CheckpointWarning,
                    stacklevel=2,
                )
            return state
        if damaged:
            said = " ".join(str(why) for _, why in damaged)
            raise CheckpointError(
                f"checkpoint: no checkpoint in {self.path} can be read. {said} Remove the folder to begin anew."
            )
        return None


def _place(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _locked(held: int) -> bool:
    """Lock a file for this process alone, whatever workers it leaves behind; return whether it was free."""
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        return True
    try:
        fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        # A file system without locks.
        return True
    return True


def _read(file: Path) -> dict[str, Any]:
    sealed = read_sealed(file, "checkpoint")
    record = sealed.record
    if not sealed.checked or record.get("what") != "checkpoint" or not isinstance(record.get("format"), int):
        raise PriorFileError(f"{file}: not a checkpoint of a training run.")
    if record["format"] > _FORMAT:
        raise CheckpointError(
            f"{file}: written by bayesreg {record.get('bayesreg')}, which is later than this one, {__version__}."
        )
    state = unpack(record["state"], sealed.tensors)
    if file.name != f"step-{record.get('step'):012d}.safetensors":
        raise PriorFileError(f"{file}: is the checkpoint of step {record.get('step')} under another name.")
    return dict(state)
