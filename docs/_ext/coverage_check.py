"""Fail the build when a public symbol is on no page."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import bayesreg


def _check(app: Sphinx, _env: object) -> None:
    documented = {name.rsplit(".", 1)[-1] for name in app.env.get_domain("py").data["objects"]}
    missing = sorted(set(bayesreg.__all__) - documented - {"__version__", "likelihoods"})
    if missing:
        raise ExtensionError(f"public symbols without documentation: {', '.join(missing)}; add them to docs/api.md")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("env-check-consistency", _check)
    return {"version": "1", "parallel_read_safe": True}
