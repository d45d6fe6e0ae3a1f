"""Execute notebooks from their text halves and keep the results, pictures included, beside them; all or those named.

The documentation executes them too, at its build; this is for committing what one sees.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of the folder notebooks/, without suffix; default all")
    names = parser.parse_args().names
    for path in sorted(FOLDER.glob("*.py")):
        if names and path.stem not in names:
            continue
        start = time.perf_counter()
        notebook = jupytext.read(path)
        NotebookClient(notebook, timeout=300, kernel_name="python3", record_timing=False).execute(cwd=str(FOLDER))
        print(f"{path.name}: {time.perf_counter() - start:.0f} s")
        notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
        for index, cell in enumerate(notebook.cells):
            cell.id = f"cell-{index}"
            cell.metadata = {}
        temporary = path.with_suffix(".tmp")
        nbformat.write(notebook, temporary)
        temporary.replace(path.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
