"""A page for each public object: which members it shows, and docstrings whose references are links."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coverage_check import public
from sphinx.application import Sphinx
from sphinx.ext.autosummary import import_by_name

_LISTED = re.compile(r"^ {3}(bayesreg\.\S+)$", re.MULTILINE)
_PAGE = re.compile(r"(?<!`)docs/(\w+)\.md")
_CODE = re.compile(r"(?<![`:\w])`([^`<>\n]+)`(?![`_])")


def shown(cls: type) -> Iterator[str]:
    """Yield the public members that a class is the first public one to have, those of its private bases too."""
    known = {thing for _, thing in public() if inspect.isclass(thing)} - {cls}
    for name in dir(cls):
        owners = [base for base in cls.__mro__ if name in vars(base)]
        if name.startswith("_") or not owners:
            continue
        value = vars(owners[0])[name]
        called = inspect.isfunction(value) or isinstance(value, classmethod | staticmethod | property)
        ours = all(base.__module__.startswith("bayesreg") and base not in known for base in owners)
        # What the class's own text lists as an attribute is there already.
        attributes = (cls.__doc__ or "").partition("Attributes:")[2]
        listed = isinstance(value, property) and re.search(rf"^ +{name}:", attributes, re.MULTILINE)
        if called and ours and not listed and inspect.getdoc(value):
            yield name


def members() -> dict[str, str]:
    """Return the members shown of each class that the API page lists, with commas."""
    listed = _LISTED.findall((Path(__file__).parents[1] / "api.md").read_text("utf-8"))
    things = {name: import_by_name(name)[1] for name in listed}
    return {name: ", ".join(shown(thing)) for name, thing in things.items() if inspect.isclass(thing)}


def _link(app: Sphinx, _kind: str, _name: str, _thing: object, _options: object, lines: list[str]) -> None:
    known = app.config.api_names

    def linked(found: re.Match[str]) -> str:
        name = found[1].removeprefix("br.").removesuffix("()")
        return f":py:obj:`{found[1]} <bayesreg.{name}>`" if name in known else f"``{found[1]}``"

    for index, line in enumerate(lines):
        # Docstrings are Markdown as far as code goes: one backtick each side.
        lines[index] = line if ">>>" in line else _CODE.sub(linked, _PAGE.sub(r":doc:`/\1`", line))


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")
    app.add_config_value("api_names", sorted(name.removeprefix("bayesreg.") for name, _ in public()), "env")
    app.connect("autodoc-process-docstring", _link)
    return {"version": "1", "parallel_read_safe": True}
