"""Optional dependencies: a clear sentence where one is missing."""

from __future__ import annotations

import importlib.util

__all__ = ["require"]


def require(package: str, extra: str, purpose: str) -> None:
    """Raise unless an optional package is installed.

    Args:
        package: Its import name.
        extra: The extra of bayesreg that brings it.
        purpose: What needs it.

    Raises:
        ImportError: If it is missing.
    """
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f"{purpose} need {package}: pip install 'bayesreg[{extra}]' (in a clone, "
            f"pip install -c constraints.txt '.[{extra}]')."
        )
