"""Execute every notebook from its text half; with --write keep the result, pictures included, beside it."""

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
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    for path in sorted(FOLDER.glob("*.py")):
        start = time.perf_counter()
        notebook = jupytext.read(path)
        NotebookClient(notebook, timeout=300, kernel_name="python3", record_timing=False).execute(cwd=str(FOLDER))
        print(f"{path.name}: {time.perf_counter() - start:.0f} s")
        if arguments.write:
            notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
            for index, cell in enumerate(notebook.cells):
                cell.id = f"cell-{index}"
                cell.metadata = {}
            temporary = path.with_suffix(".tmp")
            nbformat.write(notebook, temporary)
            temporary.replace(path.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
