"""Sphinx configuration: Furo, MyST-NB, formulas as MathML at build, no network."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from api_pages import members
from executed import cache_in

import bayesreg

project = "bayesreg"
author = "The bayesreg developers"
copyright = "The bayesreg developers"
version = release = bayesreg.__version__

extensions = [
    "alternative_texts",
    "api_pages",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "coverage_check",
    "mathml",
    "notebook_links",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
# A page is executed again where its cells or the package have changed.
nb_execution_mode = "cache"
nb_execution_cache_path = cache_in(Path(__file__).parent / "_build" / "executed", Path(bayesreg.__file__).parent)
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds a cell may take where other programs hold the processor
nb_merge_streams = True
nb_render_markdown_format = "gfm"
# The notebooks' text halves are executed once, here; docs/notebooks is a link to their folder.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
exclude_patterns = ["_build", "jupyter_execute", "conf.py", "_ext", "notebooks/*.ipynb"]
nitpicky = False

html_theme = "furo"
html_title = f"bayesreg {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False

templates_path = ["_templates"]
autosummary_context = {"shown": members()}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
doctest_global_setup = "import torch\nimport bayesreg as br\nfrom torch import nn\nfrom bayesreg import *"
# Doctests run with pytest; here only those of the pages.
doctest_test_doctest_blocks = ""
