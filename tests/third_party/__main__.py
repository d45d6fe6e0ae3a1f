"""The table of docs/third_party.md: `python -m tests.third_party` prints it, with `--write` it goes into the page."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.third_party.matrix import CASES, measured, missing, toy_seconds

PAGE = Path(__file__).parent.parent.parent / "docs" / "third_party.md"
MARKS = ("<!-- table -->", "<!-- end of table -->")


def table() -> str:
    """Return the table in Markdown."""
    lines = ["| optimizer | of | the prior | gap | of rounding |", "| -- | -- | -- | -- | -- |"]
    for case in CASES:
        row = measured(case)
        numbers = ["", ""] if row.gap is None else [f"{row.gap:.1g}", f"{row.rounding:.1g}"]
        verdict = row.verdict.split(": ")[0] if case.refused else row.verdict
        lines.append(f"| `{case.name}` | {case.library} | {verdict} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def main(words: list[str]) -> int:
    if absent := missing():
        print(f"not installed: {', '.join(absent)}; pip install 'bayesreg[third-party]', and timm with --no-deps")
        return 1
    made = table()
    print(made)
    times = sorted(1e3 * seconds for seconds in map(toy_seconds, CASES) if seconds is not None)
    middle, most = times[len(times) // 2], times[int(0.95 * len(times))]
    print(f"\nthe toy at attach: median {middle:.0f} ms, 95 % under {most:.0f} ms")
    if "--write" in words:
        text = PAGE.read_text(encoding="utf-8")
        head, rest = text.split(MARKS[0])
        PAGE.write_text(f"{head}{MARKS[0]}\n\n{made}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
