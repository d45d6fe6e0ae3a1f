"""The tests of what changed: `tests/` mirrors the package, so a changed folder names its tests.

`python .ci/changed.py [BASE]` prints them, a path each: of files that differ from BASE (default: the last commit) and
new ones. What stands on a changed file is not tried: that is `make test`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parent.parent
# What measures the whole house is quick.
ALWAYS = ("tests/test_house.py", "tests/test_mutations.py")


def git(*arguments: str) -> list[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def tests_of(path: str) -> list[Path]:
    """Return the tests nearest to a changed file: its own, else those beside where its own would be."""
    parts = PurePosixPath(path).parts
    if parts[0] == "tests":
        return [ROOT / path] if parts[-1].startswith("test_") and (ROOT / path).exists() else []
    if parts[0] != "bayesreg" or not path.endswith((".py", ".pyi")):
        return []
    public = [ROOT / "tests" / "test_public_api.py"]
    if parts[-1].startswith("__init__"):
        return public
    named = ROOT.joinpath("tests", *parts[1:-1], f"test_{PurePosixPath(path).stem}.py")
    if named.exists():
        return [named]
    for depth in range(len(parts) - 1, 1, -1):
        beside = sorted(ROOT.joinpath("tests", *parts[1:depth]).glob("test_*.py"))
        if beside:
            return beside
    return public


def main(base: str) -> int:
    changed = [*git("diff", "--name-only", base), *git("ls-files", "--others", "--exclude-standard")]
    found = {test.relative_to(ROOT).as_posix() for path in changed for test in tests_of(path)}
    print("\n".join(sorted(found | set(ALWAYS))))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or ["HEAD"]))
