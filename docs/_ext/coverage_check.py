"""Fail the build when a public symbol, or a public method of a public class, is on no page."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import bayesreg

MODULES = ("hyperpriors", "likelihoods", "plots", "sparsity", "testing", "transfer")


def public() -> Iterator[tuple[str, object]]:
    """Yield every public name, as `bayesreg.name` or `bayesreg.module.name`, and what it is."""
    for name in set(bayesreg.__all__) - set(MODULES) - {"__version__"}:
        yield f"bayesreg.{name}", getattr(bayesreg, name)
    for module in MODULES:
        holder = importlib.import_module(f"bayesreg.{module}")
        for name in holder.__all__:
            yield f"bayesreg.{module}.{name}", getattr(holder, name)


def members(cls: type) -> Iterator[str]:
    """Yield the public methods and properties that a class is the first to have."""
    for name, value in vars(cls).items():
        callable_or_property = inspect.isfunction(value) or isinstance(value, classmethod | staticmethod | property)
        if callable_or_property and not name.startswith("_") and not any(name in vars(b) for b in cls.__mro__[1:]):
            yield name


def _check(app: Sphinx, _env: object) -> None:
    documented = set(app.env.get_domain("py").data["objects"])
    wanted = set()
    for name, thing in public():
        wanted.add(name)
        # The tests that a family inherits are no calls for users.
        if inspect.isclass(thing) and not name.startswith("bayesreg.testing."):
            wanted |= {f"{name}.{member}" for member in members(thing)}
    missing = sorted(wanted - documented)
    if missing:
        raise ExtensionError(f"public symbols without documentation: {', '.join(missing)}; add them to docs/api.md")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("env-check-consistency", _check)
    return {"version": "1", "parallel_read_safe": True}
