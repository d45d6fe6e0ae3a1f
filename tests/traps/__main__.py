"""`python -m tests.traps` prints the table of docs/traps.md; `--write` puts it there."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.traps import table


def main() -> None:
    text = table()
    if "--write" in sys.argv:
        page = Path("docs/traps.md")
        before, rest = page.read_text().split("<!-- table -->\n", 1)
        _, after = rest.split("<!-- end -->", 1)
        page.write_text(f"{before}<!-- table -->\n{text}\n<!-- end -->{after}")
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
