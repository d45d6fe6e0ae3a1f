"""`python -m tests.fuzz --cases 32000 --seed 0`: fuzz files, command lines and calls, and print the counts."""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.rooms import ROOMS, go_through
from tests.fuzz.verdict import Counts

# Shares of the time: a file is read in a millisecond, a command line may train.
SHARES = {"files": 0.25, "commands": 0.45, "calls": 0.3}
SHARES_OF_CASES = {"files": 0.62, "commands": 0.02, "calls": 0.36}


def _until(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def _so_many(cases: int) -> Callable[[], bool]:
    made = itertools.count(1)
    return lambda: next(made) < cases


def fuzz(seed: int, rooms: list[str], *, seconds: float = math.inf, cases: int | None = None) -> Counts:
    """Fuzz for so long, or so many cases; the same seed tries the same cases in the same order."""
    counts = Counts()
    of_time, of_cases = (sum(shares[room] for room in rooms) for shares in (SHARES, SHARES_OF_CASES))
    for room in rooms:
        if cases is None:
            going = _until(seconds * SHARES[room] / of_time)
        else:
            going = _so_many(round(cases * SHARES_OF_CASES[room] / of_cases))
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            go_through(room, counts, Path(folder), str(seed), going)
    return counts


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=120.0, help="how long in all (default 120)")
    length.add_argument("--cases", type=int, help="how many in all, the same on any machine, instead")
    parser.add_argument("--seed", type=int, default=0, help="which cases (default 0)")
    parser.add_argument("--only", choices=list(ROOMS), action="append", help="one of the three; may be repeated")
    given = parser.parse_args(arguments)
    counts = fuzz(given.seed, given.only or list(ROOMS), seconds=given.seconds, cases=given.cases)
    print(counts)
    told: set[tuple[str, str]] = set()
    for route, case, verdict in counts.findings:
        # One of each kind: a thousand cases may have one cause.
        kind = (verdict.end, verdict.said[:60])
        if kind not in told:
            told.add(kind)
            print(f"{verdict.end}: {route}: {case}\n    {verdict.said}")
    print(f"seed {given.seed}: {counts.total:,} cases, {len(counts.findings):,} findings")
    return 1 if counts.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
