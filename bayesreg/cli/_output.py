"""Printing: rich tables for people, JSON for machines."""

from __future__ import annotations

import sys

from bayesreg._support.tables import Shown, for_json
from bayesreg._text import printable

__all__ = ["for_json", "say", "show"]


def show(thing: Shown) -> None:
    """Print a table or an explanation: rich in a terminal, plain elsewhere."""
    thing.show()


def say(text: str) -> None:
    """Print a line, or JSON that is safe already; names of files and columns cannot act on the terminal."""
    sys.stdout.write("\n".join(map(printable, text.split("\n"))) + "\n")
