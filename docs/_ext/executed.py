"""What an executed page depends on besides its own cells, as one word."""

from __future__ import annotations

import shutil
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

__all__ = ["cache_in"]

_SHOWN = ("torch", "numpy", "scipy", "scikit-learn", "matplotlib", "pandas")


def cache_in(folder: Path, package: Path) -> str:
    """Return where executed pages are kept as long as nothing changes that they depend on; older ones are removed.

    Args:
        folder: Of all such places.
        package: The folder of the package.

    Returns:
        The place.
    """
    now = folder / _state_of(package)
    for old in set(folder.glob("*")) - {now}:
        shutil.rmtree(old)
    return str(now)


def _state_of(package: Path) -> str:
    """Return a word that changes with any file of the package or the data, and with what it computes with."""
    seen = sha256(" ".join(version(name) for name in _SHOWN).encode())
    data = Path(__file__).parents[1] / "data"
    for file in sorted([*package.rglob("*.py"), *(path for path in data.rglob("*") if path.is_file())]):
        seen.update(f"{file.name} ".encode() + file.read_bytes())
    return seen.hexdigest()[:20]
