"""Writing files and folders whole or not at all, and clearing away what a killed process left of one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bayesreg._text import one_line

__all__ = ["atomic", "atomic_folder", "check_writable", "write_json"]

# Hidden folders in which a file or folder is made before it is renamed; the name says whose they are.
_OURS = re.compile(r"\.(?P<name>.+)\.bayesreg-tmp-[a-z0-9_]{8}", re.DOTALL)
# How often a place is tried that others take away; where none can ever be made, as in /proc, the last one tells.
_TRIES = 100
# What safetensors makes there before it is renamed.
_THEIRS = re.compile(r"\.tmp[A-Za-z0-9]{6}")


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to, of the same name, which is renamed onto `path` on success and removed on failure.

    What processes that were killed left in the folder of `path` is cleared away first.

    Args:
        path: The file.

    Yields:
        Where to write it, in a hidden folder beside it.

    Raises:
        OSError: If it cannot be written: one sentence that names `path`; what was there is as before.
    """
    # Through a link to what it stands for, as open() does.
    target = Path(os.path.realpath(path))
    with _plainly(target), _workplace(target) as place:
        if target.exists() and not target.is_file():
            raise OSError(errno.EINVAL, "no file, and not replaced by one")
        temporary = place / target.name
        # Made here, so that it has the mode of any other file (or of the one before it): libraries make theirs private.
        temporary.touch()
        mode = (target if target.exists() else temporary).stat().st_mode
        yield temporary
        temporary.chmod(mode)
        _on_disk(temporary)
        temporary.replace(target)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill, which is renamed to `path` on success and removed on failure; as `atomic`.

    Args:
        path: The folder, which must not exist, or be empty.
        replace: Whether one that is there is replaced; it stays until the new one is whole.

    Yields:
        The hidden folder beside it. Its files get one mode, that of any other file.

    Raises:
        OSError: If it cannot be written.
    """
    target = Path(path)
    with _plainly(target), _workplace(target) as place:
        temporary = place / target.name
        temporary.mkdir()
        probe = place / f"{target.name[:100]}.mode"
        probe.touch()
        yield temporary
        for file in filter(Path.is_file, temporary.rglob("*")):
            shutil.copymode(probe, file)
            _on_disk(file)
        if not (replace and target.exists()):
            temporary.rename(target)
            return
        # Beside it, and not in our own place, which the next save clears away: a kill now loses neither.
        old = target.with_name(f".{target.name}.replaced")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        try:
            temporary.rename(target)
        except BaseException:
            old.rename(target)
            raise
        shutil.rmtree(old)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise now if `atomic(path)` or `atomic_folder(path)` could not make its place: asked before long work.

    Args:
        path: What will be written.

    Raises:
        OSError: If the folder above it cannot be made or written to.
    """
    target = Path(os.path.realpath(path))
    with _plainly(target), _workplace(target):
        pass


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write JSON, whole or not at all; NaN and infinity are refused by the format."""
    text = json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside the target that is ours while this lasts."""
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    done = False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear(target.parent)
        hidden, lock = _locked(target)
        try:
            yield hidden
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
            if lock is not None:
                os.close(lock)
        done = target.exists()
    finally:
        if not done:
            # Nothing stays of a failure, not the folders above either.
            with contextlib.suppress(OSError):
                for folder in made:
                    folder.rmdir()


def _locked(target: Path) -> tuple[Path, int | None]:
    """Make the hidden folder and lock it, so that others see that somebody is at work in it."""
    short = os.fsencode(target.name)[:180].decode("utf-8", "ignore")
    # Another writer may take back folders that it made and failed in, or clear this one away before it is locked.
    for _ in range(_TRIES):
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            hidden = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{short}.bayesreg-tmp-"))
            lock = _lock(hidden)
            if hidden.is_dir():
                return hidden, lock
            if lock is not None:
                os.close(lock)
    raise FileNotFoundError(errno.ENOENT, "no folder can be made there")


def _lock(folder: Path) -> int | None:
    """Lock a folder and return what holds the lock; None where it is gone, or nothing can be locked here."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return held


def _clear(folder: Path) -> None:
    """Remove hidden folders of ours that no living process holds; the lock of a killed one is gone."""
    with contextlib.suppress(OSError):
        for left in folder.iterdir():
            found = _OURS.fullmatch(left.name)
            if found is None or left.is_symlink() or not left.is_dir():
                continue
            # What has anything else in it is somebody's own.
            begins = found["name"][:100]
            if not all(inside.name.startswith(begins) or _THEIRS.fullmatch(inside.name) for inside in left.iterdir()):
                continue
            with contextlib.suppress(BlockingIOError):
                held = _lock(left)
                if held is not None:
                    shutil.rmtree(left, ignore_errors=True)
                    os.close(held)


def _on_disk(file: Path) -> None:
    """Wait until the file's content is on the disk, so that no power cut leaves the name without it."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


@contextlib.contextmanager
def _plainly(target: Path) -> Iterator[None]:
    """Say in one sentence why something could not be written, whichever library tried."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise _not_written(target, error) from error


def _not_written(target: Path, error: OSError | Exception) -> OSError:
    number = error.errno if isinstance(error, OSError) else _number_in(str(error))
    if number is None:
        return OSError(f"{target}: cannot be written ({one_line(str(error))}); nothing was changed.")
    return OSError(number, f"{target}: cannot be written: {os.strerror(number)}; nothing was changed.")


def _number_in(text: str) -> int | None:
    """Return the number of the operating system's error that safetensors quotes."""
    found = re.search(r"code: (\d+)|os error (\d+)", text)
    return None if found is None else int(found[1] or found[2])
