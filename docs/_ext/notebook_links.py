"""Links from a notebook to the pages: `../docs/page.md` where the repository is browsed, `/page.md` on the site."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def _relink(_app: Sphinx, name: str, source: list[str]) -> None:
    if name.startswith("notebooks/"):
        source[0] = source[0].replace("](../docs/", "](/")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", _relink)
    return {"version": "1", "parallel_read_safe": True}
