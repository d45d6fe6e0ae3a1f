"""What an executed page depends on besides its own cells, as one word."""

from __future__ import annotations

from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

__all__ = ["state_of"]

_SHOWN = ("torch", "numpy", "scipy", "scikit-learn", "matplotlib", "pandas")


def state_of(package: Path) -> str:
    """Return a word that changes with any file of the package or of the data, and with what it computes with.

    Args:
        package: The folder of the package.

    Returns:
        Twenty digits.
    """
    seen = sha256(" ".join(version(name) for name in _SHOWN).encode())
    data = Path(__file__).parents[1] / "data"
    for file in sorted([*package.rglob("*.py"), *(path for path in data.rglob("*") if path.is_file())]):
        seen.update(f"{file.name} ".encode() + file.read_bytes())
    return seen.hexdigest()[:20]
