"""The package as a house: no folder too full, no import upwards, no circle; docs/map.md has the order.

`python .ci/house.py` reads every import of the package from its syntax tree (inside functions and for types alone too),
prints a line per folder and ends with 1 where a number got worse.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FILES_IN_A_FOLDER = 12
LOOSE_FILES = 8
# These stand outside the package and use it as anybody does: `import bayesreg as br`.
SHELLS = ("cli", "demo", "testing", "__main__")
# What may import by a string: the hand-over to pictures, and what loads names on first use.
BY_STRING = ("_support/drawing.py", "__init__.py", "interop/__init__.py")


class Import(NamedTuple):
    """One module of the package imports another."""

    source: str
    target: str
    line: int


def module_of(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(package: Path) -> dict[str, Path]:
    return {module_of(path, package): path for path in sorted(package.rglob("*.py"))}


def imports(package: Path) -> Iterator[Import]:
    """Yield every import of one module of the package by another, wherever in the file it stands."""
    known = modules(package)
    for source, path in known.items():
        inside = source.split(".") if path.name == "__init__.py" else source.split(".")[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = inside[: len(inside) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                # A name that is a module is imported itself, else what holds it.
                targets = [full if (full := f"{base}.{alias.name}") in known else base for alias in node.names]
            else:
                continue
            for target in dict.fromkeys(targets):
                if target in known and target != source:
                    yield Import(source, target, node.lineno)


def order(page: Path) -> list[str]:
    """Return the folders and loose files of the map, from the ground up."""
    return re.findall(r"^\| `([\w/]+)` +\|", page.read_text(encoding="utf-8"), re.MULTILINE)


def room(module: str, rooms: list[str]) -> str | None:
    """Return the row of the map that a module belongs to: the longest path that it lies under."""
    path = "/".join(module.split(".")[1:])
    return max((r for r in rooms if path == r or path.startswith(f"{r}/")), key=len, default=None)


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the circles that a walk along the arrows meets."""
    found, done, path = [], set(), []

    def walk(node: str) -> None:
        if node in path:
            found.append([*path[path.index(node) :], node])
        elif node not in done:
            path.append(node)
            for target in sorted(arrows.get(node, ())):
                walk(target)
            path.pop()
            done.add(node)

    for node in sorted(arrows):
        walk(node)
    return found


def faults(package: Path, page: Path) -> list[str]:
    """Return what is wrong with the house, a line each."""
    rooms, found, name = order(page), [], package.name
    arrows: dict[str, set[str]] = {}
    for source, target, line in imports(package):
        if source == name:
            continue
        where = f"{'/'.join(source.split('.'))}:{line}"
        here, there = room(source, rooms), room(target, rooms)
        if target == name:
            if source.split(".")[1] not in SHELLS:
                found.append(f"{where}: imports the whole package")
            continue
        arrows.setdefault(source, set()).add(target)
        if here is None or there is None:
            found.append(f"{where}: {source if here is None else target} has no row in {page.name}")
        elif rooms.index(there) > rooms.index(here):
            found.append(f"{where}: {here} imports {target}, which stands above it")
    found += [f"circle: {' -> '.join(circle)}" for circle in circles(arrows)]
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        most = LOOSE_FILES if folder == package else FILES_IN_A_FOLDER
        files = len(list(folder.glob("*.py")))
        if files > most:
            found.append(f"{folder.relative_to(package.parent)}: {files} files, expected at most {most}")
    for path in package.rglob("*.py"):
        inside = path.relative_to(package).as_posix()
        if inside not in BY_STRING and re.search(rf"import_module\(f?[\"']{name}", path.read_text(encoding="utf-8")):
            found.append(f"{inside}: imports the package by a string")
    return found


def main(root: Path) -> int:
    package, page = root / "bayesreg", root / "docs" / "map.md"
    rooms = order(page)
    arrows: dict[str, set[str]] = {}
    for source, target, _ in imports(package):
        here, there = room(source, rooms), room(target, rooms)
        if here and there and here != there:
            arrows.setdefault(here, set()).add(there)
    for name in rooms:
        folder = package / name
        files = sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
        print(
            f"{name:24}{len(files):3} files {lines:6} lines, imports {', '.join(sorted(arrows.get(name, ()))) or '-'}"
        )
    loose = len(list(package.glob("*.py")))
    print(f"{loose} loose files, {sum(map(len, arrows.values()))} arrows between {len(rooms)} rooms")
    wrong = faults(package, page)
    print("\n".join(wrong) or "no arrow up, no circle, no folder too full")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent.parent))
