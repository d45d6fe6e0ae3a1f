"""Printing: rich tables for people, JSON for machines."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from bayesreg._tables import Table

__all__ = ["for_json", "say", "show"]


def show(table: Table) -> None:
    """Print a table: rich in a terminal, plain elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(table)
    else:
        sys.stdout.write(f"{table}\n")


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


def for_json(data: Any) -> str:
    """Return JSON; infinities, which JSON cannot hold, become the strings "inf" and "-inf"."""
    return json.dumps(_plain(data), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
