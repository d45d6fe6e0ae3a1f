"""The three rooms of the fuzzer, and how one is gone through."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeAlias
from unittest import mock

from tests.fuzz import calls, commands, files
from tests.fuzz.verdict import Counts, Verdict

#: Yields (route, case, verdict) without end, in a folder that is the current one; the first when all is prepared.
Cases: TypeAlias = Callable[[Path, random.Random], Iterator[tuple[str, str, Verdict]]]
#: Puts something in for as long as it lasts: a fault that must be found.
Plant: TypeAlias = Callable[[], AbstractContextManager[object]]

ROOMS: dict[str, Cases] = {"files": files.cases, "commands": commands.cases, "calls": calls.cases}


def go_through(
    room: str, counts: Counts, folder: Path, seed: str, going: Callable[[], bool], plant: Plant = nullcontext
) -> None:
    """Count the cases of a room for as long as `going` says; a fault is planted when all is prepared."""
    # Wide, so that messages are not wrapped.
    with contextlib.chdir(folder), mock.patch.dict(os.environ, COLUMNS="200"):
        found = ROOMS[room](folder, random.Random(f"{room} {seed}"))
        next(found)
        with plant():
            for route, case, verdict in found:
                counts.add(route, case, verdict)
                if not going():
                    return
