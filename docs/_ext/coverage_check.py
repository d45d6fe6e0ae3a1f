"""Fail the build when a public symbol is on no page."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import bayesreg


def _check(app: Sphinx, _env: object) -> None:
    documented = {name.rsplit(".", 1)[-1] for name in app.env.get_domain("py").data["objects"]}
    modules = {"__version__", "likelihoods", "transfer"}
    public = set(bayesreg.__all__) - modules | set(bayesreg.transfer.__all__) | set(bayesreg.likelihoods.__all__)
    missing = sorted(public - documented)
    if missing:
        raise ExtensionError(f"public symbols without documentation: {', '.join(missing)}; add them to docs/api.md")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("env-check-consistency", _check)
    return {"version": "1", "parallel_read_safe": True}
