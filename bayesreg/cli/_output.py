"""Printing: rich tables for people, JSON for machines."""

from __future__ import annotations

import sys
from pathlib import Path

from bayesreg._support.tables import Shown, for_json
from bayesreg._text import printable
from bayesreg.errors import InvalidArgumentError

__all__ = ["for_json", "require_no_option", "say", "show"]


def show(thing: Shown) -> None:
    """Print a table or an explanation: rich in a terminal, plain elsewhere."""
    thing.show()


def require_no_option(name: str, path: Path) -> None:
    """Raise where a value that was forgotten has made the next option the value."""
    if str(path).startswith("-"):
        raise InvalidArgumentError(f"{name}: expected a path, got {str(path)!r}; write ./{path} if that is its name.")


def say(text: str) -> None:
    """Print a line, or JSON that is safe already; names of files and columns cannot act on the terminal."""
    sys.stdout.write("\n".join(map(printable, text.split("\n"))) + "\n")
