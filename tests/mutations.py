"""Mistakes that the tests must notice: `python -m tests.mutations` makes them one by one and runs the tests of each.

Each is a sign, a factor ½, a missing log scale, a variance in place of a scale, or the like, in one family. The
script copies the package, changes one place and expects the tests that are named to fail. Options: a word that a
family's file must contain.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mistakes.edges import EDGES
from tests.mistakes.elsewhere import ELSEWHERE
from tests.mistakes.families import FAMILIES
from tests.mistakes.frameworks import FRAMEWORKS
from tests.mistakes.horizon import HORIZON
from tests.mistakes.mutation import Mutation
from tests.mistakes.strength import STRENGTH
from tests.mistakes.tables import TABLES
from tests.mistakes.trainer import TRAINER

ROOT = Path(__file__).parent.parent

MUTATIONS = [*FAMILIES, *ELSEWHERE, *EDGES, *STRENGTH, *TABLES, *TRAINER, *HORIZON, *FRAMEWORKS]


def caught(mutation: Mutation) -> bool:
    """Make the change in a copy and return whether the tests fail."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("bayesreg", "tests"):
            shutil.copytree(ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "docs"):
            Path(folder, name).symlink_to(ROOT / name)
        target = Path(folder, "bayesreg", mutation.file)
        target.write_text(target.read_text().replace(mutation.old, mutation.new, 1))
        # The slow ones are asked only where no quick one sees it.
        for marked in ("not slow", "slow"):
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-x", "-q", "-m", marked, f"tests/{mutation.tests}"],
                cwd=folder, env={**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}, capture_output=True,
                text=True,
            )  # fmt: skip
            # 5: there is no such test.
            if done.returncode not in (0, 1, 5):
                raise RuntimeError(
                    f"{mutation}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-500:]}"
                )
            if done.returncode == 1:
                return True
        return False


def main(words: list[str]) -> int:
    chosen = [m for m in MUTATIONS if not words or any(word in m.file for word in words)]
    survivors = 0
    with ThreadPoolExecutor(2) as pool:
        for mutation, found in zip(chosen, pool.map(caught, chosen), strict=True):
            survivors += not found
            change = " ".join(f"{mutation.old!r} -> {mutation.new!r}".split())
            print(f"{'caught  ' if found else 'SURVIVED'} {mutation.file}: {change}", flush=True)
    print(f"{len(chosen)} mutations, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
