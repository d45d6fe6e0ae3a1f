"""Priors in the frameworks that people train in; each file is imported when it is used, and its framework with it.

`br.interop.transformers.PriorTrainer` for Hugging Face, `br.interop.lightning.PriorCallback` for Lightning,
`br.interop.skorch.PriorCallback` for skorch.
"""

from __future__ import annotations

import importlib
from typing import Any

from bayesreg.errors import nearest

__all__: list[str] = []

_FRAMEWORKS = ("lightning", "skorch", "transformers")


def __getattr__(name: str) -> Any:
    if name not in _FRAMEWORKS:
        raise AttributeError(f"module 'bayesreg.interop' has no attribute {name!r}{nearest(name, _FRAMEWORKS)}")
    return importlib.import_module(f"bayesreg.interop.{name}")


def __dir__() -> list[str]:
    return list(_FRAMEWORKS)
