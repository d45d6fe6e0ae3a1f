"""`python -m tests.fuzz --seconds 120 --seed 0`: fuzz files, command lines and calls, and print the counts."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.fuzz.rooms import ROOMS, go_through
from tests.fuzz.verdict import Counts

# Shares of the time: a file is read in a millisecond, a command line may train.
SHARES = {"files": 0.25, "commands": 0.45, "calls": 0.3}


def fuzz(seconds: float, seed: int, rooms: list[str]) -> Counts:
    """Fuzz for so long; the same seed tries the same cases in the same order."""
    counts = Counts()
    whole = sum(SHARES[room] for room in rooms)
    for room in rooms:
        end = time.monotonic() + seconds * SHARES[room] / whole
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            go_through(room, counts, Path(folder), str(seed), lambda end=end: time.monotonic() < end)
    return counts


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long in all (default 120)")
    parser.add_argument("--seed", type=int, default=0, help="which cases (default 0)")
    parser.add_argument("--only", choices=list(ROOMS), action="append", help="one of the three; may be repeated")
    given = parser.parse_args(arguments)
    counts = fuzz(given.seconds, given.seed, given.only or list(ROOMS))
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
